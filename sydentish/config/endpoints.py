"""Value parsers for listeners: the server endpoint strings of Twisted."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from sydentish.config import files

_MAX_PORT = 65535
# What systemd takes as FileDescriptorName, less blanks.
_SOCKET_NAME = re.compile(r"[!-9;-~]{1,255}")
# For the owner and the group; Twisted's own would be for everybody.
_SOCKET_MODE = "660"

_INET = ("port", "interface", "backlog")
# The kinds of server endpoint strings, with the names of their arguments in the order of Twisted.
_ENDPOINTS = {
    "tcp": _INET,
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (*_INET, "privateKey", "certKey", "sslmethod", "extraCertChain", "dhParameters"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    # Not Twisted's, but a socket that the service manager has made, see `inherited`.
    "systemd": ("name", "index"),
}


def listener(value: str) -> str:
    r"""A server endpoint string of Twisted; only what is always right is checked here.

    It is returned as it is written, and a unix socket that has no mode gets mode 660.

    Whether the address can be listened on is found out at the start. Colons in an argument are escaped:
    `tcp6:8090:interface=\:\:1`.
    """
    kind, *arguments = _split(value)
    if kind not in _ENDPOINTS or ":".join([kind, *arguments]) != value or not value.isprintable():
        raise ValueError(f"must begin with one of {', '.join(_ENDPOINTS)} and a colon")
    names = _ENDPOINTS[kind]
    given = _given(arguments, names)
    if given is None:
        raise ValueError(
            f"must have arguments out of {', '.join(names)} behind {kind}, colons in them written \\:"
        )
    if kind == "systemd":
        return _systemd_listener(value, given)
    if kind != "unix" and not _is_port(given.get("port", "")):
        raise ValueError(f"must have a port from 0 to {_MAX_PORT} behind {kind}")
    if not re.fullmatch(r"[0-9]{1,9}", given.get("backlog", "50")):
        raise ValueError("must have a whole number as its backlog")
    if kind == "unix":
        return _unix_listener(value, given)
    if kind == "ssl":
        private_key = given.get("privateKey", "")
        files.tls_key_pair(private_key, given.get("certKey", private_key))
    return value


def is_local_and_plain(listener: str) -> bool:
    """Whether only this machine reaches a listener, without TLS: then what comes from elsewhere comes by a proxy."""
    kind = _split(listener)[0]
    # Where a socket of systemd's is, nobody knows here: usually behind a proxy, and always without TLS.
    return kind in ("unix", "systemd") or (kind != "ssl" and _is_loopback(_argument(listener, "interface")))


def internal_listener(value: str) -> str:
    r"""A listener that only this machine can reach: as `listener`, on a loopback address or a unix socket.

    The address stands there as such (`127.0.0.1`, `\:\:1`), so that nothing that resolves names can change it. Of
    a socket of systemd's it is looked at when the server starts.
    """
    checked = listener(value)
    if (
        not is_unix(checked)
        and inherited(checked) is None
        and not _is_loopback(_argument(checked, "interface"))
    ):
        raise ValueError(
            "must be a unix socket or have a loopback interface as an address, 127.0.0.1 or ::1, such as "
            "tcp:8091:interface=127.0.0.1 or unix:/run/sydentish/internal.sock: what is served there needs no "
            "proof of anything"
        )
    return checked


def plain_listener(value: str) -> str:
    """A listener to which TLS is added by whoever listens there: as `listener`, but of no kind that has it."""
    if _split(value)[0] == "ssl":
        kinds = ", ".join(kind for kind in _ENDPOINTS if kind != "ssl")
        raise ValueError(
            f"must begin with one of {kinds} and a colon: TLS is always added, with certificate_file"
        )
    return listener(value)


def is_unix(endpoint: str) -> bool:
    """Whether a listener is a unix socket."""
    return endpoint.startswith("unix:")


def inherited(endpoint: str) -> tuple[str | None, int | None] | None:
    """The name, or the index, of the socket that systemd hands over for a listener; None for other listeners."""
    if not endpoint.startswith("systemd:"):
        return None
    name, index = _argument(endpoint, "name"), _argument(endpoint, "index")
    return (name, None) if name else (None, int(index))


def socket_mode(endpoint: str) -> int:
    """The permissions of a unix socket, as `listener` returns it."""
    return int(_argument(endpoint, "mode"), 8)


def socket_path(endpoint: str) -> Path:
    """Where a unix socket is made."""
    return Path(_argument(endpoint, "address"))


def has_tls(endpoint: str) -> bool:
    """Whether a listener speaks TLS by itself."""
    return _split(endpoint)[0] == "ssl"


def address(endpoint: str) -> tuple[str, int]:
    """Where on this machine a listener with a port can be connected to: an IP address or a name, and the port."""
    found = _interface(endpoint)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens there
    return loopback.get(found, found), int(_argument(endpoint, "port"))


def collide(one: str, other: str) -> bool:
    """Whether of two listeners only one can listen, since the other is on the same socket or port.

    Port 0 is another one each time.
    """
    if None not in (inherited(one), inherited(other)):
        return inherited(one) == inherited(other)
    if inherited(one) or inherited(other):
        return False
    if is_unix(one) or is_unix(other):
        return (
            is_unix(one) and is_unix(other) and socket_path(one).absolute() == socket_path(other).absolute()
        )
    ports = {int(_argument(endpoint, "port")) for endpoint in (one, other)}
    return len(ports) == 1 and ports != {0} and _overlap(_interface(one), _interface(other))


def _overlap(one: str, other: str) -> bool:
    everywhere = "::" if ":" in one else "0.0.0.0"  # noqa: S104 - it is compared, and nothing listens there
    return one == other or ((":" in one) == (":" in other) and everywhere in (one, other))


def _interface(endpoint: str) -> str:
    named = _argument(endpoint, "interface")
    try:
        return str(ipaddress.ip_address(named))
    except ValueError:
        # Without one it is all of them, and localhost is the name that has an address without being asked for it.
        named = {"localhost": "127.0.0.1"}.get(named, named)
        return named or ("::" if endpoint.startswith("tcp6:") else "0.0.0.0")  # noqa: S104 - as above


def _argument(endpoint: str, name: str) -> str:
    kind, *arguments = _split(endpoint)
    given = _given(arguments, _ENDPOINTS[kind]) or {}
    return re.sub(r"\\(.)", r"\1", given.get(name, ""))


def _is_loopback(interface: str) -> bool:
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False


def _split(value: str) -> list[str]:
    """The kind and its arguments; a colon behind a backslash belongs to the argument."""
    return re.findall(r"(?:^|:)((?:\\.|[^:\\])*)", value, flags=re.DOTALL)


def _unix_listener(value: str, given: Mapping[str, str]) -> str:
    if not given.get("address"):
        raise ValueError("must have the path of a socket behind unix")
    if not re.fullmatch(r"[0-7]{3,4}", given.get("mode", _SOCKET_MODE)):
        raise ValueError("must have an octal mode such as 660")
    if given.get("lockfile", "1") not in ("0", "1"):
        raise ValueError("must have 0 or 1 as its lockfile")
    return value if "mode" in given else f"{value}:mode={_SOCKET_MODE}"


def _systemd_listener(value: str, given: Mapping[str, str]) -> str:
    name, index = given.get("name"), given.get("index")
    if (name is None) == (index is None) or not _SOCKET_NAME.fullmatch("unnamed" if name is None else name):
        raise ValueError(
            "must have the name of a socket behind systemd, such as systemd:name=public, or index=0"
        )
    if not re.fullmatch(r"[0-9]{1,3}", index or "0"):
        raise ValueError("must have a whole number as its index")
    return value


def _given(arguments: list[str], names: tuple[str, ...]) -> dict[str, str] | None:
    """The arguments by name; None when one is empty, unknown, given twice or too many, or there is none."""
    positional = [part for part in arguments if "=" not in part]
    named = [part.split("=", 1) for part in arguments if "=" in part]
    used = [*names[: len(positional)], *(name for name, _ in named)]
    if not arguments or not all(positional) or len(positional) > len(names):
        return None
    if len(set(used)) < len(used) or not set(used) <= set(names):
        return None
    return dict(zip(names, positional, strict=False)) | dict(named)


def _is_port(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", value)) and int(value) <= _MAX_PORT
