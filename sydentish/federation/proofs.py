"""Who signed a request: the signature of a homeserver, checked with the keys that it publishes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from twisted.logger import Logger

from sydentish.actions.ports import SignedRequest
from sydentish.domain.errors import ProofRefused
from sydentish.domain.ids import ServerName, parse_server_name
from sydentish.domain.signatures import ED25519, canonical, is_signed
from sydentish.federation.keyring import HomeserverKeys
from sydentish.federation.xmatrix import XMatrix, parse_authorizations

# The specification says the second; today's homeservers say the first to identity servers.
_DESTINATION_KEYS = ("destination_is", "destination")
# What one request can make us compute, about 100 us each.
_MAX_CHECKS = 64

_log = Logger()


class SignedRequests:
    """Checks the signatures of homeservers under their requests; a `HomeserverProofs`.

    Neither a time nor a number is signed, so nothing tells a request from its repetition, and an honest homeserver
    that unbinds the same address again makes the very same signature. Requests are therefore not remembered: what is
    signed names the deed and whom it is for, and doing it twice changes no more than doing it once.
    """

    def __init__(self, *, names: Sequence[str], keys: HomeserverKeys) -> None:
        """Takes what it uses.

        Args:
            names: server names that this server goes by, the usual one first. One without a port stands for that
                host with any port.
            keys: the public keys of homeservers.

        Raises:
            ValueError: one of the names is not a server name.
        """
        self._names = tuple(dict.fromkeys(parse_server_name(name) for name in names))
        self._keys = keys

    async def origin_of(self, request: SignedRequest) -> str:
        """The server name of the homeserver that signed the request, in its canonical form.

        Raises:
            ProofRefused: the proof is missing, malformed, meant for another server, or wrong.
            KeysUnavailable: the homeserver's keys cannot be fetched now.
        """
        try:
            signatures = parse_authorizations(request.authorizations)
        except ProofRefused as refused:
            _log.info("a signed request was refused: {reason}", reason=refused.message)
            raise
        origin = signatures[0].canonical_origin
        try:
            await self._check(request, origin, signatures)
        except ProofRefused as refused:
            _log.info(
                "a request signed in the name of {server_name} was refused: {reason}",
                server_name=origin,
                reason=refused.message,
            )
            raise
        return origin

    async def _check(self, request: SignedRequest, origin: str, signatures: Sequence[XMatrix]) -> None:
        # Whatever can be refused without asking anybody is refused first.
        for signature in signatures:
            self._check_destination(signature.destination)
        content = _content(request)
        # A key that is not known is passed over: it can be so new that it was not published when we asked, or of an
        # algorithm yet to come. A signature that is known to be wrong is not: something is amiss there.
        known = [(each, key) for each in signatures if (key := await self._key(origin, each)) is not None]
        if not known:
            raise ProofRefused("X-Matrix: key must be one that the homeserver publishes and signs with")
        checks = _MAX_CHECKS // len(known)
        for signature, key in known:
            messages = islice(
                _messages(request, content, signature.origin, self._destinations(signature)), checks
            )
            if not any(is_signed(message, signature.signature, key) for message in messages):
                raise ProofRefused("X-Matrix: sig must be the signature of this request, for this server")

    async def _key(self, origin: str, signature: XMatrix) -> bytes | None:
        if not signature.key_id.startswith(ED25519):
            return None
        return await self._keys.key(origin, signature.key_id)

    def _check_destination(self, destination: str | None) -> None:
        if destination is None:
            return
        try:
            name = _host_of(destination)
        except ValueError:
            raise ProofRefused("X-Matrix: destination must be a server name") from None
        if not any(_same(name, ours) for ours in self._names):
            # What clients call a server, its operator may not have thought of.
            _log.info(
                "a homeserver calls this server {name}: if that is one of its names, add it to server_name_aliases",
                name=str(name),
            )
            raise ProofRefused(f"X-Matrix: destination must be a name of this server, which {name} is not")

    def _destinations(self, signature: XMatrix) -> Iterator[str]:
        """What may have been signed as the destination, the likeliest first.

        Never nothing: what names no destination could have been signed for any other server, and be repeated here.
        """
        candidates: list[str] = []
        if signature.destination is not None:
            name = _host_of(signature.destination)
            candidates += [signature.destination, str(name), _without_port(name)]
        for ours in self._names:
            candidates += [str(ours), _without_port(ours)]
        return iter(dict.fromkeys(candidates))


def _host_of(destination: str) -> ServerName:
    # Clients may name an identity server with a path, and homeservers sign it as the client wrote it.
    return parse_server_name(destination.partition("/")[0])


def _without_port(name: ServerName) -> str:
    return str(replace(name, port=None))


def _same(left: ServerName, right: ServerName) -> bool:
    return left.host == right.host and (left.port == right.port or None in (left.port, right.port))


def _content(request: SignedRequest) -> bytes:
    try:
        return canonical(request.content)
    except ValueError as error:
        raise ProofRefused(f"The body cannot have been signed: {error}") from None


def _messages(
    request: SignedRequest, content: bytes, origin: str, destinations: Iterator[str]
) -> Iterator[bytes]:
    """What may have been signed (Server-Server API, "Request Authentication"), for each destination."""
    head = {"method": request.method.upper(), "uri": request.target, "origin": origin}
    for destination in destinations:
        for key in _DESTINATION_KEYS:
            # In canonical JSON "content" is the first of these keys; it may be large, and is the same in all.
            yield b'{"content":' + content + b"," + _head({**head, key: destination})[1:]


def _head(head: dict[str, str]) -> bytes:
    try:
        return canonical(head)
    except ValueError:
        raise ProofRefused("The path of the request must be Unicode") from None
