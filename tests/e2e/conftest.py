"""A server process, a homeserver and a mail relay, each on real sockets."""

import os
from pathlib import Path

import pytest
import pytest_twisted
from daemons import Daemon
from e2e import sydent, synapse
from e2e.real_town import RealTown
from e2e.towns import Town
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor

SURROUNDINGS = """
[email]
smtp_host = 127.0.0.1
smtp_port = {smtp_port}
smtp_security = plain
[homeservers]
ca_file = {ca_file}
allowed_addresses = 127.0.0.0/8
"""


def pytest_configure(config: pytest.Config) -> None:
    for marker, what in (("synapse", "a real homeserver"), ("sydent", "an identity server of another kind")):
        config.addinivalue_line(
            "markers", f"{marker}: needs {what}, which scripts/test installs where it can"
        )
    config.addinivalue_line("markers", "packages: builds what is handed out, if SYDENTISH_REQUIRE_PACKAGES=1")


@pytest_twisted.async_yield_fixture
async def town(tmp_path: Path):
    authority = Authority()
    certificate = authority.issue("localhost")
    homeserver = Homeserver(certificate)
    homeserver.start(reactor)
    mailbox = Mailbox(reactor=reactor)
    mailbox.start()
    ca_file = authority.write_ca(tmp_path / "ca.pem")
    daemon = Daemon(tmp_path, SURROUNDINGS.format(smtp_port=mailbox.port, ca_file=ca_file))
    await daemon.start()
    town = Town(daemon, mailbox, homeserver, certificate)
    yield town
    await daemon.clean_up()
    town.mailbox.stop()
    # A test may have put another one in its place.
    await town.homeserver.stop()


def _must_be_there(program: str, installed: Path) -> None:
    if not installed.exists():
        reason = f"{installed} is not there: scripts/test installs {program.title()}, where it can"
        if os.environ.get(f"SYDENTISH_REQUIRE_{program.upper()}") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def synapse_is_there() -> None:
    _must_be_there("synapse", synapse.INSTALLED)


@pytest.fixture(scope="module")
def sydent_is_there() -> None:
    _must_be_there("sydent", sydent.INSTALLED)


@pytest_twisted.async_yield_fixture(scope="module")
async def real_town(synapse_is_there: None, tmp_path_factory: pytest.TempPathFactory):
    town = RealTown.found(tmp_path_factory.mktemp("town"))
    try:
        await town.start()
        yield town
    finally:
        await town.stop()
