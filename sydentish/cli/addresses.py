"""`--address`, `--medium`, and options for users: whom a command is about."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sydentish.domain.errors import InvalidParam
from sydentish.domain.ids import user_id
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, given_threepid

F = TypeVar("F", bound=Callable[..., Any])

NO_ADDRESS = "must be an e-mail address, or the digits of a telephone number with its country code, without zeros in front"
"""What is wrong with what is none."""

_BETWEEN_DIGITS = str.maketrans("", "", " -./()\u00a0")
_ZERO_IN_BRACKETS = re.compile(r"\(\W*0\W*\)")


def address_option(
    *,
    required: bool = False,
    help: str = "An e-mail address, or a telephone number with its country code.",  # noqa: A002
) -> Callable[[F], F]:
    """`--address ADDRESS`; see `read_address`."""
    return click.option("--address", metavar="ADDRESS", required=required, help=help)


medium_option = click.option(
    "--medium",
    type=click.Choice([EMAIL, MSISDN]),
    help="What kind of address it is; without this, one with an @ is an e-mail address.",
)
"""`--medium email|msisdn`."""


def user_option(name: str, *, required: bool = False, help: str = "A Matrix user.") -> Callable[[F], F]:  # noqa: A002
    """An option of that name whose value is a user ID."""
    return click.option(name, metavar="MXID", required=required, callback=_user_id, help=help)


def user_argument(command: F) -> F:
    """`[MXID]`, a user ID."""
    return click.argument("mxid", metavar="[MXID]", required=False, callback=_user_id)(command)


def meant(text: str, medium: str | None) -> tuple[str, str]:
    """Medium and address that somebody has written; of a telephone number without what people put between its digits.

    Raises:
        click.BadParameter: the telephone number has a zero in brackets.
    """
    text = text.strip()
    medium = medium or (EMAIL if "@" in text else MSISDN)
    if medium == EMAIL:
        return medium, text
    # It can be one that is dialled within the country only, or, as in Italy, a part of the number.
    if _ZERO_IN_BRACKETS.search(text):
        raise click.BadParameter(
            "must be the telephone number as it is dialled from abroad, without the 0 in brackets",
            param_hint="--address",
        )
    return medium, text.translate(_BETWEEN_DIGITS)


def read_address(address: str, medium: str | None = None) -> Threepid:
    """The address that is meant, in the form that is stored.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return given_threepid(*meant(address, medium))
    except InvalidParam:
        raise click.BadParameter(NO_ADDRESS, param_hint="--address") from None


def _user_id(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else user_id("mxid", value)
    except InvalidParam as error:
        raise click.BadParameter(error.problem) from None
