"""Together with an identity server of another kind: what is bound at one is known at the other."""

import json
import re
import signal
import sqlite3
from ast import literal_eval
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import pytest
import pytest_twisted
import treq
from daemons import BASE, SECONDS, Daemon, Process, free_port
from e2e.mesh import behind, eventually
from e2e.sydent import Peer, Sydent
from e2e.towns import Town
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import SignatureVerifyException, verify_signed_json
from signedjson.types import SigningKey
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from unpaddedbase64 import encode_base64

pytestmark = pytest.mark.sydent

OURS = "id.example.org"
THEIRS = "sydent.example.org"
# A homeserver that refuses connections at once: a Sydent asks for one at each bind.
NOWHERE = "127.0.0.1:1"
SECTIONS = """
[http]
v1_endpoints = all
internal_listeners = tcp:{internal_port}:interface=127.0.0.1
[email]
smtp_host = 127.0.0.1
smtp_port = {smtp_port}
smtp_security = plain
[homeservers]
ca_file = {ca_file}
allowed_addresses = 127.0.0.0/8
[replication]
listeners = tcp:{replication_port}:interface=127.0.0.1
# Who is killed while it pushes holds its peer up for five seconds more than this.
timeout = 2s
certificate_file = {certificate}
ca_file = {ca_file}
[peer sydent.example.org]
url = {url}
keys = ed25519:0 {key}
certificate_names = sydent.example.org
"""


@dataclass
class Pair(Town):
    """Our server and a Sydent, each a peer of the other; users of ours are on a stand-in homeserver.

    Attributes:
        sydent: the other one.
        us: what it knows of our server.
        signing_key: our own.
        internal_url: our internal API.
    """

    sydent: Sydent
    us: Peer
    signing_key: SigningKey
    internal_url: str

    def user(self, localpart: str) -> str:
        """A user whose homeserver our server reaches; the other one need not."""
        return f"@{localpart}:{self.homeserver.server_name}"

    async def bind(self, address: str, mxid: str) -> None:
        """Binds an address on our server."""
        await self._provision("bind", {"medium": "email", "address": address, "mxid": mxid})

    async def unbind(self, address: str, mxid: str) -> None:
        """Unbinds an address on our server."""
        await self._provision("unbind", {"medium": "email", "address": address, "mxid": mxid})

    async def bind_all(self, bound: dict[str, str]) -> None:
        """Binds many addresses on our server."""
        items = ({"medium": "email", "address": address, "mxid": mxid} for address, mxid in bound.items())
        await self._provision("bulk", *items)

    async def _provision(self, verb: str, *items: dict[str, str]) -> None:
        response = await treq.post(
            f"{self.internal_url}/{verb}",
            data="\n".join(map(json.dumps, items)).encode(),
            timeout=SECONDS,
            persistent=False,
        )
        assert (response.code, set((await response.content()).split())) == (200, {b"{}"})

    async def association(self, address: str) -> dict[str, Any] | None:
        """What our server tells of an address, by v1."""
        threepid = {"medium": "email", "address": address}
        status, answer = await self.daemon.ask("GET", "/api/v1/lookup", params=threepid)
        assert status == 200, answer
        return answer or None

    async def mxid(self, address: str) -> str | None:
        """Whom our server tells an address to belong to."""
        found = await self.association(address)
        return found["mxid"] if found else None

    async def looked_up(self, algorithm: str, address: str) -> str | None:
        """Whom our server tells an address to belong to, by v2."""
        _, details = await self.daemon.ask("GET", "/v2/hash_details")
        pepper, asked = details["lookup_pepper"], f"{address} email"
        if algorithm == "sha256":
            digest = sha256(f"{asked} {pepper}".encode()).digest()
            asked = encode_base64(digest, urlsafe=True)
        body = {"algorithm": algorithm, "pepper": pepper, "addresses": [asked]}
        status, answer = await self.daemon.ask("POST", "/v2/lookup", body)
        assert status == 200, answer
        return answer["mappings"].get(asked)

    def lag(self) -> int:
        """How many of our statements the Sydent has not acknowledged."""
        return behind(self.daemon.folder, OURS, THEIRS)

    async def has_told(self) -> bool:
        """Whether it has acknowledged all."""
        return self.lag() == 0

    async def figure(self, name: str, **labels: str) -> float:
        """One metric of our server about its peer; 0 if it is not there."""
        wanted = {"peer": THEIRS, **labels}
        found = re.findall(
            rf"^sydentish_replication_{name}\{{(.*)\}} (.*)$", await self.daemon.metrics(), re.MULTILINE
        )
        values = (
            float(value) for inside, value in found if dict(re.findall(r'(\w+)="(.*?)"', inside)) == wanted
        )
        return next(values, 0.0)

    async def until(self, is_wanted: Callable[[float], bool], name: str, **labels: str) -> None:
        """Asks for a metric until it is as it should be."""
        deadline = reactor.seconds() + SECONDS
        while not is_wanted(figure := await self.figure(name, **labels)):
            assert reactor.seconds() < deadline, f"{name} {labels} is {figure}\n{self.daemon.process.output}"

    def newest(self) -> int:
        """The number of our newest statement."""
        database = self.daemon.folder / "data" / "sydentish.db"
        with closing(sqlite3.connect(database)) as connection:
            ((newest,),) = connection.execute("SELECT value FROM counters WHERE name = 'statement'")
        return newest

    async def ours_arrived(self) -> None:
        """Waits until the Sydent, since its start, has taken the newest statement of ours."""
        await self.sydent.has_taken(OURS, self.newest())

    async def command(self, verb: str) -> tuple[int, str]:
        """What `sydentish peers` says of the Sydent, behind its exit status."""
        process = Process("peers", verb, THEIRS, "-c", str(self.daemon.config))
        return await process.ended.addTimeout(SECONDS, reactor), process.output

    async def theirs_arrived(self) -> None:
        """Waits until our server has acknowledged all that was said at the Sydent."""
        await self.hurry()
        await self.sydent.has_pushed(self.us)

    async def hurry(self) -> None:
        """Has the Sydent push at once, up to a hundred statements, since it does so when it starts."""
        await self.sydent.kill()
        await self.sydent.start()

    async def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends our server, and starts it again."""
        await self.daemon.end(how)
        await self.daemon.start()


def verify(pair: Pair, association: dict[str, Any], name: str) -> None:
    """Raises unless one of the two has signed an association."""
    keys = {OURS: pair.signing_key, THEIRS: pair.sydent.signing_key}
    verify_signed_json(association, name, get_verify_key(keys[name]))


async def together(questions: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Asks side by side, but never so many that one of them waits for long."""
    answers: list[Any] = []
    waiting = iter(questions)
    while some := [Deferred.fromCoroutine(question) for question in islice(waiting, 20)]:
        answers += await gatherResults(some, consumeErrors=True)
    return answers


def few(many: Iterable[str]) -> list[str]:
    """Some of many, the last one included."""
    return list(many)[::-20]


def our_daemon(folder, authority: Authority, sydent: Sydent, key: SigningKey, **ports: int) -> Daemon:
    """Our server, with a signing key and a certificate."""
    keys = folder / "data" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (keys / "ed25519_0.key").write_text(f"ed25519 0 {encode_base64(key.encode())}\n")
    (keys / "ed25519_0.key").chmod(0o600)
    certificate = folder / "tls.pem"
    authority.issue("localhost", common_name=OURS).write(certificate)
    files = {"certificate": certificate, "ca_file": authority.write_ca(folder / "ca.pem")}
    return Daemon(
        folder, SECTIONS.format(url=sydent.replication_url, key=sydent.public_key, **files, **ports)
    )


@pytest_twisted.async_yield_fixture(scope="module")
async def lasting_pair(sydent_is_there: None, tmp_path_factory: pytest.TempPathFactory):
    authority, key = Authority(), generate_signing_key("0")
    sydent = Sydent(tmp_path_factory.mktemp("theirs"), authority)
    mailbox, certificate = Mailbox(reactor=reactor), authority.issue("localhost")
    mailbox.start()
    homeserver = Homeserver(certificate)
    homeserver.start(reactor)
    ports = {"internal_port": free_port(), "replication_port": free_port()}
    daemon = our_daemon(
        tmp_path_factory.mktemp("ours"), authority, sydent, key, smtp_port=mailbox.port, **ports
    )
    public_key = encode_base64(get_verify_key(key).encode())
    us = Peer(OURS, f"https://localhost:{ports['replication_port']}", public_key)
    sydent.knows(us)
    internal_url = f"http://127.0.0.1:{ports['internal_port']}{BASE}/internal"
    pair = Pair(daemon, mailbox, homeserver, certificate, sydent, us, key, internal_url)
    try:
        await sydent.start()
        await daemon.start()
        await pair.register()
        yield pair
    finally:
        await sydent.kill()
        mailbox.stop()
        await homeserver.stop()
        await daemon.clean_up()


@pytest_twisted.async_yield_fixture
async def pair(lasting_pair: Pair):
    yield lasting_pair
    # A test that has failed may have left one of them dead.
    for server in (lasting_pair.sydent, lasting_pair.daemon):
        if server.process is None:
            await server.start()


@pytest_twisted.ensureDeferred
async def test_what_is_bound_here_is_known_there_and_signed_by_us(pair):
    await pair.bind("Here@Example.ORG", pair.user("here"))
    await pair.ours_arrived()
    found = await pair.sydent.association("email", "here@example.org")

    assert found["mxid"] == pair.user("here")
    assert set(found["signatures"]) == {OURS, THEIRS}
    verify(pair, found, OURS)
    verify(pair, found, THEIRS)
    with pytest.raises(SignatureVerifyException):
        verify(pair, {**found, "mxid": "@mallory:example.org"}, OURS)


@pytest_twisted.ensureDeferred
async def test_what_is_unbound_here_is_gone_there_until_it_is_bound_again(pair):
    seen = []
    for act, localpart in ((pair.bind, "one"), (pair.bind, "two"), (pair.unbind, "two"), (pair.bind, "one")):
        await act("re@example.org", pair.user(localpart))
        await pair.ours_arrived()
        seen.append(await pair.sydent.mxid("email", "re@example.org"))

    assert seen == [pair.user("one"), pair.user("two"), None, pair.user("one")]


@pytest_twisted.ensureDeferred
async def test_what_is_bound_there_is_known_here_and_signed_by_both(pair):
    signed = await pair.sydent.bind("email", "There@Example.ORG", f"@there:{NOWHERE}")
    await pair.theirs_arrived()
    found = await pair.association("there@example.org")

    assert {**found, "signatures": None} == {**signed, "signatures": None}
    assert set(found["signatures"]) == {OURS, THEIRS}
    verify(pair, found, OURS)
    verify(pair, found, THEIRS)
    assert await pair.looked_up("none", "there@example.org") == f"@there:{NOWHERE}"
    assert await pair.looked_up("sha256", "there@example.org") == f"@there:{NOWHERE}"


@pytest_twisted.ensureDeferred
async def test_what_is_unbound_there_is_gone_here_until_it_is_bound_again(pair):
    for address, mxid in (("gone@a.org", f"@gone:{NOWHERE}"), ("back@a.org", f"@back:{NOWHERE}")):
        await pair.sydent.bind("email", address, mxid)
    await pair.theirs_arrived()
    before = [await pair.mxid("gone@a.org"), await pair.mxid("back@a.org")]
    await pair.sydent.unbind("email", "gone@a.org", f"@gone:{NOWHERE}")
    await pair.sydent.unbind("email", "back@a.org", f"@back:{NOWHERE}")
    await pair.sydent.bind("email", "back@a.org", f"@other:{NOWHERE}")
    await pair.theirs_arrived()

    assert before == [f"@gone:{NOWHERE}", f"@back:{NOWHERE}"]
    assert await pair.mxid("gone@a.org") is None
    assert await pair.looked_up("sha256", "gone@a.org") is None
    assert await pair.mxid("back@a.org") == f"@other:{NOWHERE}"


@pytest_twisted.ensureDeferred
async def test_the_newest_word_about_an_address_counts_at_both_whoever_has_said_it(pair):
    moved, dropped = addresses = "moved@a.org", "dropped@a.org"
    for address in addresses:
        await pair.sydent.bind("email", address, f"@old:{NOWHERE}")
    await pair.theirs_arrived()
    await pair.bind(moved, pair.user("new"))
    await pair.unbind(dropped, f"@old:{NOWHERE}")
    await pair.ours_arrived()
    here = [await pair.mxid(address) for address in addresses]
    there = [await pair.sydent.mxid("email", address) for address in addresses]
    await pair.unbind(moved, pair.user("new"))
    await pair.ours_arrived()

    assert here == there == [pair.user("new"), None]
    assert [await pair.mxid(moved), await pair.sydent.mxid("email", moved)] == [None, None]


@pytest_twisted.ensureDeferred
async def test_hundreds_of_ours_arrive_while_it_is_away_and_we_are_killed(pair):
    bound = {f"our{number}@many.org": f"@our{number}:{NOWHERE}" for number in range(700)}
    await pair.sydent.kill()
    failures = await pair.figure("pushes_total", outcome="unreachable")
    await pair.bind_all(bound)
    await pair.until(lambda number: number > failures, "pushes_total", outcome="unreachable")
    lag = pair.lag()
    await pair.restart(signal.SIGKILL)
    await pair.sydent.start()
    await pair.ours_arrived()
    found = await together(pair.sydent.mxid("email", address) for address in few(bound))

    assert lag == 700
    assert found == few(bound.values())


@pytest_twisted.ensureDeferred
async def test_being_killed_in_the_middle_of_pushing_loses_nothing(pair):
    bound = {f"cut{number}@many.org": f"@cut{number}:{NOWHERE}" for number in range(900)}
    await pair.bind_all(bound)
    await pair.restart(signal.SIGKILL)
    await pair.ours_arrived()
    found = await together(pair.sydent.mxid("email", address) for address in few(bound))

    assert found == few(bound.values())


@pytest_twisted.ensureDeferred
async def test_hundreds_of_theirs_arrive_while_we_were_away(pair):
    bound = {f"their{number}@many.org": f"@their{number}:{NOWHERE}" for number in range(210)}
    await pair.daemon.end(signal.SIGKILL)
    await together(pair.sydent.bind("email", address, mxid) for address, mxid in bound.items())
    await pair.daemon.start()
    for _ in range(2):
        await pair.hurry()
        await pair.sydent.next_push(pair.us)
    await pair.theirs_arrived()
    found = await together(pair.mxid(address) for address in bound)

    assert found == list(bound.values())


@pytest_twisted.ensureDeferred
async def test_with_a_wrong_key_of_it_nothing_is_taken_and_everything_once_that_is_mended(pair):
    right = pair.daemon.config.read_text()
    other = encode_base64(get_verify_key(generate_signing_key("0")).encode())
    pair.daemon.config.write_text(right.replace(pair.sydent.public_key, other))
    try:
        await pair.restart()
        addresses = [f"wrong{number}@key.org" for number in range(3)]
        for address in addresses:
            await pair.sydent.bind("email", address, f"@key:{NOWHERE}")
        await pair.hurry()
        refused = await pair.sydent.process.next_line(re.compile("RemotePeerError: "))
        answer = literal_eval(refused.partition("RemotePeerError: ")[2])
        stored = [await pair.mxid(address) for address in addresses]
        await pair.daemon.process.says("route=replicate/v1/push status=400")
    finally:
        pair.daemon.config.write_text(right)
        await pair.restart()
    await pair.theirs_arrived()

    assert answer["errcode"] == "M_VERIFICATION_FAILED"
    assert len(answer["failed_ids"]) == 3
    assert stored == [None] * 3
    assert [await pair.mxid(address) for address in addresses] == [f"@key:{NOWHERE}"] * 3


@pytest_twisted.ensureDeferred
async def test_what_we_cannot_use_holds_up_nothing_behind_it(pair):
    before = await pair.figure("received_statements_total", outcome="unusable")
    await pair.sydent.bind("jabber", "odd@example.org", f"@odd:{NOWHERE}")
    await pair.sydent.bind("email", "no address", f"@odd:{NOWHERE}")
    await pair.sydent.bind("email", "behind@example.org", f"@behind:{NOWHERE}")
    await pair.theirs_arrived()

    assert await pair.figure("received_statements_total", outcome="unusable") == before + 2
    assert await pair.mxid("behind@example.org") == f"@behind:{NOWHERE}"


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_waits_here_is_woken_by_a_bind_there(pair):
    invited = {"medium": "email", "address": "bob@example.org", "room_id": "!tea:example.org"}
    status, invitation = await pair.daemon.ask(
        "POST", "/v2/store-invite", {**invited, "sender": pair.user("alice")}
    )
    await pair.sydent.bind("email", "bob@example.org", pair.user("bob"))
    await pair.theirs_arrived()
    while (call := json.loads((await pair.homeserver.next_onbind()).body))["address"] != "bob@example.org":
        pass

    assert status == 200
    assert call["mxid"] == pair.user("bob")
    (invite,) = call["invites"]
    assert invite["signed"]["token"] == invitation["token"]
    verify(pair, invite["signed"], OURS)


@pytest_twisted.ensureDeferred
async def test_it_takes_an_empty_push_as_a_sign_of_life(pair):
    await pair.bind("alive@example.org", pair.user("alive"))
    await eventually(pair.has_told, "it has acknowledged the bind")
    await pair.restart()
    await pair.until(lambda number: number == 1, "pushes_total", outcome="empty")

    assert pair.lag() == 0


@pytest_twisted.ensureDeferred
async def test_the_metrics_tell_of_both_directions(pair):
    await pair.restart()
    await pair.until(lambda number: number == 1, "pushes_total", outcome="empty")
    await pair.bind("counted@example.org", pair.user("counted"))
    await pair.sydent.bind("email", "counted@example.com", f"@counted:{NOWHERE}")
    await pair.until(lambda number: number == 1, "pushes_total", outcome="accepted")
    await pair.theirs_arrived()

    assert await pair.figure("received_statements_total", outcome="new") == 1
    assert await pair.figure("push_duration_seconds_count") == await pair.figure(
        "pushes_total", outcome="accepted"
    )
    # Those of the database are told some seconds later.
    await pair.until(lambda number: number > 0, "last_success_timestamp_seconds")
    assert await pair.figure("lag_entries") == 0
    assert await pair.figure("lag_seconds") == 0


@pytest_twisted.ensureDeferred
async def test_the_commands_know_what_it_is(pair):
    status, told = await pair.command("test")
    await pair.sydent.kill()
    status_without, told_without = await pair.command("test")
    await pair.sydent.start()

    assert (status, status_without) == (0, 1)
    assert "Sydent" in told
    assert "failed:" not in told
    assert "connection refused" in told_without


@pytest_twisted.ensureDeferred
async def test_what_it_has_lost_comes_back_with_a_resync(pair):
    """It deletes again what it has once unbound, at each bind of its own, without telling anybody."""
    await pair.sydent.bind("email", "lost@example.org", f"@old:{NOWHERE}")
    await pair.sydent.unbind("email", "lost@example.org", f"@old:{NOWHERE}")
    await pair.theirs_arrived()
    await pair.bind("lost@example.org", pair.user("lost"))
    await pair.ours_arrived()
    await pair.sydent.bind("email", "other@example.org", f"@other:{NOWHERE}")
    lost = await pair.sydent.mxid("email", "lost@example.org")
    stored = pair.sydent.process.next_line(
        re.compile(f"Stored association origin ID {pair.newest()} from {OURS}")
    )
    status, _ = await pair.command("resync")
    await stored

    assert lost is None
    assert status == 0
    assert await pair.sydent.mxid("email", "lost@example.org") == pair.user("lost")
