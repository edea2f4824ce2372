"""`doctor` looks at a real server from near and from afar, through a proxy that spoils what passes in many ways."""

from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_to_bytes

import pytest
import pytest_twisted
from cli.doctoring import Patient, failures, of, one
from daemons import Daemon
from standins.behaviours import Silence, answer, close, error, redirect
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.ports import free_port
from standins.proxy import Proxy
from twisted.internet import reactor

from sydentish.cli.doctor.asking import SECONDS
from sydentish.keyfiles import load_keys

ACAO = "Access-Control-Allow-Origin"
PAGE = answer(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest_twisted.async_yield_fixture(scope="module")
async def daemon(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("daemon"))
    await daemon.start()
    yield daemon
    await daemon.clean_up()


@pytest_twisted.async_yield_fixture
async def proxies():
    """Starts proxies, and stops them."""
    started = []

    def start(backend, certificate=None):
        started.append(Proxy(backend, certificate))
        started[-1].start(reactor)
        return started[-1]

    yield start
    for proxy in started:
        await proxy.stop()


@pytest.fixture
def proxy(daemon, proxies, authority):
    return proxies(daemon.base_url, authority.issue("localhost"))


@pytest.fixture
def patient(daemon, proxy, authority, tmp_path):
    url, listener = f"https://localhost:{proxy.port}", f"tcp:{daemon.port}:interface=127.0.0.1"
    patient = Patient(tmp_path, daemon.folder / "data", url, listener)
    patient.env["SSL_CERT_FILE"] = str(authority.write_ca(tmp_path / "ca.pem"))
    patient.sections = ["trusted_proxies = 127.0.0.1", "[sms]"]
    return patient


def without(text):
    return lambda passing: passing.headers.removeHeader(text)


# --- a server that is well -----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_behind_a_proxy_that_spoils_nothing_all_is_well(patient, daemon):
    findings = await patient.examined()
    assert failures(findings) == []
    assert [each.check for each in findings if each.result == "ok"][:13] == [
        "configuration",
        "database",
        "disk",
        "signing key",
        "server",
        "public URL",
        "certificate",
        "path",
        "key validity",
        "request body",
        "access token",
        "body limit",
        "CORS",
    ]
    assert one(findings, "server") == (
        f"ok: runs, and answers at tcp:{daemon.port}:interface=127.0.0.1; None"
    )
    assert "look-ups of 4.0 MiB arrive" in one(findings, "body limit")
    assert "agrees with that of https://localhost" in one(findings, "clock")


@pytest_twisted.ensureDeferred
async def test_for_people_each_finding_is_a_line_and_the_last_one_counts(patient):
    status, output = await patient.ask()
    *lines, last = output.splitlines()
    # There is no mail relay.
    assert status == 1
    assert all(line.startswith(("ok:      ", "warning: ", "failed:  ")) for line in lines)
    assert "ok:      CORS:          the headers that web clients need are there, once each" in lines
    assert last.startswith("1 failure and ")
    assert last.endswith(f" in {len(lines)} findings.")
    assert "\x1b" not in output


@pytest_twisted.ensureDeferred
async def test_the_authorities_can_be_named(patient, tmp_path):
    ca_file = patient.env.pop("SSL_CERT_FILE")
    assert "not from an authority that is trusted here; send the certificates" in one(
        await patient.examined(), "certificate"
    )
    assert one(await patient.examined("--ca-file", ca_file), "certificate").startswith(
        "ok: its certificate is good, for localhost, until "
    )


# --- another server, or none ---------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_run_is_told_of_once(patient, proxies):
    port = free_port()
    patient.listener = f"tcp:{port}:interface=127.0.0.1"
    patient.public_base_url = f"http://localhost:{proxies(f'http://127.0.0.1:{port}').port}"
    findings = await patient.examined()
    assert failures(findings) == ["server"]
    assert f"does not answer at {patient.listener}; start it: systemctl start" in one(findings, "server")
    patient.public_base_url = f"http://localhost:{free_port()}"
    assert failures(await patient.examined()) == ["server"]


@pytest_twisted.ensureDeferred
async def test_a_listener_that_is_not_there_is_told_beside_one_that_is(patient, tmp_path):
    patient.listener = f"{patient.listener}\n    unix:{tmp_path}/x.sock:mode=666"
    findings = await patient.seen()
    assert failures(findings) == ["server"]
    assert of(findings, "server")[1].startswith(
        f"failed: does not answer on this machine at unix:{tmp_path}/x.sock:mode=666: "
    )


@pytest_twisted.ensureDeferred
async def test_a_server_elsewhere_counts_when_the_public_url_leads_to_it(patient):
    patient.listener = f"tcp:{free_port()}:interface=127.0.0.1"
    findings = await patient.seen()
    assert failures(findings) == []
    assert one(findings, "server").startswith("warning: does not answer on this machine at tcp:")


UNTRIED = "not tried from here: systemd:name=public (the socket is systemd's, which knows where it listens)"


@pytest_twisted.ensureDeferred
async def test_a_socket_of_systemds_is_not_tried_and_the_public_url_tells(patient):
    patient.listener = "systemd:name=public"
    findings = await patient.examined()
    assert failures(findings) == []
    assert one(findings, "server") == f"ok: {UNTRIED}; None"


@pytest_twisted.ensureDeferred
async def test_behind_a_socket_of_systemds_trouble_with_the_public_url_is_told_as_such(
    patient, proxy, proxies, authority, daemon
):
    patient.listener = "systemd:name=public"
    proxy.instead = lambda *_: redirect("https://www.example.org/x")
    expired = authority.issue("localhost", not_after=datetime.now(UTC) - timedelta(days=1))
    late = proxies(daemon.base_url, expired)
    late.instead = lambda *_: PAGE
    for url, checks, told in (
        (patient.public_base_url, ["public URL"], "redirects to https://www.example.org/x; set"),
        (f"https://localhost:{late.port}", ["public URL", "certificate"], "something else answers: HTTP 200"),
        (f"http://localhost:{free_port()}", ["public URL"], "cannot be reached: "),
    ):
        patient.public_base_url = url
        findings = await patient.seen()
        assert failures(findings) == checks
        assert told in one(findings, "public URL")
        assert one(findings, "server").startswith(f"warning: {UNTRIED}; does it run? systemctl status")


@pytest_twisted.ensureDeferred
async def test_beside_a_socket_of_systemds_other_listeners_are_tried(patient, proxy):
    tried = patient.listener
    patient.listener = f"{tried}\n    systemd:name=public\n    tcp:0"
    proxy.instead = lambda *_: PAGE
    findings = await patient.seen()
    assert failures(findings) == ["public URL"]
    assert of(findings, "server") == [
        f"ok: runs, and answers at {tried}; None",
        f"ok: {UNTRIED}, tcp:0 (its port is another one at each start); None",
    ]
    patient.listener = f"tcp:{free_port()}:interface=127.0.0.1\n    systemd:name=public"
    patient.public_base_url = f"http://localhost:{free_port()}"
    assert failures(await patient.seen()) == ["server"]


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        (PAGE, "something else answers: HTTP 200 with a page for people; have the proxy pass"),
        (error(404, "M_UNRECOGNIZED"), "no identity server: a homeserver?; have the proxy pass"),
        (
            redirect("https://www.example.org/x"),
            "redirects to https://www.example.org/x; set public_base_url",
        ),
        (
            answer(401, b"", {"WWW-Authenticate": "Basic"}),
            "asks for a log-in of its own: HTTP 401 with no JSON",
        ),
        (answer(503, b"no"), "a proxy answers, but gets nothing from this server: HTTP 503 with no JSON"),
        (answer(200, {"public_key": "x"}), "something else answers: HTTP 200; have"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_this_server_is_told_apart(patient, proxy, instead, told):
    proxy.instead = lambda *_: instead
    findings = await patient.seen()
    assert failures(findings) == ["public URL"]
    assert told in one(findings, "public URL")
    assert one(findings, "certificate").startswith("ok: ")


@pytest_twisted.ensureDeferred
async def test_another_identity_server_is_known_by_its_key(patient, proxy, daemon):
    ours = load_keys(daemon.folder / "data" / "keys", "id.example.org").active.public_key
    proxy.spoil_answer = lambda passing: setattr(passing, "body", passing.body.replace(ours.encode(), b"abc"))
    told = one(await patient.seen(), "public URL")
    assert f"another identity server answers: its key ed25519:0 is abc, ours is {ours}; have DNS" in told


@pytest_twisted.ensureDeferred
async def test_a_server_that_has_not_read_its_new_key_is_told_so(patient, daemon, tmp_path):
    (tmp_path / "keys").mkdir(mode=0o700)
    seed = (daemon.folder / "data" / "keys" / "ed25519_0.key").read_text().split()[2]
    (tmp_path / "keys" / "ed25519_new.key").write_text(f"ed25519 new {seed[::-1]}\n")
    (tmp_path / "keys" / "ed25519_new.key").chmod(0o600)
    patient.env["SYDENTISH_GENERAL__KEY_DIR"] = str(tmp_path / "keys")
    findings = await patient.seen()
    assert failures(findings) == ["server", "public URL"]
    assert "does not have our key ed25519:new; is it this one?" in one(findings, "public URL")


@pytest_twisted.ensureDeferred
async def test_a_name_that_there_is_not(patient):
    patient.public_base_url = "https://nowhere.invalid"
    told = one(await patient.seen(), "public URL")
    assert "https://nowhere.invalid: cannot be reached: its name cannot be resolved; check its name" in told


# --- certificates --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_certificates_that_are_not_good(patient, daemon, proxies, authority):
    now = datetime.now(UTC)
    strangers = Authority()
    for certificate, told in (
        (
            authority.issue("localhost", not_after=now - timedelta(days=1)),
            "failed: its certificate has expired; renew",
        ),
        (authority.issue("localhost", not_after=now + timedelta(days=5)), " 4 days are left; renew it"),
        (authority.issue("other.example"), "certificate is for other.example, not for localhost; get one"),
        (strangers.issue("localhost"), "not from an authority that is trusted here; send"),
    ):
        proxy = proxies(daemon.base_url, certificate)
        patient.public_base_url = f"https://localhost:{proxy.port}"
        findings = await patient.seen()
        assert told in one(findings, "certificate")
        # All else is looked at in spite of it.
        assert one(findings, "CORS").startswith("ok: ")


@pytest_twisted.ensureDeferred
async def test_without_tls_there_is_a_warning(patient, daemon):
    patient.public_base_url = daemon.base_url
    findings = await patient.seen()
    assert failures(findings) == []
    assert one(findings, "certificate").startswith("warning: there is none to look at")


# --- what a proxy can spoil ----------------------------------------------------------------------------


def decode_path(passing):
    path, mark, query = passing.target.partition(b"?")
    passing.target = unquote_to_bytes(path) + mark + query


def forget_query(passing):
    passing.target = passing.target.partition(b"?")[0]


def forget_body(passing):
    passing.body = b""


def break_encoding(passing):
    passing.target = passing.target.replace(b"%3A", b"%253A")


def double_origin(passing):
    passing.headers.setRawHeaders(ACAO, ["*", "*"])


def join_origins(passing):
    passing.headers.setRawHeaders(ACAO, ["*, *"])


def own_origin(passing):
    passing.headers.setRawHeaders(ACAO, ["https://www.example.org"])


def no_authorization_header(passing):
    passing.headers.setRawHeaders("Access-Control-Allow-Headers", ["Content-Type"])


def only_get(passing):
    passing.headers.setRawHeaders("Access-Control-Allow-Methods", ["GET"])


def errors_only(passing):
    if passing.status >= 400:
        passing.headers.removeHeader(ACAO)


SPOILED_REQUESTS = [
    (break_encoding, "path", "encoded characters in it do not arrive: HTTP 404 M_NOT_FOUND; have the proxy"),
    (forget_query, "key validity", "hear: HTTP 400 M_MISSING_PARAMS; have the proxy pass the query"),
    (forget_body, "request body", "does not arrive: HTTP 400 M_"),
    (without("Authorization"), "access token", "the header Authorization does not arrive, so that nobody is"),
]
SPOILED_ANSWERS = [
    (without(ACAO), f"an answer has no {ACAO}; have the proxy add no"),
    (double_origin, f"an answer has {ACAO} 2 times"),
    (join_origins, f"an answer has {ACAO} 2 times"),
    (own_origin, f"an answer has an {ACAO} for others only"),
    (errors_only, f"an error has no {ACAO}"),
    (no_authorization_header, "OPTIONS does not allow the header authorization"),
    (only_get, "OPTIONS does not allow POST"),
]


@pytest.mark.parametrize(("spoil", "check", "told"), SPOILED_REQUESTS)
@pytest_twisted.ensureDeferred
async def test_requests_that_do_not_arrive_as_they_were_sent(patient, proxy, spoil, check, told):
    proxy.spoil_request = spoil
    findings = await patient.seen()
    assert failures(findings) == [check]
    assert told in one(findings, check)


@pytest.mark.parametrize(("spoil", "told"), SPOILED_ANSWERS)
@pytest_twisted.ensureDeferred
async def test_cors_headers_that_clients_cannot_use(patient, proxy, spoil, told):
    proxy.spoil_answer = spoil
    findings = await patient.seen()
    assert failures(findings) == ["CORS"]
    assert f"web clients cannot use this server: {told}" in one(findings, "CORS")


@pytest_twisted.ensureDeferred
async def test_paths_that_arrive_decoded_are_a_warning(patient, proxy):
    proxy.spoil_request = decode_path
    findings = await patient.seen()
    assert failures(findings) == []
    assert one(findings, "path").startswith("warning: arrives decoded")


TOO_LARGE = answer(413, b"<html>413</html>", {"Content-Type": "text/html"})
VALID = answer(200, {"valid": True})
FORBIDDEN = answer(403, b"<html>403</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("where", "instead", "told"),
    [
        (("OPTIONS", "/v2/lookup"), FORBIDDEN, ("CORS", "OPTIONS is answered with HTTP 403 with a page")),
        (("POST", "/account/register"), FORBIDDEN, ("request body", "not arrive: HTTP 403 with a page")),
        (("GET", "/ephemeral/isvalid"), VALID, ("key validity", "is not said to be invalid: valid")),
        (("GET", "/ephemeral/isvalid"), FORBIDDEN, ("key validity", "not said to be invalid: HTTP 403")),
        (
            ("GET", "/pubkey/isvalid"),
            answer(200, {"valid": False}),
            ("key validity", "hear: not valid; have"),
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_paths_that_a_proxy_answers_itself(patient, proxy, where, instead, told):
    proxy.instead = lambda method, target, _body: (
        instead if (method == where[0] and where[1] in target) else None
    )
    findings = await patient.seen()
    assert failures(findings) == [told[0]]
    assert told[1] in one(findings, told[0])


@pytest_twisted.ensureDeferred
async def test_a_proxy_with_a_log_in_of_its_own_for_some_paths(patient, proxy):
    own = answer(401, b"", {"WWW-Authenticate": "Basic", ACAO: "*"})
    proxy.instead = lambda method, target, _body: own if (method == "POST" and "lookup" in target) else None
    findings = await patient.seen()
    assert failures(findings) == ["access token", "body limit"]
    assert "instead of this server something else judges it: HTTP 401 with no JSON" in one(
        findings, "access token"
    )


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_takes_no_large_bodies(patient, proxy):
    proxy.instead = lambda _method, _target, body: TOO_LARGE if len(body) > 1024 * 1024 else None
    told = one(await patient.seen(), "body limit")
    assert "a body of 4.0 MiB does not arrive: HTTP 413 with a page for people; allow as much as" in told
    proxy.instead = lambda _method, _target, body: close if len(body) > 1024 * 1024 else None
    assert "with a body of 4.0 MiB there is no answer: " in one(await patient.seen(), "body limit")
    patient.sections.insert(0, "lookup_body_limit = 1M")
    assert "look-ups of 1.0 MiB arrive" in one(await patient.seen(), "body limit")


@pytest_twisted.ensureDeferred
async def test_a_path_that_is_silent_holds_up_nothing_else(patient, proxy):
    silence = Silence()
    proxy.instead = lambda _method, target, _body: silence if "register" in target else None
    findings = await patient.seen(seconds=1)
    assert failures(findings) == ["request body"]
    assert "no answer: timed out; look into the log of the proxy" in one(findings, "request body")


@pytest_twisted.ensureDeferred
async def test_a_listener_that_is_silent_holds_nothing_up_for_longer_than_it_may(patient, proxies):
    silent = proxies("http://127.0.0.1:1")
    silent.instead = lambda *_: Silence()
    patient.listener = f"{patient.listener}\n    tcp:{silent.port}:interface=127.0.0.1"
    begun = reactor.seconds()
    findings = await patient.seen(seconds=1)
    assert reactor.seconds() - begun < SECONDS
    assert failures(findings) == ["server"]
    assert "timed out" in of(findings, "server")[1]


# --- hints ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_is_not_named_is_a_warning(patient):
    patient.sections = []
    told = one(await patient.seen(), "client address")
    assert told.startswith("warning: [http] trusted_proxies is not set, so that all clients count as one")


@pytest_twisted.ensureDeferred
async def test_a_public_name_that_has_nothing_to_do_with_the_server_name(patient):
    patient.env["SYDENTISH_GENERAL__SERVER_NAME_ALIASES"] = ""
    told = one(await patient.seen(), "server name")
    assert told.startswith("warning: homeservers may call this server id.example.org, localhost: ")


@pytest_twisted.ensureDeferred
async def test_a_homeserver_and_the_public_url_are_asked_for_the_time(patient, proxy, authority):
    homeserver = Homeserver(authority.issue("localhost", "127.0.0.1"))
    homeserver.start(reactor)
    ca_file = patient.env["SSL_CERT_FILE"]
    patient.homeservers += ["allowed_addresses = 127.0.0.0/8, ::1", f"ca_file = {ca_file}"]
    late = "Thu, 01 Jan 2026 00:00:00 GMT"
    proxy.spoil_answer = lambda passing: passing.headers.setRawHeaders("Date", [late])
    name = homeserver.server_name
    findings = await patient.examined("--homeserver", name)
    await homeserver.stop()
    theirs, public = of(findings, "clock")
    assert public.startswith("failed: is ")
    assert f"s ahead of that of {patient.public_base_url}; set the clocks by NTP" in public
    assert theirs == f"ok: agrees with that of homeserver {name}; None"


def test_data_for_programs_has_the_same_findings(tmp_path):
    patient = Patient(tmp_path, tmp_path / "data", f"http://localhost:{free_port()}", "tcp:0")
    findings = patient.examined_alone()
    assert {each.check for each in findings} >= {"configuration", "homeserver", "peers", "clock"}
