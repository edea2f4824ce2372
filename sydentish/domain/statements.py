"""Statements: what servers say of addresses, and which of two wins.

An association says that an address belongs to a user, a tombstone that it belongs to nobody any more. Every server
keeps the newest statement of each address, by one order that all servers share; so all that have heard the same
statements, in whatever order and however often, know the same.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sydentish.domain.associations import Association
from sydentish.domain.ids import server_name_of
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, normalise

MAX_ORIGIN_ID = (1 << 63) - 1
"""The highest number that a statement can have."""

# Numbers beyond it have no canonical JSON.
_MAX_TIME = (1 << 53) - 1
_ORIGIN_ID = re.compile(r"0|[1-9][0-9]{0,18}")
_DIGITS = re.compile(r"[0-9]{1,20}")
_MAX_ADDRESS_BYTES = 500


@dataclass(frozen=True, slots=True, order=True)
class Order:
    """Which of two statements about an address is the newer one: the greater one, on every server alike.

    Attributes:
        ts: when it was made, in ms.
        origin_server: the server that made it.
        origin_id: its number among the statements of that server.
    """

    ts: int
    origin_server: str
    origin_id: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An address that belongs to nobody any more.

    Attributes:
        threepid: the address, normalised.
        ts: when the statement was made, in ms.
        origin_server: the identity server that made it.
        origin_id: its number among the statements of that server.
    """

    threepid: Threepid
    ts: int
    origin_server: str
    origin_id: int

    def to_json(self) -> dict[str, object]:
        """What is signed and given to peers: an association with nobody."""
        return {
            "medium": self.threepid.medium,
            "address": self.threepid.address,
            "mxid": None,
            "ts": self.ts,
            "not_before": None,
            "not_after": None,
        }


Statement = Association | Tombstone


class UnusableStatement(ValueError):
    """A statement that is well-formed, but about what no server of this kind knows: another medium, no user ID.

    Other programs have such in their databases. Who refused them would hear of nothing else any more, since some of
    these programs send the same again for ever.
    """


def order_of(statement: Statement) -> Order:
    """Where a statement stands among all statements about its address."""
    return Order(statement.ts, statement.origin_server, statement.origin_id)


def erased_key(local_key: bytes, threepid: Threepid) -> str:
    """What stays of an address that was erased: HMAC-SHA-256 in hexadecimal, with a key that no other server has.

    It tells that an address which comes again was known before, and nothing to somebody without the key.
    """
    return hmac.digest(local_key, f"{threepid.medium}\0{threepid.address}".encode(), "sha256").hex()


def read_origin_id(text: str) -> int:
    """The number of a statement, from decimal digits.

    Raises:
        ValueError: it is none: not a plain decimal number of at most 63 bits.
    """
    if not _ORIGIN_ID.fullmatch(text) or int(text) > MAX_ORIGIN_ID:
        raise ValueError("an origin id is a decimal number of at most 63 bits")
    return int(text)


def read_statement(value: Mapping[str, object], origin_server: str, origin_id: int) -> Statement:
    """What a peer states, from the JSON object that it has signed.

    Other servers have bound addresses that we would not send a mail to; they are taken as they are, case-folded.

    Raises:
        UnusableStatement: it is a statement that cannot be used here.
        ValueError: the object is no statement; the messages name the field and show no address.
    """
    threepid = stated_threepid(_text(value, "medium"), _text(value, "address"))
    ts = _time(value, "ts")
    # It must be there: what deletes something says so.
    if value.get("mxid", "") is None:
        return Tombstone(threepid, ts, origin_server, origin_id)
    mxid = _text(value, "mxid")
    try:
        server_name_of(mxid)
    except ValueError as error:
        raise UnusableStatement(f"mxid: {error}") from None
    return Association(
        threepid=threepid,
        mxid=mxid,
        ts=ts,
        not_before=_time(value, "not_before"),
        not_after=_time(value, "not_after"),
        origin_server=origin_server,
        origin_id=origin_id,
    )


def stated_threepid(medium: str, address: str) -> Threepid:
    """The address of a statement in the form that is stored; other servers have such that we would not send a mail to.

    Raises:
        UnusableStatement: it can be none.
    """
    if medium not in (EMAIL, MSISDN):
        raise UnusableStatement(f"medium: must be {EMAIL} or {MSISDN}")
    strict = normalise(medium, address)
    if strict is not None:
        return strict
    folded = address.casefold()
    usable = (
        _DIGITS.fullmatch(folded)
        if medium == MSISDN
        else "@" in folded
        and folded.isprintable()
        and len(folded.encode(errors="surrogatepass")) <= _MAX_ADDRESS_BYTES
    )
    if not usable:
        raise UnusableStatement("address: must be an e-mail address, or the digits of a telephone number")
    return Threepid(medium, folded)


def _text(value: Mapping[str, object], name: str) -> str:
    text = value.get(name)
    if isinstance(text, str):
        return text
    raise ValueError(f"{name}: must be a text")


def _time(value: Mapping[str, object], name: str) -> int:
    time = value.get(name)
    if not isinstance(time, int) or isinstance(time, bool) or not 0 <= time <= _MAX_TIME:
        raise ValueError(f"{name}: must be a time in ms")
    return time
