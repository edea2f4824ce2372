"""What a server has around it: here, stand-ins in this process, on sockets of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from standins.certificates import Authority
from standins.gateway import Gateway
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as NotInTime

from demonstration.showing import Failed

SECONDS = 20
"""How long anything may take."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Whom the daemon talks to.

    Attributes:
        homeserver: over HTTPS.
        mailbox: the mail relay.
        gateway: takes SMS, over HTTPS.
        ca_file: the authority that vouches for their certificates.
    """

    homeserver: Homeserver
    mailbox: Mailbox
    gateway: Gateway
    ca_file: Path


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[Surroundings]:
    """All of it, as long as the context lasts; `folder` is for the certificate of the authority."""
    authority = Authority()
    all_of_it = Surroundings(
        Homeserver(authority.issue("localhost")),
        Mailbox(reactor=reactor),
        Gateway("http", authority.issue("127.0.0.1")),
        authority.write_ca(folder / "ca.pem"),
    )
    all_of_it.homeserver.start(reactor)
    all_of_it.gateway.start(reactor)
    all_of_it.mailbox.start()
    try:
        yield all_of_it
    finally:
        all_of_it.mailbox.stop()
        await all_of_it.gateway.stop()
        await all_of_it.homeserver.stop()


async def arrival(what: str, coming: "Deferred[T]") -> Any:  # noqa: ANN401 - what comes
    """What comes, once it is there.

    Args:
        what: what to call it.
        coming: fires when it has come.

    Raises:
        Failed: it does not come.
    """
    try:
        return await coming.addTimeout(SECONDS, reactor)
    except NotInTime:
        raise Failed(f"{what} did not come within {SECONDS} s") from None
