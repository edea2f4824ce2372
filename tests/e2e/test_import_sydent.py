"""Moving over from a real Sydent, whose database was made over its API: everything goes on under the same name."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from daemons import SECONDS, Daemon, Process, free_port
from e2e.sydent import Peer, Sydent
from e2e.towns import Town
from signedjson.key import get_verify_key
from signedjson.sign import verify_signed_json
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from sydent_files import lookup_hash
from twisted.internet import reactor

pytestmark = pytest.mark.sydent

US, PARTNER = "id.example.org", "partner.example.org"
VERIFICATION = "To: %(to)s\nFrom: %(from)s\nSubject: Hello\n\n%(link)s\n"
INVITATION = "To: %(to)s\nFrom: %(from)s\nSubject: Hello\n\n%(token)s %(ephemeral_private_key)s\n"


@dataclass
class Moved(Town):
    """Our server, which goes on as the Sydent that was; what the Sydent has said; and its peer, another Sydent.

    Attributes:
        old: the Sydent that was.
        partner: its peer, and ours.
        report: what the command has told.
        said: what the Sydent had answered.
    """

    old: Sydent
    partner: Sydent
    report: dict[str, Any]
    said: dict[str, Any]

    def user(self, localpart: str) -> str:
        """A user of the homeserver."""
        return f"@{localpart}:{self.homeserver.server_name}"

    async def looked_up(self, *addresses: str) -> dict[str, str]:
        """Users by address, by hashes with the pepper that the Sydent had."""
        return await look_up(self.daemon, self.said["pepper"], *addresses)


async def look_up(daemon: Daemon, pepper: str, *addresses: str) -> dict[str, str]:
    """Users by address, by hashes."""
    hashes = {lookup_hash(address, pepper): address for address in addresses}
    body = {"algorithm": "sha256", "pepper": pepper, "addresses": list(hashes)}
    status, answer = await daemon.ask("POST", "/v2/lookup", body)
    assert status == 200, answer
    return {hashes[found]: mxid for found, mxid in answer["mappings"].items()}


def options(folder: Path, mailbox: Mailbox, port: int) -> dict[str, dict[str, str]]:
    """What the Sydent needs beside its listeners."""
    brand = folder / "templates" / "matrix-org"
    brand.mkdir(parents=True)
    (brand / "verification_template.eml").write_text(VERIFICATION)
    (brand / "invite_template.eml").write_text(INVITATION)
    (brand / "verify_response_template.html").write_text("%(message)s")
    return {
        "general": {
            "templates.path": str(folder / "templates"),
            "ip.whitelist": "127.0.0.1",
            "prometheus_port": str(port),
            "prometheus_addr": "127.0.0.1",
        },
        "http": {"federation.verifycerts": "False"},
        "email": {
            "email.from": "Sydent <noreply@example.org>",
            "email.smtphost": "127.0.0.1",
            "email.smtpport": str(mailbox.port),
        },
    }


class People:
    """What people do at a server, whichever of the two it is."""

    def __init__(self, town: Town) -> None:
        self.town = town

    async def live(self) -> dict[str, Any]:
        """They log in, prove addresses, bind and unbind some, and invite somebody."""
        daemon, said = self.town.daemon, {}
        said["mxid"] = await self.town.register("alice")
        _, details = await daemon.ask("GET", "/v2/hash_details")
        said["pepper"] = details["lookup_pepper"]
        said["proved"] = await self.prove("alice@example.org")
        body = {**said["proved"], "mxid": said["mxid"]}
        said["association"] = (await daemon.ask("POST", "/v2/3pid/bind", body))[1]
        said["open_link"] = await self.ask_for_link("open@example.org", "open-secret")
        invited = {"medium": "email", "address": "New@example.org", "room_id": "!tea:example.org"}
        status, said["invitation"] = await daemon.ask(
            "POST", "/v2/store-invite", {**invited, "sender": said["mxid"]}
        )
        assert status == 200, said["invitation"]
        mail = await self.town.mail_to("new@example.org")
        said["private_key"] = mail.message.get_payload().split()[-1]
        return said

    async def prove(self, address: str) -> dict[str, str]:
        """A session that has proved an address, by the link in a mail."""
        link = await self.ask_for_link(address, "s3cret")
        await follow(link)
        return {"sid": re.search(r"sid=(\d+)", link)[1], "client_secret": "s3cret"}

    async def ask_for_link(self, address: str, client_secret: str) -> str:
        """The link in the mail of a new session."""
        body = {"client_secret": client_secret, "email": address, "send_attempt": 1}
        status, answer = await self.town.daemon.ask("POST", "/v2/validate/email/requestToken", body)
        assert status == 200, answer
        return (await self.town.mail_to(address)).message.get_payload().split()[0]


async def follow(link: str) -> str:
    """Opens the link of a mail."""
    response = await treq.get(link, timeout=SECONDS, persistent=False)
    text = await response.text()
    assert response.code == 200, text
    return text


async def move(folder: Path, old: Sydent) -> dict[str, Any]:
    """Takes everything over from a Sydent that has ended, and returns what the command tells."""
    arguments = ["--config", old.config, "--out", folder / "sydentish.conf", "--data-dir", folder / "data"]
    process = Process("import-sydent", *map(str, arguments), "--json")
    status = await process.ended.addTimeout(SECONDS, reactor)
    assert status == 0, process.output
    # Warnings stand behind it.
    return json.JSONDecoder().raw_decode(process.output)[0]


@pytest_twisted.async_yield_fixture(scope="module")
async def moved(sydent_is_there: None, tmp_path_factory: pytest.TempPathFactory):
    authority = Authority()
    mailbox, certificate = Mailbox(reactor=reactor), authority.issue("localhost")
    mailbox.start()
    homeserver = Homeserver(certificate)
    homeserver.start(reactor)
    folder = tmp_path_factory.mktemp("old")
    metrics_port = free_port()
    further = options(tmp_path_factory.mktemp("further"), mailbox, metrics_port)
    old = Sydent(folder, authority, US, further)
    further["http"]["client_http_base"] = old.client_url
    partner = Sydent(tmp_path_factory.mktemp("partner"), authority, PARTNER)
    partner.knows(Peer(US, old.replication_url, old.public_key))
    old.knows(Peer(PARTNER, partner.replication_url, partner.public_key))
    daemon = Daemon(tmp_path_factory.mktemp("new"), server_name=US)
    # At first the Sydent answers there, later our server.
    daemon.base_url, daemon.metrics_port = old.client_url, metrics_port
    town = Moved(daemon, mailbox, homeserver, certificate, old, partner, {}, {})
    try:
        await partner.start()
        await old.start()
        town.said = await live(town)
        await old.kill()
        daemon.config.unlink()
        town.report = await move(daemon.folder, old)
        await daemon.start()
        yield town
    finally:
        await old.kill()
        await partner.kill()
        mailbox.stop()
        await homeserver.stop()
        await daemon.clean_up()


async def live(town: Moved) -> dict[str, Any]:
    """What happens while the Sydent is there; returns what it has answered."""
    said = await People(town).live()
    for name in ("one", "two", "gone"):
        await town.old.bind("email", f"{name}@example.org", f"@{name}:127.0.0.1:1")
    await town.old.unbind("email", "gone@example.org", "@gone:127.0.0.1:1")
    await town.old.has_pushed(Peer(PARTNER, town.partner.replication_url, ""))
    await town.partner.bind("email", "theirs@example.org", "@theirs:127.0.0.1:1")
    await town.partner.kill()
    await town.partner.start()
    await town.partner.has_pushed(Peer(US, town.old.replication_url, ""))
    said["known"] = await look_up(town.daemon, said["pepper"], *ADDRESSES)
    said["account"] = (await town.daemon.ask("GET", "/v2/account"))[1]
    # What happens last is not pushed any more by the one who has stated it.
    await town.partner.kill()
    await town.old.bind("email", "late@example.org", "@late:127.0.0.1:1")
    await town.partner.start()
    return said


ADDRESSES = [f"{name}@example.org" for name in ("alice", "one", "two", "gone", "theirs", "open", "new")]


async def until(ask: Callable[[], Any], wanted: object) -> None:
    """Asks until the answer is as it should be."""
    deadline = reactor.seconds() + SECONDS
    while (answer := await ask()) != wanted:
        assert reactor.seconds() < deadline, answer


def outcomes(moved: Moved, kind: str) -> dict[str, int]:
    return moved.report["database"][kind]["outcomes"]


@pytest_twisted.ensureDeferred
async def test_everything_is_taken_over(moved):
    assert moved.report["schema"] == 5
    assert outcomes(moved, "associations of this server") == {"taken over": 4}
    assert outcomes(moved, "associations of peers") == {"taken over": 1}
    for kind in (
        "unbinds",
        "peers",
        "accounts",
        "access tokens",
        "invitations",
        "keys of invitations",
        "look-up pepper",
    ):
        assert outcomes(moved, kind) == {"taken over": 1}, kind
    assert outcomes(moved, "validation sessions") == {"taken over": 2}
    assert {each["new"].split(",")[0] for each in moved.report["templates"]} == {
        *("verification.eml.txt", "invite.eml.txt", "verify_response.html")
    }


@pytest_twisted.ensureDeferred
async def test_the_written_configuration_passes_the_check(moved):
    process = Process("check-config", "-c", str(moved.daemon.config))
    status = await process.ended.addTimeout(SECONDS, reactor)

    assert (status, "ok" in process.output) == (0, True), process.output


@pytest_twisted.ensureDeferred
async def test_who_was_logged_in_is_logged_in_and_finds_the_same_with_the_same_hashes(moved):
    status, account = await moved.daemon.ask("GET", "/v2/account")
    _, details = await moved.daemon.ask("GET", "/v2/hash_details")

    assert (status, account) == (200, moved.said["account"])
    assert details["lookup_pepper"] == moved.said["pepper"]
    assert await moved.looked_up(*ADDRESSES) == moved.said["known"]
    assert set(moved.said["known"]) == {f"{name}@example.org" for name in ("alice", "one", "two", "theirs")}


@pytest_twisted.ensureDeferred
async def test_what_was_signed_can_still_be_checked_with_the_key_that_is_published(moved):
    status, answer = await moved.daemon.ask("GET", "/v2/pubkey/ed25519:0")
    valid = await moved.daemon.ask("GET", "/v2/pubkey/isvalid", params={"public_key": moved.old.public_key})
    verify_signed_json(moved.said["association"], US, get_verify_key(moved.old.signing_key))

    assert (status, answer) == (200, {"public_key": moved.old.public_key})
    assert valid == (200, {"valid": True})


@pytest_twisted.ensureDeferred
async def test_a_proved_address_stays_proved(moved):
    proved = moved.said["proved"]
    status, answer = await moved.daemon.ask("GET", "/v2/3pid/getValidated3pid", params=proved)

    assert status == 200, answer
    assert (answer["medium"], answer["address"]) == ("email", "alice@example.org")


@pytest_twisted.ensureDeferred
async def test_the_link_of_a_mail_that_was_sent_before_still_proves_the_address(moved):
    link = moved.said["open_link"]
    session = {"sid": re.search(r"sid=(\d+)", link)[1], "client_secret": "open-secret"}
    before, _ = await moved.daemon.ask("GET", "/v2/3pid/getValidated3pid", params=session)
    await follow(link)
    after, answer = await moved.daemon.ask("GET", "/v2/3pid/getValidated3pid", params=session)

    assert link.startswith(moved.daemon.base_url)
    assert (before, after) == (400, 200), answer


@pytest_twisted.ensureDeferred
async def test_an_invitation_still_waits_and_its_link_works(moved):
    token, mxid = moved.said["invitation"]["token"], moved.user("bob")
    ephemeral = moved.said["invitation"]["public_keys"][1]["public_key"]
    valid = await moved.daemon.ask("GET", "/v2/pubkey/ephemeral/isvalid", params={"public_key": ephemeral})
    body = {"mxid": mxid, "token": token, "private_key": moved.said["private_key"]}
    status, signed = await moved.daemon.ask("POST", "/v2/sign-ed25519", body)

    assert valid == (200, {"valid": True})
    assert (status, signed["sender"], signed["token"]) == (200, moved.said["mxid"], token)


@pytest_twisted.ensureDeferred
async def test_what_the_peer_had_not_acknowledged_is_sent_to_it_and_what_it_states_is_taken(moved):
    await until(lambda: moved.partner.mxid("email", "late@example.org"), "@late:127.0.0.1:1")
    await moved.partner.bind("email", "fresh@example.org", "@fresh:127.0.0.1:1")
    await moved.partner.kill()
    await moved.partner.start()
    await moved.partner.has_pushed(Peer(US, moved.old.replication_url, ""))

    assert await moved.looked_up("fresh@example.org") == {"fresh@example.org": "@fresh:127.0.0.1:1"}
    assert await moved.partner.mxid("email", "gone@example.org") is None


@pytest_twisted.ensureDeferred
async def test_what_is_bound_now_reaches_the_peer_and_whoever_was_invited(moved):
    session = await moved.prove("new@example.org")
    bob = await moved.register("bob")
    status, answer = await moved.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": bob})
    assert status == 200, answer
    while not (invites := json.loads((await moved.homeserver.next_onbind()).body).get("invites")):
        pass
    await until(lambda: moved.partner.mxid("email", "new@example.org"), bob)

    assert invites[0]["signed"]["token"] == moved.said["invitation"]["token"]


@pytest_twisted.ensureDeferred
async def test_repeated_beside_the_running_server_it_changes_nothing(moved):
    before = await moved.looked_up(*ADDRESSES)
    report = await move(moved.daemon.folder, moved.old)
    status, _ = await moved.daemon.ask("GET", "/v2/account")

    assert all("taken over" not in kind["outcomes"] for kind in report["database"].values())
    assert status == 200
    assert await moved.looked_up(*ADDRESSES) == before
