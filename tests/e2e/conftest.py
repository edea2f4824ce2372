"""A server process, a homeserver and a mail relay, each on real sockets."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest_twisted
from daemons import SECONDS, Daemon
from standins.certificates import Authority, ServerCertificate
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


@dataclass
class Town:
    """All that it takes for the main job."""

    daemon: Daemon
    homeserver: Homeserver
    mailbox: Mailbox
    certificate: ServerCertificate

    async def register(self, localpart: str = "alice") -> str:
        """An account for a user of the homeserver, whose token the daemon's client uses from now on."""
        mxid = self.homeserver.log_in(f"openid-{localpart}", localpart)
        status, answer = await self.daemon.ask(
            "POST",
            "/v2/account/register",
            {
                "access_token": f"openid-{localpart}",
                "token_type": "Bearer",
                "matrix_server_name": self.homeserver.server_name,
                "expires_in": 3600,
            },
        )
        assert status == 200, answer
        self.daemon.token = answer["token"]
        return mxid

    async def prove(self, address: str, client_secret: str = "s3cret") -> dict[str, str]:
        """A session that has proved an address, by mail."""
        body = {"client_secret": client_secret, "email": address, "send_attempt": 1}
        status, answer = await self.daemon.ask("POST", "/v2/validate/email/requestToken", body)
        assert status == 200, answer
        mail = await self.mailbox.next_mail().addTimeout(SECONDS, reactor)
        text = mail.message.get_body(("plain",)).get_content()
        link = next(word for word in text.split() if "submitToken?" in word)
        query = parse_qs(urlsplit(link).query)
        response = await self.daemon.raw("GET", "/v2/validate/email/submitToken?" + urlsplit(link).query)
        assert response.code == 200
        await response.content()
        return {"sid": query["sid"][0], "client_secret": query["client_secret"][0]}


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
    town = Town(daemon, homeserver, mailbox, certificate)
    yield town
    await daemon.clean_up()
    town.mailbox.stop()
    # A test may have put another one in its place.
    await town.homeserver.stop()
