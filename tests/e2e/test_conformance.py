"""The official files against a server process: whatever is asked, the answer is one that is documented.

schemathesis makes the requests: those that the files allow, and those that they do not. It and `requests` wait for each
answer, so they run in a thread beside the reactor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_twisted
import requests
from daemons import SECONDS, Daemon, free_port
from e2e.conftest import SURROUNDINGS
from e2e.towns import Town, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mail, Mailbox
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from web import official
from web.rows import V1_ROWS
from web.wire import CORS, PREFIX

if not official.is_there():
    pytest.skip(official.MISSING, allow_module_level=True)

import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 20
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
REGISTER, LOG_OUT = PREFIX + "v2/account/register", PREFIX + "v2/account/logout"
# What every endpoint may answer, though the files don't say so of each; and what registration may.
GENERAL, ABOUT_HOMESERVERS = (400, 401, 403, 404, 405, 413, 429), (502, 504)
MATRIX_ERROR = {
    "type": "object",
    "properties": {
        "errcode": {"type": "string", "pattern": "^M_"},
        "error": {"type": "string", "minLength": 1},
    },
    "required": ["errcode", "error"],
}
OPENED = """
allow = {homeserver}, {nobody}
[sms]
gateways = log
[sms log]
kind = log
[budgets]
guesses_per_address = 1000000/1d
"""
BUDGETS = """
mails_per_account mails_per_address mails_per_homeserver mails_per_source
sms_per_account sms_per_number sms_per_country sms_per_homeserver sms_per_source
invitations_per_sender invitations_per_address invitations_per_homeserver
registrations_per_homeserver registrations_per_source v1_requests_per_source
"""


# --- what is documented --------------------------------------------------------------------------------


def _documented() -> dict[str, Any]:
    """The official document, with what is answered everywhere, and the same again below the paths of version 1.

    It says nothing of access tokens: they are for the tests to choose.
    """
    of_v1 = {(row.method, PREFIX + row.path.replace("{key_id}", "{keyId}")) for _, row in V1_ROWS}
    paths: dict[str, Any] = {}
    for path, operations in official.document()["paths"].items():
        paths[path] = {method: _with_errors(path, operation) for method, operation in operations.items()}
        older = path.replace("/v2", "/api/v1", 1)
        twins = {method: answer for method, answer in paths[path].items() if (method.upper(), older) in of_v1}
        if twins:
            paths[older] = twins
    return {"openapi": "3.1.0", "info": official.document()["info"], "paths": paths}


def _with_errors(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    statuses = GENERAL + (ABOUT_HOMESERVERS if path == REGISTER else ())
    error = {"description": "an error", "content": {"application/json": {"schema": MATRIX_ERROR}}}
    documented = operation["responses"]
    if not _is_page(operation):
        documented = {str(status): error for status in statuses} | documented
    return {name: value for name, value in operation.items() if name != "security"} | {
        "responses": documented
    }


def _is_page(operation: dict[str, Any]) -> bool:
    return "4XX" in operation["responses"]


def _asking_for_tokens() -> Iterator[tuple[str, str]]:
    for method, path, operation in official.operations():
        # The files ask for one in front of the pages, too, which browsers open that have none.
        if operation.get("security") and not _is_page(operation):
            yield method, path


NEED_TOKENS = set(_asking_for_tokens())
OPERATIONS = {
    (operation.method.upper(), operation.path): operation
    for operation in (
        found.ok() for found in schemathesis.openapi.from_dict(_documented()).get_all_operations()
    )
}


def _can_be_wrong(operation: Any) -> bool:
    """Whether there are parameters that are not allowed; in a path, every text is."""
    raw = operation.definition.raw
    return "requestBody" in raw or any(parameter["in"] == "query" for parameter in raw.get("parameters", []))


# --- a server that knows some of what is asked for -------------------------------------------------------


@dataclass
class Subject:
    """The server, and what can be said to it that it knows.

    Attributes:
        known: values by the names of parameters.
        secrets: values that it knows together.
    """

    town: Town
    known: dict[str, list[Any]]
    secrets: list[dict[str, Any]]

    def url(self, path: str) -> str:
        return self.town.daemon.base_url + path

    def secrets_for(self, names: set[str]) -> list[dict[str, Any]]:
        """Those that have the most of these names."""
        most = max(len(names & set(secrets)) for secrets in self.secrets)
        return [secrets for secrets in self.secrets if len(names & set(secrets)) == most]

    def openid_token(self) -> dict[str, Any]:
        return {
            "access_token": "openid-alice",
            "token_type": "Bearer",
            "matrix_server_name": self.town.homeserver.server_name,
            "expires_in": 3600,
        }

    def token_for(self, path: str) -> str:
        """An access token; one that may be logged out is asked for, in the thread."""
        if path != LOG_OUT:
            return self.town.daemon.token
        answer = requests.post(self.url(REGISTER), json=self.openid_token(), timeout=SECONDS)
        return answer.json()["token"]


async def _acquaint(town: Town, nobody: str) -> Subject:
    """Does a little of everything, so that there is something to ask for."""
    alice = await town.register()
    ask = town.daemon.ask
    proved = await town.prove("proved@example.org")
    bound = await town.prove("bound@example.org")
    await ask("POST", "/v2/3pid/bind", {**bound, "mxid": alice})
    pending = {"client_secret": "s3cret", "email": "pending@example.org", "send_attempt": 1}
    await ask("POST", "/v2/validate/email/requestToken", pending)
    mailed = _query(_link(await town.mail_to("pending@example.org"), "submitToken?"))
    phone = {"client_secret": "s3cret", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
    _, sms = await ask("POST", "/v2/validate/msisdn/requestToken", phone)
    room = {"medium": "email", "address": "invited@example.org", "room_id": "!r:a.org", "sender": alice}
    _, invitation = await ask("POST", "/v2/store-invite", room)
    invited = urlsplit(_link(await town.mail_to("invited@example.org"), "/#/room/")).fragment
    signing = _query(_query(invited)["signurl"])
    _, details = await ask("GET", "/v2/hash_details")
    known = {
        **{name: [value] for name, value in [*phone.items(), *room.items()]},
        "mxid": [alice, "@bob:example.org"],
        "medium": ["email", "email", "msisdn"],
        "address": ["bound@example.org", "New@Example.ORG"],
        "email": ["new@example.org", "pending@example.org"],
        "pepper": [details["lookup_pepper"]],
        "algorithm": ["sha256", "none"],
        "addresses": [["bound@example.org email", "x"], ["A" * 43]],
        "public_key": [key["public_key"] for key in invitation["public_keys"]],
        "keyId": ["ed25519:0"],
        "access_token": ["openid-alice", "openid-mallory"],
        "matrix_server_name": [town.homeserver.server_name, nobody],
        "expires_in": [3600],
    }
    secrets = [
        {**proved, "threepid": {"medium": "email", "address": "proved@example.org"}},
        {**bound, "threepid": {"medium": "email", "address": "bound@example.org"}},
        {"sid": sms["sid"], "client_secret": "s3cret", "token": "wrong"},
        mailed,
        signing,
    ]
    return Subject(town, known, secrets)


def _link(mail: Mail, containing: str) -> str:
    return next(word for word in text_of(mail).split() if containing in word)


def _query(url: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}


@pytest_twisted.async_yield_fixture(scope="module")
async def subject(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("conformance")
    authority = Authority()
    certificate = authority.issue("localhost")
    homeserver, mailbox = Homeserver(certificate), Mailbox(reactor=reactor)
    homeserver.start(reactor)
    mailbox.start()
    nobody = f"127.0.0.1:{free_port()}"
    surroundings = SURROUNDINGS.format(smtp_port=mailbox.port, ca_file=authority.write_ca(folder / "ca.pem"))
    opened = OPENED.format(homeserver=homeserver.server_name, nobody=nobody)
    off = "\n".join(f"{budget} = off" for budget in BUDGETS.split())
    daemon = Daemon(folder, "[http]\nv1_endpoints = all", surroundings.rstrip() + opened + off)
    await daemon.start()
    town = Town(daemon, mailbox, homeserver, certificate)
    yield await _acquaint(town, nobody)
    await daemon.clean_up()
    mailbox.stop()
    await homeserver.stop()


# --- what is asked -------------------------------------------------------------------------------------


def _say_what_is_known(data: st.DataObject, case: Any, subject: Subject) -> None:
    """Puts something that the server knows in the place of none, some or all of the parameters."""
    how_much = data.draw(st.sampled_from(["all", "some", "none"]))
    parts = [part for part in (case.path_parameters, case.query, case.body) if isinstance(part, dict)]
    secrets = data.draw(st.sampled_from(subject.secrets_for({name for part in parts for name in part})))
    for parameters in parts:
        for name in sorted(parameters):
            values = [secrets[name]] if name in secrets else subject.known.get(name, [])
            if values and (how_much == "all" or (how_much == "some" and data.draw(st.booleans()))):
                parameters[name] = data.draw(st.sampled_from(values))


def explore(subject: Subject, operation: Any, mode: GenerationMode, *, authenticated: bool) -> None:
    """Asks again and again, and looks at each answer."""
    cases = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(cases)
        _say_what_is_known(data, case, subject)
        token = (
            subject.token_for(operation.path)
            if authenticated
            else data.draw(st.sampled_from([None, "unknown"]))
        )
        response = case.call(
            base_url=subject.town.daemon.base_url,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            session=session,
            timeout=SECONDS,
            allow_redirects=False,
        )
        check(operation, case, response, authenticated=authenticated)

    with requests.Session() as session:
        ask()


def check(operation: Any, case: Any, response: Any, *, authenticated: bool) -> None:
    case.validate_response(response, checks=CHECKS)
    for name, value in CORS.items():
        assert response.headers[name] == [value]
    if response.status_code >= 500:
        assert (operation.path, response.status_code) in {(REGISTER, status) for status in ABOUT_HOMESERVERS}
        assert response.json()["error"].startswith("The homeserver")
    if (operation.method.upper(), operation.path) in NEED_TOKENS and not authenticated:
        assert response.status_code == 401
        assert response.json()["errcode"] in {"M_UNAUTHORIZED", "M_UNKNOWN_TOKEN"}


def name_of(key: tuple[str, str]) -> str:
    return f"{key[0]} {key[1].removeprefix(PREFIX)}"


bad_ones = [key for key, operation in OPERATIONS.items() if _can_be_wrong(operation)]


@pytest.mark.parametrize("key", OPERATIONS, ids=name_of)
@pytest_twisted.ensureDeferred
async def test_what_is_right_has_a_documented_answer(subject, key):
    await deferToThread(explore, subject, OPERATIONS[key], GenerationMode.POSITIVE, authenticated=True)


@pytest.mark.parametrize("key", bad_ones, ids=name_of)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_has_a_documented_answer(subject, key):
    await deferToThread(explore, subject, OPERATIONS[key], GenerationMode.NEGATIVE, authenticated=True)


@pytest.mark.parametrize("key", [key for key in OPERATIONS if key in NEED_TOKENS], ids=name_of)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest_twisted.ensureDeferred
async def test_without_a_token_the_answer_is_401(subject, key, mode):
    if mode is GenerationMode.POSITIVE or key in bad_ones:
        await deferToThread(explore, subject, OPERATIONS[key], mode, authenticated=False)


def test_all_that_is_documented_is_asked_for():
    assert {(method, path) for method, path, _ in official.operations()} <= set(OPERATIONS)
