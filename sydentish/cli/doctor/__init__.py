"""`sydentish doctor`."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from sydentish.cli.common import config_option, parsed, read_config
from sydentish.cli.doctor.examination import Examination
from sydentish.cli.doctor.findings import Finding, show, summary
from sydentish.cli.doctor.machine import look_at_setup
from sydentish.cli.printing import json_option, print_json
from sydentish.cli.running import run
from sydentish.config import Config, files, network
from sydentish.domain.keys import KeyRing
from sydentish.keyfiles import KeyProblem, load_keys


def _server_names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(parsed(network.server_name, value) for value in values)


def _ca_file(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    return None if value is None else parsed(files.ca_file, value)


@click.command(short_help="Try all that the server needs.")
@config_option
@json_option
@click.option(
    "--homeserver",
    "homeservers",
    multiple=True,
    metavar="NAME",
    callback=_server_names,
    help="A homeserver to try, by its server name; can be given several times. Without it, those that [homeservers] "
    "allow names.",
)
@click.option(
    "--ca-file",
    metavar="FILE",
    callback=_ca_file,
    help="Authorities (PEM) to trust for the certificate of the public URL, instead of the system's.",
)
def doctor(
    config_path: Path,
    as_json_: bool,  # noqa: FBT001 - a flag of the command line
    homeservers: tuple[str, ...],
    ca_file: Path | None,
) -> None:
    """Try all that this server needs, and tell of each whether it works, or the cause and what helps.

    No mail and no SMS is sent, and nothing is changed but a counter in the database. Run it while the server runs, as
    the server's user. Exit status 1 when anything does not work; warnings alone are no failure.

    Example: sydentish doctor --homeserver matrix.example.org
    """
    config = read_config(config_path)
    examination = Examination(
        config,
        look_at_setup(config, config_path),
        _keys(config),
        homeservers=homeservers,
        ca_file=ca_file,
        show=_ignore if as_json_ else show,
    )
    findings = run(examination.run)
    well = all(finding.result != "failed" for finding in findings)
    if as_json_:
        print_json({"ok": well, "findings": [asdict(finding) for finding in findings]})
    else:
        click.echo(summary(findings))
    sys.exit(0 if well else 1)


def _keys(config: Config) -> KeyRing | None:
    try:
        return load_keys(config.general.key_dir, config.general.server_name)
    except KeyProblem:  # is told of with the configuration
        return None


def _ignore(_: Finding) -> None:
    """All of them are printed together."""
