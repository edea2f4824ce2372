"""A town whose homeserver is a real one: Synapse and Sydentish over TLS, each verifying the other."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from daemons import SECONDS, Daemon, free_port
from e2e.synapse import WEB_CLIENT, Synapse, User
from e2e.towns import Place, text_of
from standins.certificates import Authority
from standins.gateway import Gateway
from standins.mailbox import Mailbox
from twisted.internet import reactor

ONBIND = "/_matrix/federation/v1/3pid/onbind"

CONFIG = """\
[general]
server_name = {name}
server_name_aliases = 127.0.0.1:{tls_port}
public_base_url = https://{name}
data_dir = {folder}/data
[http]
# Homeservers and clients come by TLS; the tests themselves, and the homeserver as a delegate, on loopback.
listeners =
    ssl:{tls_port}:privateKey={certificate}:certKey={certificate}:interface=127.0.0.1
    tcp:{port}:interface=127.0.0.1
[email]
smtp_host = 127.0.0.1
smtp_port = {smtp_port}
smtp_security = plain
[homeservers]
ca_file = {ca_file}
allowed_addresses = 127.0.0.0/8, ::1/128
[invites]
web_clients_allowed = {web_client}
[sms]
gateways = town
rejected_countries = FR
[sms town]
kind = http
url = http://127.0.0.1:{sms_port}/send
body = {{"from": "{{originator}}", "to": "{{destination}}", "text": "{{text}}"}}
originator = Sydentish
username = standin
password = open sesame
[log]
level = debug
"""


def identity_server(
    folder: Path, authority: Authority, *, smtp_port: int, sms_port: int
) -> tuple[Daemon, int]:
    """A server that listens with TLS, too, and the port where it does; it trusts `authority` and nobody else."""
    daemon = Daemon(folder)
    tls_port = free_port()
    certificate = folder / "tls.pem"
    authority.issue("localhost", "127.0.0.1").write(certificate)
    daemon.config.write_text(
        CONFIG.format(
            name=f"localhost:{tls_port}",
            folder=folder,
            tls_port=tls_port,
            port=daemon.port,
            certificate=certificate,
            ca_file=authority.write_ca(folder / "ca.pem"),
            smtp_port=smtp_port,
            sms_port=sms_port,
            web_client=WEB_CLIENT,
        )
    )
    return daemon, tls_port


@dataclass
class Person:
    """A user of the homeserver who also has an account here.

    Attributes:
        user: the account on the homeserver.
        identity: what the homeserver needs to ask the identity server in the user's name.
    """

    user: User
    identity: dict[str, str]

    @property
    def mxid(self) -> str:
        """The user ID."""
        return self.user.mxid


@dataclass
class RealTown(Place):
    """A real homeserver, and this server as its identity server.

    Attributes:
        synapse: the homeserver.
        gateway: takes the text messages for everybody.
        id_server: the name by which the homeserver finds this server.
        alias: another name of this server.
    """

    synapse: Synapse
    gateway: Gateway
    id_server: str
    alias: str

    @classmethod
    def found(cls, folder: Path) -> "RealTown":
        """All that is needed, configured, in a folder that is there and empty; nothing runs yet."""
        authority = Authority()
        mailbox = Mailbox(reactor=reactor)
        mailbox.start()
        gateway = Gateway("http")
        gateway.start(reactor)
        daemon, tls_port = identity_server(folder, authority, smtp_port=mailbox.port, sms_port=gateway.port)
        home = folder / "synapse"
        home.mkdir()
        synapse = Synapse(
            home, authority.issue("localhost"), authority.write_ca(home / "ca.pem"), daemon.base_url
        )
        return cls(daemon, mailbox, synapse, gateway, f"localhost:{tls_port}", f"127.0.0.1:{tls_port}")

    async def start(self) -> None:
        """Returns when both servers listen."""
        await self.daemon.start()
        await self.synapse.start()

    async def stop(self) -> None:
        """Returns when nothing is left of it but files."""
        await self.daemon.clean_up()
        await self.synapse.stop()
        self.mailbox.stop()
        await self.gateway.stop()

    async def settle(self, localpart: str) -> Person:
        """A new user of the homeserver, who registers here with a token that it vouches for."""
        user = await self.synapse.sign_up(localpart)
        token = await self.register_with(await user.openid_token())
        return Person(user, {"id_server": self.id_server, "id_access_token": token})

    async def prove_as(self, person: Person, address: str) -> dict[str, str]:
        """A session of a person that has proved an address, by mail."""
        self.daemon.token = person.identity["id_access_token"]
        return await self.prove(address)

    async def bind(self, person: Person, address: str) -> None:
        """Proves an address and binds it through the homeserver, and waits until that was told of it."""
        session = await self.prove_as(person, address)
        onbind = self.synapse.next_answer("POST", ONBIND)
        await person.user.does("POST", "/account/3pid/bind", {**session, **person.identity})
        assert await onbind == 200

    async def found_by(self, person: Person, address: str, medium: str = "email") -> str | None:
        """The user ID that a look-up finds for an address."""
        self.daemon.token = person.identity["id_access_token"]
        _, details = await self.daemon.ask("GET", "/v2/hash_details")
        asked = f"{address} {medium}"
        body = {"algorithm": "none", "pepper": details["lookup_pepper"], "addresses": [asked]}
        status, answer = await self.daemon.ask("POST", "/v2/lookup", body)
        assert status == 200, answer
        return answer["mappings"].get(asked)

    async def invite(self, person: Person, room_id: str, address: str) -> None:
        """Invites an address to a room, through the homeserver."""
        body = {"medium": "email", "address": address, **person.identity}
        await person.user.does("POST", f"/rooms/{room_id}/invite", body)

    async def invitation_to(self, address: str) -> "Invitation":
        """What the next mail to an address invites to."""
        text = text_of(await self.mail_to(address))
        link = re.search(r"(https?://\S+)/#/room/(\S+)\?(\S+)", text)
        assert link is not None, text
        web_client, room_id, query = link.groups()
        return Invitation(
            web_client, unquote(room_id), {key: values[0] for key, values in parse_qs(query).items()}, text
        )

    async def sign(self, signurl: str, mxid: str) -> Any:
        """What a client gets for a `signurl`: asked with an empty body, and everything in the query."""
        response = await self.synapse.client.post(signurl, params={"mxid": mxid}, timeout=SECONDS)
        answer = await response.json()
        assert response.code == 200, answer
        return answer


@dataclass
class Invitation:
    """What the link of an invitation mail says.

    Attributes:
        web_client: where it leads.
        room_id: the room's ID.
        query: what stands behind the `?`.
        text: the plain text of the mail.
    """

    web_client: str
    room_id: str
    query: dict[str, str]
    text: str
