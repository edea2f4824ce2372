"""What is told at the end."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import click

from sydentish.actions.takeover import Tally
from sydentish.actions.takeover_people import KNOWN, TAKEN
from sydentish.cli.printing import print_json, print_table
from sydentish.cli.sydent.draft import DECISION, DROPPED, TRANSLATED, Draft, summary
from sydentish.cli.sydent.templates import Template

_HEAD = ("WHAT", "FOUND", "TAKEN OVER", "HERE ALREADY", "LEFT OUT")

Detail = Callable[[Mapping[str, object]], None]
"""Hears of something that concerns one address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done, or would be.

    Attributes:
        dry_run: nothing was done.
        configuration: the file of ours.
        draft: what was written there; None if it was there already, and stays as it is.
        key: the ID and the public key of the signing key, and whether it was new here.
        schema: the version of the Sydent's database.
        tally: what was found in it.
        templates: what needs a hand.
        warnings: what the operator should look at.
        details_file: has what concerns single addresses, if it was asked for.
    """

    dry_run: bool
    configuration: Path
    draft: Draft | None
    key: tuple[str, str, bool]
    schema: int
    tally: Tally
    templates: Sequence[Template]
    warnings: Sequence[str]
    details_file: Path | None


@contextmanager
def detail_file(path: Path | None) -> Iterator[Detail]:
    """Writes details into a file of its own, a JSON object on each line, for its owner alone.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    if path is None:
        yield lambda _detail: None
        return
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield lambda detail: _write(file, detail)


def _write(file: TextIO, detail: Mapping[str, object]) -> None:
    # A database of SQLite has values of any type anywhere, bytes among them.
    file.write(json.dumps(detail, default=repr) + "\n")


def as_json(report: Report) -> dict[str, object]:
    """All of it, for programs."""
    draft = report.draft
    key_id, public_key, is_new = report.key
    return {
        "dry_run": report.dry_run,
        "configuration": {
            "file": str(report.configuration),
            "written": draft is not None and not report.dry_run,
            "settings": [each.to_json() for each in draft.settings] if draft else [],
        },
        "signing_key": {"key_id": key_id, "public_key": public_key, "new": is_new},
        "schema": report.schema,
        "database": {
            kind: {"found": report.tally.found(kind), "outcomes": dict(outcomes)}
            for kind, outcomes in report.tally.kinds.items()
        },
        "conflicts": report.tally.conflicts,
        "templates": [asdict(each) for each in report.templates],
        "warnings": list(report.warnings),
    }


def show(report: Report, *, as_json_: bool) -> None:
    """Prints it."""
    if as_json_:
        print_json(as_json(report))
        return
    _show_configuration(report)
    key_id, public_key, is_new = report.key
    click.echo(f"Signing key: {key_id}, public key {public_key}{'' if is_new else ', was there already'}")
    click.echo()
    _show_tally(report.tally, report.details_file)
    if report.templates:
        click.echo("\nTemplates that must be written anew, see docs/templates.md:")
        print_table(
            [("OLD", "BRAND", "NEW"), *((each.old, each.brand, each.new) for each in report.templates)]
        )
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.dry_run:
        click.echo("\nThis was a rehearsal: nothing was written.")


def _show_configuration(report: Report) -> None:
    if report.draft is None:
        click.echo(
            f"Configuration: {report.configuration} is there, and stays as it is; --force makes it anew"
        )
        return
    counts = summary(report.draft.settings)
    # What becomes several settings of ours is looked at once.
    looked_at = dict.fromkeys((each.source, each.told) for each in report.draft.of_kind(DECISION))
    click.echo(
        f"Configuration: {report.configuration}: {counts[TRANSLATED]} settings translated, {counts[DROPPED]} dropped, "
        f"{len(looked_at)} to be looked at:"
    )
    for source, told in looked_at:
        click.echo(f"  {source}: {told}")


def _show_tally(tally: Tally, details_file: Path | None) -> None:
    rows = []
    for kind, outcomes in tally.kinds.items():
        found = tally.found(kind)
        left = found - outcomes[TAKEN] - outcomes[KNOWN]
        rows.append((kind, *map(str, (found, outcomes[TAKEN], outcomes[KNOWN], left))))
    print_table([_HEAD, *rows])
    for kind, outcomes in tally.kinds.items():
        for outcome, number in sorted(outcomes.items()):
            if outcome not in (TAKEN, KNOWN):
                click.echo(f"{kind}: {number}: {outcome}")
    if tally.conflicts:
        click.echo(
            "addresses in several spellings, for several users, of which the newest statement counts: "
            f"{tally.conflicts}"
        )
    if tally.told:
        told = (
            "--report FILE writes them down, with --dry-run, too"
            if details_file is None
            else f"see {details_file}"
        )
        click.echo(f"conflicts, and what is unusable: {told}")
