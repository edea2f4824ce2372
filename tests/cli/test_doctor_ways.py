"""`doctor` tries what the server depends on: homeservers, the mail relay, SMS gateways and peers, all of them real."""

from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
import trustme
from cli.doctoring import Patient, of, one
from replication.listening_peer import Node
from senders.relays import SILENCE, ScriptedRelay, server_context
from standins.behaviours import Silence, answer, close
from standins.certificates import Authority
from standins.gateway import Gateway
from standins.homeserver import KEYS, USERINFO, Homeserver
from standins.mailbox import Mailbox
from standins.ports import free_port
from twisted.internet import reactor

from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.examination import Examination
from sydentish.cli.doctor.homeservers import Homeservers
from sydentish.cli.doctor.machine import Setup
from sydentish.cli.doctor.peers import peer_findings
from sydentish.cli.doctor.senders import gateway_findings, mail_findings
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.peers import Peer
from sydentish.parts.replication import peer_tls
from sydentish.parts.world import make_world

VERSION = "/_matrix/federation/v1/version"
LOGIN = ("mailer", "correct horse")


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def patient(tmp_path, authority):
    (tmp_path / "data").mkdir()
    authority.write_ca(tmp_path / "ca.pem")
    return Patient(tmp_path, tmp_path / "data", "https://localhost", "tcp:0")


# --- homeservers ---------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def homeserver(authority):
    homeserver = Homeserver(authority.issue("localhost", "127.0.0.1"))
    homeserver.start(reactor)
    yield homeserver
    await homeserver.stop()


def let_in(patient, tmp_path, *more):
    patient.homeservers += ["allowed_addresses = 127.0.0.0/8, ::1", f"ca_file = {tmp_path}/ca.pem", *more]


async def tried(patient, name):
    return await Homeservers(patient.config(), make_world(reactor), Clocks()).findings(name)


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_is_well(patient, homeserver, tmp_path):
    let_in(patient, tmp_path)
    homeserver.behaviours[VERSION] = answer(200, {"server": {"name": "Stand-in", "version": "1\x1b[2J"}})
    findings = await tried(patient, homeserver.server_name)
    assert {each.result for each in findings} == {"ok"}
    told = of(findings, f"homeserver {homeserver.server_name}")
    assert told == [
        f"ok: is reached at localhost:{homeserver.port}; it is a Stand-in 1?[2J; None",
        "ok: its keys were fetched: ed25519:standin; None",
        "ok: answers when it is asked who its users are, as registering needs; None",
    ]


@pytest_twisted.ensureDeferred
async def test_a_homeserver_in_a_private_network_is_told_with_its_address(patient, homeserver):
    (told,) = await tried(patient, f"127.0.0.1:{homeserver.port}")
    assert told.told == "its address is one that is never connected to: 127.0.0.1"
    assert told.remedy == "if it is yours, put the address into [homeservers] allowed_addresses"
    assert homeserver.requests == []


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ((KEYS, answer(404)), "does not publish its keys: HTTP 404; its federation listener must serve"),
        (
            (KEYS, answer(200, {"server_name": "x"})),
            "keys cannot be used: they are those of another server; is",
        ),
        ((USERINFO, answer(404)), "none can register: HTTP 404; its federation listener must serve openid"),
        ((VERSION, close), "but no usable answer; is it up"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_step_of_a_homeserver_can_fail(patient, homeserver, tmp_path, step, told):
    let_in(patient, tmp_path)
    homeserver.behaviours[step[0]] = step[1]
    findings = await tried(patient, homeserver.server_name)
    (wrong,) = [each for each in findings if each.result == "failed"]
    assert told in f"{wrong.told}; {wrong.remedy}"


@pytest_twisted.ensureDeferred
async def test_why_the_certificate_of_a_homeserver_is_not_accepted(patient, authority, tmp_path):
    let_in(patient, tmp_path)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for certificate, told in (
        (authority.issue("localhost", not_after=yesterday), "its certificate has expired"),
        (authority.issue("other.example"), "its certificate is for other.example, not for localhost"),
        (Authority().issue("localhost"), "its certificate is not from an authority that is trusted here"),
    ):
        homeserver = Homeserver(certificate)
        homeserver.start(reactor)
        (finding,) = await tried(patient, homeserver.server_name)
        assert finding.told == told
        assert homeserver.requests == []
        await homeserver.stop()


@pytest_twisted.ensureDeferred
async def test_homeservers_that_nobody_finds(patient, tmp_path):
    let_in(patient, tmp_path, "timeout = 5s")
    (refused,) = await tried(patient, f"localhost:{free_port()}")
    assert "but connection refused; is it up" in f"{refused.told}; {refused.remedy}"
    (unknown,) = await tried(patient, "nowhere.invalid")
    assert unknown.told == "was found at nowhere.invalid:8448, but its name cannot be resolved"


@pytest_twisted.ensureDeferred
async def test_a_homeserver_whose_users_may_not_register_is_a_warning(patient, homeserver, tmp_path):
    let_in(patient, tmp_path, "allow = example.org")
    last = (await tried(patient, homeserver.server_name))[-1]
    assert (last.result, last.told) == ("warning", "its users may not register")


# --- the mail relay ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def mailbox(ca, tmp_path):
    """Starts relays, and makes them that of the configuration."""
    boxes = []

    def start(patient, security, certificate=None, **options):
        ca.cert_pem.write_to_path(tmp_path / "mail.pem")
        context = server_context(certificate or ca.issue_cert("localhost"))
        tls = {} if security == "plain" else {security: context}
        boxes.append(Mailbox(**tls, **options))
        boxes[-1].start()
        use(patient, boxes[-1].port, security, tmp_path)
        return boxes[-1]

    yield start
    for box in boxes:
        box.stop()


def use(patient, port, security, folder, login=LOGIN):
    patient.sections = [
        f"[email]\nsmtp_host = localhost\nsmtp_port = {port}\nsmtp_security = {security}\ntimeout = 5s"
    ]
    if security != "plain":
        patient.sections.append(f"smtp_ca_file = {folder}/mail.pem")
    if login is not None:
        patient.sections.append(f"smtp_username = {login[0]}\nsmtp_password = {login[1]}")


async def mail(patient):
    return await mail_findings(patient.config(), make_world(reactor))


@pytest.mark.parametrize(
    ("security", "how"), [("starttls", "by STARTTLS"), ("tls", "by TLS"), ("plain", "without TLS")]
)
@pytest_twisted.ensureDeferred
async def test_a_relay_is_logged_in_to_and_sent_nothing(patient, mailbox, security, how):
    box = mailbox(patient, security, login=LOGIN)
    told = one(await mail(patient), "mail relay")
    assert told == (
        f"ok: localhost:{box.port} is reached {how}; the log-in works; it takes addresses beyond ASCII; None"
    )
    assert box.mails == []


@pytest_twisted.ensureDeferred
async def test_what_a_relay_cannot_do_is_told(patient, mailbox, tmp_path):
    box = mailbox(patient, "plain", smtputf8=False)
    use(patient, box.port, "plain", tmp_path, login=None)
    assert "no log-in is set; addresses beyond ASCII cannot be written to" in one(
        await mail(patient), "mail relay"
    )


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_told_without_it(patient, mailbox, tmp_path):
    box = mailbox(patient, "starttls", login=LOGIN)
    use(patient, box.port, "starttls", tmp_path, login=("mailer", "wrong horse"))
    told = one(await mail(patient), "mail relay")
    assert f"failed: localhost:{box.port}: the relay answered 535 to AUTH; check smtp_username" in told
    assert "horse" not in told


@pytest_twisted.ensureDeferred
async def test_the_certificate_of_a_relay_is_explained_and_its_password_kept(patient, mailbox, ca):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for security in ("starttls", "tls"):
        for certificate, told in (
            (ca.issue_cert("localhost", not_after=yesterday), "failed: its certificate has expired; renew"),
            (ca.issue_cert("other.example"), "its certificate is for other.example, not for localhost; get"),
            (trustme.CA().issue_cert("localhost"), "not from an authority that is trusted here; send"),
        ):
            box = mailbox(patient, security, certificate, login=LOGIN)
            assert told in one(await mail(patient), "mail relay")
            assert box.mails == []


@pytest_twisted.ensureDeferred
async def test_relays_that_cannot_be_spoken_with(patient, mailbox, tmp_path):
    box = mailbox(patient, "plain")
    for security, told in (
        ("starttls", "the relay does not offer STARTTLS; use [email] smtp_security = tls"),
        ("tls", "does smtp_security fit the port?"),
        ("plain", "the relay does not offer a login with CRAM-MD5, PLAIN or LOGIN; use TLS"),
    ):
        use(patient, box.port, security, tmp_path)
        (tmp_path / "mail.pem").write_bytes(trustme.CA().cert_pem.bytes())
        assert told in one(await mail(patient), "mail relay")
    use(patient, free_port(), "plain", tmp_path)
    assert "no connection to the relay: connection refused; check smtp_host" in one(
        await mail(patient), "mail relay"
    )


@pytest_twisted.ensureDeferred
async def test_relays_that_refuse_or_are_silent(patient, tmp_path):
    for script, told in (
        ({"greeting": b"554 No\r\n"}, "the relay answered 554 to greeting; look into the log of the relay"),
        ({"EHLO": b"502 No\r\n"}, "the relay answered 502 to EHLO"),
        (
            {"greeting": b"HTTP/1.1 400\r\n"},
            "the relay does not speak SMTP at greeting; does smtp_security fit",
        ),
    ):
        relay = ScriptedRelay(script)
        await relay.start()
        use(patient, relay.port, "plain", tmp_path, login=None)
        patient.sections[0] = patient.sections[0].replace("localhost", "127.0.0.1")
        assert told in one(await mail(patient), "mail relay")
        await relay.stop()


# --- SMS gateways --------------------------------------------------------------------------------------


def sms(patient, url, ca_file=""):
    patient.sections = [
        "[sms]\ngateways = a",
        f'[sms a]\nkind = http\nurl = {url}\nbody = {{"to": "{{destination}}", "text": "{{text}}"}}',
        f"ca_file = {ca_file}",
    ]


async def gateways(patient):
    (gateway,) = patient.config().sms_gateways
    return await gateway_findings(make_world(reactor), gateway)


@pytest_twisted.ensureDeferred
async def test_a_gateway_is_reached_and_asked_nothing(patient, authority, tmp_path):
    secure, plain = Gateway("http", authority.issue("localhost")), Gateway("http")
    for gateway, url, told in (
        (
            secure,
            "https://localhost:{}/send?to={{destination}}",
            "ok: its certificate is good, for localhost",
        ),
        (plain, "http://localhost:{}/send", "is reached, without TLS"),
    ):
        gateway.start(reactor)
        sms(patient, url.format(gateway.port), tmp_path / "ca.pem")
        assert told in one(await gateways(patient), "SMS gateway a")
        assert gateway.requests == []
        await gateway.stop()


@pytest_twisted.ensureDeferred
async def test_gateways_that_cannot_be_used(patient, authority, tmp_path):
    gateway = Gateway("http", authority.issue("other.example"))
    gateway.start(reactor)
    sms(patient, f"https://localhost:{gateway.port}/send", tmp_path / "ca.pem")
    assert "is for other.example, not for localhost; get" in one(await gateways(patient), "SMS gateway a")
    sms(patient, f"https://localhost:{gateway.port}/send")
    told = of(await gateways(patient), "SMS gateway a")
    assert [" not from an authority" in told[0], "is for other.example" in told[1]] == [True, True]
    await gateway.stop()
    for scheme in ("http", "https"):
        sms(patient, f"{scheme}://localhost:{free_port()}/send")
        assert "connection refused; check host, port" in one(await gateways(patient), "SMS gateway a")


@pytest_twisted.ensureDeferred
async def test_a_gateway_for_development_is_a_warning(patient):
    patient.sections = ["[sms]\ngateways = a\n[sms a]\nkind = log"]
    assert one(await gateways(patient), "SMS gateway a").startswith("warning: codes are written to the log")


# --- peers ---------------------------------------------------------------------------------------------

US = KeyRing("id.example.org", parse_key(make_key("0", b"k" * 32)))


@pytest.fixture
def certificates(patient, authority, tmp_path):
    own = tmp_path / "own.pem"
    own.touch(mode=0o600)
    authority.issue("id.example.org").write(own)
    patient.sections = [f"[replication]\ncertificate_file = {own}\nca_file = {tmp_path}/ca.pem\ntimeout = 5s"]
    return peer_tls(patient.config())


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_well_takes_one_line_and_each_failure_one(
    patient, certificates, authority, tmp_path
):
    world = make_world(reactor)
    node = Node(tmp_path, "there.example.org", 2, now_ms=world.now_ms)
    await node.start()
    pair = tmp_path / "there.pem"
    pair.touch(mode=0o600)
    authority.issue("there.example.org").write(pair)
    await node.listen(type(certificates).load(pair, None, tmp_path / "ca.pem"))
    keys = {US.active.key_id: US.active.public_key}
    await node.knows(Peer("id.example.org", "https://id.example.org", keys, ("id.example.org",)))
    peer = node.as_peer()
    for ours, told in (
        (US, "ok: is reached, and knows us; its clock is 0 s"),
        (KeyRing("id.example.org", parse_key(make_key("1", b"x" * 32))), "failed: for it, what we sign "),
    ):
        findings = await peer_findings(patient.config(), world, ours, certificates, peer)
        assert one(findings, "peer there.example.org").startswith(told)
    await node.stop()
    findings = await peer_findings(patient.config(), world, US, certificates, peer)
    assert one(findings, "peer there.example.org").startswith("failed: connection refused")


# --- all together --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_silent_host_holds_nothing_up(patient, authority, tmp_path):
    silence = Silence()
    homeserver = Homeserver(authority.issue("localhost", "127.0.0.1"))
    homeserver.behaviours[VERSION] = silence
    homeserver.start(reactor)
    let_in(patient, tmp_path, f"allow = {homeserver.server_name}", "timeout = 2s")
    relay = Gateway("http")
    relay.start(reactor)
    patient.sections.append(f"[email]\nsmtp_host = localhost\nsmtp_port = {relay.port}\ntimeout = 2s")
    findings = await patient.examined()
    told = one(findings, f"homeserver {homeserver.server_name}")
    assert "but timed out; is it up" in told
    assert "failed: localhost:" in one(findings, "mail relay")
    assert one(findings, "peers") == "ok: there are none; None"
    await homeserver.stop()
    await relay.stop()


@pytest_twisted.ensureDeferred
async def test_no_check_takes_longer_than_all_may(patient, tmp_path):
    relay = ScriptedRelay({"greeting": SILENCE})
    await relay.start()
    use(patient, relay.port, "plain", tmp_path, login=None)
    patient.sections[0] = patient.sections[0].replace("5s", "1h").replace("localhost", "127.0.0.1")
    shown = []
    examination = Examination(
        patient.config(),
        Setup((), ()),
        None,
        homeservers=(),
        ca_file=None,
        show=shown.append,
        seconds=0.5,
    )
    findings = await examination.run(make_world(reactor))
    assert "failed: there is no result after 0.5 s; " in one(findings, "mail relay")
    assert shown == findings
    await relay.no_connections()
    await relay.stop()
