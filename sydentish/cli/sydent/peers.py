"""What of a Sydent's configuration and database is about its peers."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from unpaddedbase64 import encode_base64

from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig
from sydentish.cli.sydent.serving import endpoint
from sydentish.config import network
from sydentish.config.replication import names_of
from sydentish.domain.keys import decode_base64
from sydentish.domain.peers import Peer
from sydentish.domain.signatures import PUBLIC_KEY_BYTES
from sydentish.domain.takeover import OldPeer

_DEFAULT_PORT = 1001
_HEX_DIGITS = 2 * PUBLIC_KEY_BYTES
# A Sydent knows one key of each peer.
_KEY_ID = "ed25519:0"
_SYSTEM = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))


def translate(draft: Draft, old: OldConfig, peers: Iterable[OldPeer]) -> tuple[tuple[Peer, int], ...]:
    """Adds what replication becomes; gives the peers that can be used, and what each has acknowledged."""
    usable = []
    for peer in peers:
        try:
            found = _peer(old, peer), _acknowledged(peer)
        except ValueError as error:
            draft.remark(f"peer {peer.name} in the database", f"is left out: {error}")
        else:
            usable.append(found)
    if not old.get("http", "replication.https.certfile"):
        if usable:
            draft.drop(
                "[http] replication.https.certfile",
                "is not set, so nothing was ever exchanged with the peers",
            )
        return ()
    has_files = _certificates(draft, old)
    for each, _ in usable:
        _section(draft, each, is_set=has_files)
    return tuple(usable)


def _peer(old: OldConfig, peer: OldPeer) -> Peer:
    if not peer.is_active:
        raise ValueError("it was not in use")
    if peer.key is None:
        raise ValueError("no key of it was known, so it was not in use")
    name = network.server_name(peer.name)
    url = old.peer_urls().get(peer.name) or f"https://{peer.name}:{peer.port or _DEFAULT_PORT}"
    if urlsplit(url).path not in ("", "/"):
        raise ValueError("its base_replication_url has a path, and a url here has none: add it by hand")
    return Peer(name, network.peer_url(url), {_KEY_ID: _key(peer.key)}, names_of(name, ()))


def _acknowledged(peer: OldPeer) -> int:
    if peer.acknowledged_id is None:
        raise ValueError("what it has acknowledged (lastSentVersion) is no number of a statement")
    return peer.acknowledged_id


def _key(text: str) -> str:
    key = decode_base64(text)
    if len(text) == _HEX_DIGITS:
        with suppress(ValueError):
            key = bytes.fromhex(text)
    if key is None or len(key) != PUBLIC_KEY_BYTES:
        raise ValueError("its key is none")
    return str(encode_base64(key))


def _certificates(draft: Draft, old: OldConfig) -> bool:
    """Whether there are all the files that peers need; adds them."""
    certificate, authority = (old.get("http", f"replication.https.{what}") for what in ("certfile", "cacert"))
    ca_file = old.path_of(authority) if authority else next((each for each in _SYSTEM if each.exists()), None)
    if ca_file is None:
        draft.remark(
            "[http] replication.https.cacert",
            "is not set; set [replication] ca_file to what vouches for peers",
        )
        return False
    draft.translate(
        "replication",
        "listeners",
        endpoint(
            old.get("http", "replication.https.bind_address"), old.get("http", "replication.https.port")
        ),
        "[http] replication.https.bind_address, replication.https.port",
    )
    draft.translate(
        "replication",
        "certificate_file",
        str(old.path_of(certificate)),
        "[http] replication.https.certfile",
        "the server's user must be able to read it",
    )
    if authority:
        draft.translate("replication", "ca_file", str(ca_file), "[http] replication.https.cacert")
    else:
        draft.decide(
            "replication",
            "ca_file",
            str(ca_file),
            "[http] replication.https.cacert",
            "is not set there, so all authorities of the system are believed; better name those of the peers",
        )
    return True


def _section(draft: Draft, peer: Peer, *, is_set: bool) -> None:
    section, source = f"peer {peer.name}", f"[peer.{peer.name}]"
    keys = "\n".join(f"{key_id} {key}" for key_id, key in peer.keys.items())
    for key, value, where in (
        ("url", peer.url, f"{source} base_replication_url"),
        ("keys", keys, "table peer_pubkeys"),
    ):
        if is_set:
            draft.translate(section, key, value, where)
        else:
            draft.decide(
                section,
                key,
                value,
                where,
                "[replication] must have a certificate and authorities first",
                is_set=False,
            )
