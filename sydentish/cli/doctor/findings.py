"""What the checks find, and how that is printed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import click

from sydentish.cli.printing import shown

Result = Literal["ok", "warning", "failed"]

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
_RESULT_WIDTH = len("warning: ")
# What checks of one thing among many are called is longer, and known only as they run.
_CHECK_WIDTH = len("configuration: ")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    Attributes:
        check: what was looked at, in a word or two.
        result: how it is.
        told: what was found, and for what is wrong the cause.
        remedy: what helps; None where nothing is to be done, or where `told` says it.
    """

    check: str
    result: Result
    told: str
    remedy: str | None = None


def ok(check: str, told: str) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", told)


def warning(check: str, told: str, remedy: str | None = None) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(check, "warning", told, remedy)


def failed(check: str, told: str, remedy: str | None = None) -> Finding:
    """It does not work, or not for everybody."""
    return Finding(check, "failed", told, remedy)


def show(finding: Finding) -> None:
    """Prints one line."""
    label = click.style(f"{finding.result}:".ljust(_RESULT_WIDTH), fg=_COLOURS[finding.result])
    remedy = "" if finding.remedy is None else f"; {finding.remedy}"
    click.echo(f"{label}{f'{finding.check}: '.ljust(_CHECK_WIDTH)}{shown(finding.told + remedy)}")


def summary(findings: Iterable[Finding]) -> str:
    """How it is in all, in one line."""
    results = [finding.result for finding in findings]
    failures, warnings = results.count("failed"), results.count("warning")
    told = _number(len(results), "finding")
    if not failures and not warnings:
        return f"All is well: {told}, and nothing to do."
    return f"{_number(failures, 'failure')} and {_number(warnings, 'warning')} in {told}."


def _number(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count or 'no'} {what}s"
