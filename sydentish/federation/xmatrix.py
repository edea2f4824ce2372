"""`Authorization: X-Matrix ...`: how a homeserver signs a request (Server-Server API, "Request Authentication").

The syntax is that of RFC 9110 sections 11.2 and 11.4, with lists as in section 5.6.1: the scheme and the names of
parameters in any case, parameters in any order, values as tokens or quoted strings, empty elements passed over.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sydentish.domain.errors import ProofRefused
from sydentish.domain.ids import canonical_server_name
from sydentish.domain.keys import decode_base64

_MAX_HEADERS = 8
_MAX_HEADER = 4096
_SCHEME = "x-matrix"

_TCHAR = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_CREDENTIALS = re.compile(rf"([{_TCHAR}]+)(?:[ ]+(.*))?", re.DOTALL)
_GAP = re.compile(r"[ \t,]*")
# An unquoted value may have colons, as the specification asks for the sake of older servers; these also left the
# brackets of an IPv6 literal unquoted.
_PARAMETER = re.compile(
    rf"""([{_TCHAR}]+) [ \t]* = [ \t]*
         (?: "( (?: [\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff] | \\[\t\x20-\x7e\x80-\xff] )* )"
           | ([{_TCHAR}:\[\]]+) )
         [ \t]* (?: , | \Z )""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class XMatrix:
    """One signature of a homeserver under a request.

    Attributes:
        origin: the server name of the homeserver as it wrote it, which is how it signed it.
        key_id: of the key that it signed with.
        signature: what it signed with it, decoded.
        destination: whom it says that it speaks to, as it wrote it; None when it does not say.
    """

    origin: str
    key_id: str
    signature: bytes = field(repr=False)
    destination: str | None

    @property
    def canonical_origin(self) -> str:
        """The origin in its canonical form."""
        return canonical_server_name(self.origin)


def parse_authorizations(values: Sequence[bytes]) -> tuple[XMatrix, ...]:
    """The signatures in the `Authorization` headers of a request; other schemes are passed over.

    Args:
        values: of the headers, as they were sent.

    Returns:
        One or more, all of one homeserver.

    Raises:
        ProofRefused: there is none, one is malformed, they name several homeservers, or there is too much of it.
    """
    if len(values) > _MAX_HEADERS:
        raise ProofRefused(f"Authorization must stand in at most {_MAX_HEADERS} headers")
    found = [each for each in map(_parse, values) if each is not None]
    if not found:
        raise ProofRefused("Authorization must be of the scheme X-Matrix")
    if len({each.canonical_origin for each in found}) > 1:
        raise ProofRefused("X-Matrix: all headers must have the same origin")
    return tuple(found)


def _parse(value: bytes) -> XMatrix | None:
    if len(value) > _MAX_HEADER:
        raise ProofRefused(f"Authorization must have at most {_MAX_HEADER} bytes")
    # Every byte is a character of Latin-1; those beyond ASCII may stand in quoted strings.
    credentials = _CREDENTIALS.fullmatch(value.decode("latin-1").strip(" \t"))
    if credentials is None:
        raise ProofRefused("Authorization must begin with a scheme and a space, such as X-Matrix")
    scheme, parameters = credentials.groups("")
    return _signature(_parameters(parameters)) if scheme.lower() == _SCHEME else None


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = _end_of_gap(text, 0)
    while position < len(text):
        parameter = _PARAMETER.match(text, position)
        if parameter is None:
            raise ProofRefused('X-Matrix: parameters must have the form name="value", with commas between')
        name, quoted, plain = parameter.groups()
        if name.lower() in found:
            raise ProofRefused("X-Matrix: no parameter may come twice")
        found[name.lower()] = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = _end_of_gap(text, parameter.end())
    return found


def _end_of_gap(text: str, start: int) -> int:
    gap = _GAP.match(text, start)
    return start if gap is None else gap.end()


def _signature(parameters: dict[str, str]) -> XMatrix:
    missing = [name for name in ("origin", "key", "sig") if name not in parameters]
    if missing:
        raise ProofRefused(f"X-Matrix: needs the parameters {', '.join(missing)}")
    try:
        canonical_server_name(parameters["origin"])
    except ValueError:
        raise ProofRefused("X-Matrix: origin must be a server name") from None
    # Signatures are written as public keys are: in base64.
    signature = decode_base64(parameters["sig"])
    if signature is None:
        raise ProofRefused("X-Matrix: sig must be unpadded base64")
    return XMatrix(parameters["origin"], parameters["key"], signature, parameters.get("destination"))
