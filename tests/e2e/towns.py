"""What surrounds a server in these tests, and what people do there."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from daemons import SECONDS, Daemon
from standins.certificates import ServerCertificate
from standins.homeserver import Homeserver
from standins.mailbox import Mail, Mailbox
from twisted.internet import reactor


def text_of(mail: Mail) -> str:
    """The plain text of a mail."""
    return mail.message.get_body(("plain",)).get_content()


@dataclass
class Place:
    """A server and the mailbox of everybody."""

    daemon: Daemon
    mailbox: Mailbox

    async def mail_to(self, address: str) -> Mail:
        """The next mail for an address; those for others are thrown away."""
        while True:
            mail = await self.mailbox.next_mail().addTimeout(SECONDS, reactor)
            if [recipient.lower() for recipient in mail.recipients] == [address.lower()]:
                return mail

    async def prove(self, address: str, client_secret: str = "s3cret") -> dict[str, str]:
        """A session that has proved an address, by mail."""
        body = {"client_secret": client_secret, "email": address, "send_attempt": 1}
        status, answer = await self.daemon.ask("POST", "/v2/validate/email/requestToken", body)
        assert status == 200, answer
        mail = await self.mail_to(address)
        link = next(word for word in text_of(mail).split() if "submitToken?" in word)
        query = parse_qs(urlsplit(link).query)
        response = await self.daemon.raw("GET", "/v2/validate/email/submitToken?" + urlsplit(link).query)
        assert response.code == 200
        await response.content()
        return {"sid": query["sid"][0], "client_secret": query["client_secret"][0]}

    async def register_with(self, openid_token: dict[str, object]) -> str:
        """An account for the owner of an OpenID token; returns its access token."""
        status, answer = await self.daemon.ask("POST", "/v2/account/register", openid_token)
        assert status == 200, answer
        return answer["token"]


@dataclass
class Town(Place):
    """All that it takes for the main job, with a stand-in for the homeserver."""

    homeserver: Homeserver
    certificate: ServerCertificate

    async def register(self, localpart: str = "alice") -> str:
        """An account for a user of the homeserver, whose token the daemon's client uses from now on."""
        mxid = self.homeserver.log_in(f"openid-{localpart}", localpart)
        self.daemon.token = await self.register_with(
            {
                "access_token": f"openid-{localpart}",
                "token_type": "Bearer",
                "matrix_server_name": self.homeserver.server_name,
                "expires_in": 3600,
            }
        )
        return mxid
