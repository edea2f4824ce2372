"""What the commands share: reading the configuration, and ending with a status that says why."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from sydentish.cli.printing import print_line
from sydentish.cli.stopping import INTERRUPTED
from sydentish.config import Config, ConfigError, load
from sydentish.config.values import duration
from sydentish.domain.keys import KeyRing
from sydentish.keyfiles import KeyProblem, NoKey, load_keys

DEFAULT_CONFIG = "/etc/sydentish/sydentish.conf"

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="List so many at the most."
)
"""`--limit N`."""

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
"""`--yes`; see `confirm`."""


def config_option(command: F) -> F:
    """`-c FILE`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        # Whether it can be read, `load` finds out: click would end with a status of its own.
        type=str,
        metavar="FILE",
        callback=_named,
        default=DEFAULT_CONFIG,
        show_default=True,
        help="The configuration file.",
    )(command)


def age_option(name: str, about: str) -> Callable[[F], F]:
    """An option with a duration, such as `30d`; the command gets it as `age_ms`, in ms.

    Args:
        name: of the option.
        about: what it is for.
    """
    return click.option(
        name,
        "age_ms",
        metavar="DURATION",
        callback=lambda _context, _option, value: value and parsed(duration(), value),
        help=about,
    )


def _named(_context: click.Context, _option: click.Parameter, name: str) -> Path:
    if not name:
        # As a path it would be the working directory.
        refuse("-c: must name the configuration file, but is empty")
    return Path(name)


def read_config(path: Path) -> Config:
    """Reads the configuration; ends the program with all that is wrong with it."""
    try:
        return load(path, os.environ)
    except ConfigError as error:
        refuse(*map(str, error.problems))


def read_keys(config: Config, config_path: Path) -> KeyRing:
    """Reads the signing keys; ends the program if they cannot be used, with the command that helps."""
    try:
        return load_keys(config.general.key_dir, config.general.server_name)
    except KeyProblem as problem:
        refuse(told_of_keys(problem, config, config_path))


def parsed(parser: Callable[[str], T], value: str) -> T:
    """What is given on the command line, read as in the configuration.

    Raises:
        click.BadParameter: it is wrong.
    """
    try:
        return parser(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def told(error: OSError) -> str:
    """What the operator is told of a file that cannot be used: which, and why."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def told_of_keys(problem: KeyProblem, config: Config, config_path: Path) -> str:
    """What the operator is told of signing keys that cannot be used, with the command that helps."""
    if not isinstance(problem, NoKey):
        return str(problem)
    command = f"sydentish keys generate -c {shlex.quote(str(config_path))}"
    if is_new(config):
        return f"{problem}; make one, as the server's user, with: {command}"
    return f"{problem}, but a database; put the key there that belongs to it, or if there is none any more, make another: {command}"


def is_new(config: Config) -> bool:
    """Whether there is no database yet, as far as can be seen. One that is there was used with a signing key."""
    try:
        return not config.database.path.exists()
    except PermissionError:
        return True


def confirm(question: str, *, yes: bool) -> None:
    """Goes on if the operator wants it; ends the program if not, if it is stopped, or if nobody can be asked.

    Args:
        question: what is asked, while nothing is changed yet.
        yes: the answer was given on the command line.
    """
    if yes:
        return
    at_terminal = sys.stdin.isatty()
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort:
        # Ctrl-C, or the end of what can be read. To click, it would be the same as a no.
        if at_terminal:
            click.echo("\nAborted!", err=True)
            sys.exit(INTERRUPTED)
    if at_terminal:
        raise click.Abort
    # What is asked ends without a line of its own where nobody ends the answer with one.
    click.echo(err=True)
    cannot_run("nothing was changed: if that is what you want, say so with --yes")


def cannot_run(problem: str) -> NoReturn:
    """Ends the program because of what it met, with the status of a failure that may pass."""
    print_line(problem, err=True)
    sys.exit(1)


def refuse(*problems: str) -> NoReturn:
    """Ends the program because of what the operator has set up, with the status that means just that."""
    for problem in problems:
        print_line(problem, err=True)
    sys.exit(os.EX_CONFIG)
