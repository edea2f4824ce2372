"""`sydentish keys list`."""

from contextlib import suppress
from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config, refuse, told_of_keys
from sydentish.cli.printing import json_option, moment, now_ms, print_json, print_table
from sydentish.keyfiles import KeyFile, KeyProblem, inventory, mode_warning, ring_of

_HEAD = ("ID", "STATE", "PUBLIC KEY", "MADE", "FILE")
_NS_IN_MS = 1_000_000


@click.command("list")
@config_option
@json_option
def list_keys(config_path: Path, as_json_: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """List all signing keys: the next one, the active one, and those that sign no more.

    MADE is when the file was written. Exit status 78 when the server would not start with these keys.

    Example: sydentish keys list -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    general = config.general
    try:
        files = inventory(general.key_dir)
    except KeyProblem as problem:
        refuse(str(problem))
    rows = [(file, _made_ms(file), _warnings(file)) for file in files]
    if as_json_:
        print_json({"keys": [_as_json(*row) for row in rows]})
    elif rows:
        print_table([_HEAD, *(_row(file, made_ms) for file, made_ms, _ in rows)])
    for _, _, warnings in rows:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
    try:
        ring_of(general.key_dir, general.server_name, files)
    except KeyProblem as problem:
        refuse(told_of_keys(problem, config, config_path))


def _row(file: KeyFile, made_ms: int | None) -> tuple[str, ...]:
    key = file.key
    return (key.key_id, key.state.value, key.public_key, moment(made_ms, now_ms()), str(file.path))


def _as_json(file: KeyFile, made_ms: int | None, warnings: list[str]) -> dict[str, object]:
    return {
        "id": file.key.key_id,
        "state": file.key.state.value,
        "public_key": file.key.public_key,
        "file": str(file.path),
        "made_ts": made_ms,
        "warnings": warnings,
    }


def _made_ms(file: KeyFile) -> int | None:
    with suppress(OSError):  # moved since
        return file.path.stat().st_mtime_ns // _NS_IN_MS
    return None


def _warnings(file: KeyFile) -> list[str]:
    found: list[str] = []
    for path in (file.path, *file.copies):
        with suppress(OSError):  # moved since
            found += filter(None, [mode_warning(path)])
    found += [
        f"{copy}: is another copy of {file.key.key_id}; the next change removes it" for copy in file.copies
    ]
    return found
