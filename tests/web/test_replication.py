"""The replication listener: what peers may tell and ask, and who is none."""

import json
from types import SimpleNamespace

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from web.wire import PREFIX

from sydentish.domain.errors import Busy, InvalidParam, UnknownPeer, VerificationFailed
from sydentish.domain.peers import MOST_ADDRESSES, MOST_STATEMENTS
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.domain.threepids import Threepid
from sydentish.web.admission import Head, OpenAdmission, PeerAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.replication import ReplicationHandlers
from sydentish.web.routes import IDENTITY_PREFIX, replication_routes

PUSH, CHECK, DIGESTS = "replicate/v1/push", "replicate/v1/check", "replicate/v1/digests"
STATEMENTS, RECALL = "replicate/v1/statements", "replicate/v1/recall"
LOG, UNBOUND = "replicate/v1/log", "replicate/v1/unbound"
PATHS = [PUSH, CHECK, DIGESTS, STATEMENTS, RECALL, LOG, UNBOUND]
PEER = "id.peer.example.org"
CERTIFICATE = ("peer.example.org",)
# An unbind, as a peer signs it.
SIGNED = {
    "medium": "email",
    "address": "alice@example.org",
    "mxid": None,
    "ts": 1_700_000_000_000,
    "not_before": None,
    "not_after": None,
    "signatures": {PEER: {"ed25519:0": "c2ln"}},
}
GOOD = {
    PUSH: {"sgAssocs": {"12": SIGNED}},
    CHECK: {"server_name": PEER, "signatures": {PEER: {"ed25519:0": "c2ln"}}},
    DIGESTS: {"after": 0, "until": 1000, "size": 100},
    STATEMENTS: {"ids": ["12", "17"]},
    RECALL: {"after": "12"},
    LOG: {"after": "12"},
    UNBOUND: {"addresses": [["email", "alice@example.org", 17]]},
}


class KnownPeers:
    """Knows a peer by its certificate; in `asked` are the names of those who came."""

    def __init__(self):
        self.by_name = {"peer.example.org": PEER}
        self.asked = []

    async def peer_of(self, certificate_names):
        self.asked.append(tuple(certificate_names))
        for name in certificate_names:
            if name in self.by_name:
                return self.by_name[name]
        raise UnknownPeer("The certificate is not that of a peer of this server")


class RecordingReceiver:
    """Notes what reaches it; `problem` is raised instead."""

    def __init__(self):
        self.calls = []
        self.problem = None

    async def receive(self, peer, statements):
        self._note("receive", peer, statements)

    async def check(self, peer, greeting):
        self._note("check", peer, greeting)
        return {"server_name": "id.example.org", "peer": peer}

    async def digests(self, peer, after, until, size):
        self._note("digests", peer, after, until, size)
        return {"digests": {"0": [100, "abc"]}}

    async def statements(self, peer, origin_ids):
        self._note("statements", peer, origin_ids)
        return {"sgAssocs": {"12": SIGNED}}

    async def recall(self, peer, after):
        self._note("recall", peer, after)
        return {"sgAssocs": {}}

    async def log(self, peer, after):
        self._note("log", peer, after)
        return {"sgAssocs": {}}

    async def unbound(self, peer, asked):
        self._note("unbound", peer, asked)
        return {"unbound": {}}

    def _note(self, *call):
        self.calls.append(call)
        if self.problem is not None:
            raise self.problem


class Replication:
    """The dispatcher of a replication listener, without sockets."""

    def __init__(self, admission=None):
        self.peers = KnownPeers()
        self.receiver = RecordingReceiver()
        self.clock = Clock()
        self.noted = []
        self.dispatcher = Dispatcher(
            routes=replication_routes(ReplicationHandlers(self.receiver)),
            prefix=IDENTITY_PREFIX,
            admission=admission or PeerAdmission(self.peers),
            pages=None,
            limits=RequestLimits(65536, 16 * 1024 * 1024, 60.0),
            clock=self.clock,
            new_request_id=lambda: "request-17",
            log=self,
        )

    def answered(self, **line):
        self.noted.append(line)

    def limited(self, budget):
        raise AssertionError(budget)

    async def ask(self, path, params=None, *, raw=None, method="POST", names=CERTIFICATE, **head):
        body = json.dumps(params).encode() if raw is None else raw
        opened = self.dispatcher.open(Head(method, PREFIX + path, b"", certificate_names=names, **head))
        reply = await self.dispatcher.answer(opened, body)
        return SimpleNamespace(
            status=reply.status,
            body=reply.body,
            headers=dict(reply.headers),
            json=json.loads(reply.body),
            errcode=json.loads(reply.body).get("errcode"),
        )


@pytest.fixture
def replication():
    return Replication()


# --- what is done --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_push_reaches_the_receiver_as_it_is_and_has_the_answer_that_a_sydent_looks_for(replication):
    statements = {"12": SIGNED, "0013": None, "x": [17], str(2**70): "text", "": {}}
    answer = await replication.ask(PUSH, {"sgAssocs": statements, "unknown": 17})

    assert (answer.status, answer.json) == (200, {"success": True})
    assert replication.receiver.calls == [("receive", PEER, statements)]


@pytest_twisted.ensureDeferred
async def test_a_push_of_nothing_is_one(replication):
    answer = await replication.ask(PUSH, {"sgAssocs": {}})

    assert (answer.status, answer.json) == (200, {"success": True})
    assert replication.receiver.calls == [("receive", PEER, {})]


@pytest.mark.parametrize("greeting", [GOOD[CHECK], {}, {"body": 17, "content": None, "x": {"y": []}}])
@pytest_twisted.ensureDeferred
async def test_all_of_a_greeting_is_looked_at(replication, greeting):
    answer = await replication.ask(CHECK, greeting)

    assert (answer.status, answer.json) == (200, {"server_name": "id.example.org", "peer": PEER})
    assert replication.receiver.calls == [("check", PEER, greeting)]


@pytest_twisted.ensureDeferred
async def test_digests_are_asked_for_by_range(replication):
    answer = await replication.ask(DIGESTS, {"after": 100, "until": MAX_ORIGIN_ID, "size": 1})

    assert (answer.status, answer.json) == (200, {"digests": {"0": [100, "abc"]}})
    assert replication.receiver.calls == [("digests", PEER, 100, MAX_ORIGIN_ID, 1)]


@pytest_twisted.ensureDeferred
async def test_statements_are_asked_for_by_number(replication):
    most = [str(number) for number in range(MOST_STATEMENTS - 3)]
    answer = await replication.ask(STATEMENTS, {"ids": [*most, "0", "5", str(MAX_ORIGIN_ID)]})

    assert (answer.status, answer.json) == (200, {"sgAssocs": {"12": SIGNED}})
    assert replication.receiver.calls == [("statements", PEER, {*map(int, most), MAX_ORIGIN_ID})]


@pytest.mark.parametrize(("path", "name"), [(RECALL, "recall"), (LOG, "log")])
@pytest_twisted.ensureDeferred
async def test_statements_are_asked_for_from_one_on(replication, path, name):
    answer = await replication.ask(path, {"after": str(MAX_ORIGIN_ID)})

    assert (answer.status, answer.json) == (200, {"sgAssocs": {}})
    assert replication.receiver.calls == [(name, PEER, MAX_ORIGIN_ID)]
    for wrong in (12, None, "012", "-1", "", str(MAX_ORIGIN_ID + 1), ["12"], {}):
        answer = await replication.ask(path, {"after": wrong})
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")
    assert (await replication.ask(path, {})).errcode == "M_MISSING_PARAMS"
    assert len(replication.receiver.calls) == 1


@pytest_twisted.ensureDeferred
async def test_unbinds_are_asked_for_by_address(replication):
    longest = "a" * 500
    asked = [["email", longest, number] for number in range(MOST_ADDRESSES)]
    answer = await replication.ask(UNBOUND, {"addresses": asked})

    assert (answer.status, answer.json) == (200, {"unbound": {}})
    expected = [(Threepid("email", longest), number) for number in range(MOST_ADDRESSES)]
    assert replication.receiver.calls == [("unbound", PEER, expected)]
    good = ["email", "a@b.c", 1]
    for wrong in (
        [*asked, good],
        [["email", "a@b.c"]],
        [[*good, 1]],
        [["email", "a@b.c", "1"]],
        [["email", "a@b.c", True]],
        [["email", None, 1]],
        [[1, "a@b.c", 1]],
        [None],
        None,
        "text",
        {"0": good},
    ):
        answer = await replication.ask(UNBOUND, {"addresses": wrong})
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")
        assert "a@b.c" not in answer.body.decode()
    assert len(replication.receiver.calls) == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"application/json; charset=utf-8",
        b"text/plain",
        b"application/x-www-form-urlencoded",
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_content_type_does_not_matter(replication, path, content_type):
    answer = await replication.ask(path, GOOD[path], content_type=content_type)

    assert answer.status == 200
    assert len(replication.receiver.calls) == 1


# --- what is refused -----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_push_that_is_refused_names_what_was_wrong(replication):
    replication.receiver.problem = VerificationFailed("12: is not signed", ("12", "17", "x"))
    answer = await replication.ask(PUSH, GOOD[PUSH])

    assert answer.status == 400
    assert answer.json == {
        "errcode": "M_VERIFICATION_FAILED",
        "error": "12: is not signed",
        "failed_ids": ["12", "17", "x"],
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("problem", "status", "errcode"),
    [
        (InvalidParam("sgAssocs", "must be at most 17 associations"), 400, "M_INVALID_PARAM"),
        (UnknownPeer("not any more"), 403, "M_UNKNOWN_PEER"),
        (Busy("The server is busy: try again soon"), 503, "M_UNKNOWN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_problems_have_the_answers_that_they_have_elsewhere(
    replication, path, problem, status, errcode
):
    replication.receiver.problem = problem
    answer = await replication.ask(path, GOOD[path])

    assert (answer.status, answer.errcode, answer.json["error"]) == (status, errcode, problem.message)
    assert (b"Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_what_breaks_is_500_without_a_detail(replication, path, failures):
    replication.receiver.problem = RuntimeError("canary")
    answer = await replication.ask(path, GOOD[path])
    ((message, _),) = failures
    failures.clear()

    assert (answer.status, answer.errcode) == (500, "M_UNKNOWN")
    assert b"canary" not in answer.body
    assert "request-17" in message


NO_OBJECT = [
    (b"{", "M_NOT_JSON"),
    (b"  ", "M_NOT_JSON"),
    (b"\xff", "M_NOT_JSON"),
    (b'{"a": NaN}', "M_NOT_JSON"),
    (rb'{"a": "\ud800"}', "M_NOT_JSON"),
    (b'{"a":' * 10_000, "M_NOT_JSON"),
    (b"[]", "M_BAD_JSON"),
    (b"null", "M_BAD_JSON"),
    (b"17", "M_BAD_JSON"),
]
_DIGESTS = GOOD[DIGESTS]
MALFORMED = [
    *((path, raw, errcode, "The body must be") for path in PATHS for raw, errcode in NO_OBJECT),
    (PUSH, b"", "M_MISSING_PARAMS", "sgAssocs"),
    (PUSH, {}, "M_MISSING_PARAMS", "sgAssocs"),
    (PUSH, {"sgassocs": {}}, "M_MISSING_PARAMS", "sgAssocs"),
    *(
        (PUSH, {"sgAssocs": value}, "M_INVALID_PARAM", "sgAssocs")
        for value in (None, [], [[]], "{}", 17, True)
    ),
    (DIGESTS, {}, "M_MISSING_PARAMS", "after, until, size"),
    *(
        (DIGESTS, _DIGESTS | {"after": value}, "M_INVALID_PARAM", "after")
        for value in (-1, True, "0", 0.0, None)
    ),
    *(
        (DIGESTS, _DIGESTS | {"until": value}, "M_INVALID_PARAM", "until")
        for value in (0, -1, MAX_ORIGIN_ID + 1, 2**64, 2**70, [], 5.5)
    ),
    (DIGESTS, _DIGESTS | {"after": 1000}, "M_INVALID_PARAM", "until"),
    *(
        (DIGESTS, _DIGESTS | {"size": value}, "M_INVALID_PARAM", "size")
        for value in (0, -1, 2**63, "1", False)
    ),
    (STATEMENTS, {}, "M_MISSING_PARAMS", "ids"),
    *(
        (STATEMENTS, {"ids": value}, "M_INVALID_PARAM", "ids")
        for value in (None, "12", 12, {"12": 1}, [12], ["12", None], [["12"]], ["1"] * (MOST_STATEMENTS + 1))
    ),
    *(
        (STATEMENTS, {"ids": ["12", value]}, "M_INVALID_PARAM", "ids")
        for value in ("", "x", "-1", "012", "1.0", " 1", "1\n", str(MAX_ORIGIN_ID + 1), "9" * 5000)
    ),
]


@pytest.mark.parametrize(
    ("path", "sent", "errcode", "named"), MALFORMED, ids=lambda value: str(value)[:40].replace("\0", "")
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read_is_400(replication, path, sent, errcode, named):
    """And not the 403 of a homeserver's request that cannot be read, though it is known here, too, who asks."""
    raw = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    answer = await replication.ask(path, raw=raw)

    assert (answer.status, answer.errcode) == (400, errcode)
    assert named in answer.json["error"]
    assert replication.receiver.calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_503(replication, path):
    waiting = Deferred()
    replication.receiver.receive = lambda *_: waiting
    replication.receiver.check = lambda *_: waiting
    replication.receiver.digests = lambda *_: waiting
    replication.receiver.statements = lambda *_: waiting
    replication.receiver.recall = replication.receiver.log = lambda *_: waiting
    replication.receiver.unbound = lambda *_: waiting
    asking = Deferred.fromCoroutine(replication.ask(path, GOOD[path]))
    assert not asking.called
    replication.clock.advance(60)
    answer = await asking

    assert (answer.status, answer.errcode) == (503, "M_UNKNOWN")


# --- who may ask ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("raw", [b"{", b"", b"[]", b"{}", None])
@pytest.mark.parametrize("names", [(), ("stranger.example.org",), ("PEER.example.org", "*.example.org")])
@pytest_twisted.ensureDeferred
async def test_whoever_is_no_peer_learns_just_that(replication, path, raw, names):
    answer = await replication.ask(path, GOOD[path], raw=raw, names=names)

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")
    assert replication.peers.asked == [names]
    assert replication.receiver.calls == []


@pytest_twisted.ensureDeferred
async def test_the_first_name_that_is_known_says_who_it_is(replication):
    replication.peers.by_name["second.example.org"] = "second.example.org"
    await replication.ask(PUSH, GOOD[PUSH], names=("nobody", "second.example.org", "peer.example.org"))

    assert replication.receiver.calls == [("receive", "second.example.org", {"12": SIGNED})]


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_removed_while_its_body_comes_is_none_any_more(replication, path):
    head = Head("POST", PREFIX + path, b"", certificate_names=CERTIFICATE)
    opened = replication.dispatcher.open(head)
    assert await replication.dispatcher.admission(opened) is None
    replication.peers.by_name.clear()
    reply = await replication.dispatcher.answer(opened, json.dumps(GOOD[path]).encode(), admitted=True)

    assert (reply.status, json.loads(reply.body)["errcode"]) == (403, "M_UNKNOWN_PEER")
    assert replication.receiver.calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_web_page_is_forbidden_even_with_the_certificate(replication, path):
    """A browser that has a certificate shows it whatever page asks."""
    answer = await replication.ask(path, GOOD[path], web_page=True)

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert replication.receiver.calls == []


@pytest.mark.parametrize("authorization", [b"Bearer token", b"X-Matrix origin=peer.example.org"])
@pytest_twisted.ensureDeferred
async def test_nothing_but_the_certificate_counts(replication, authorization):
    head = {"authorizations": [authorization], "forwarded": [b"127.0.0.1"], "peer": "127.0.0.1"}
    answer = await replication.ask(PUSH, GOOD[PUSH], names=(), **head)

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_where_nobody_asks_for_certificates_nobody_is_a_peer(path):
    replication = Replication(OpenAdmission())
    answer = await replication.ask(path, GOOD[path])

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")
    assert replication.receiver.calls == []


# --- what else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "FOO", "post"])
@pytest.mark.parametrize("names", [CERTIFICATE, ()])
@pytest_twisted.ensureDeferred
async def test_another_method_is_405_and_does_nothing(replication, path, method, names):
    answer = await replication.ask(path, GOOD[path], method=method, names=names)

    assert (answer.status, answer.errcode) == (405, "M_UNRECOGNIZED")
    assert answer.headers[b"Allow"] == b"OPTIONS, POST"
    assert replication.receiver.calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_options_does_nothing(replication, path):
    answer = await replication.ask(path, GOOD[path], method="OPTIONS", names=())

    assert (answer.status, answer.json) == (200, {})
    assert replication.receiver.calls == []


OTHERS = [
    *("v2", "versions", "api/v1", "v2/lookup", "v2/3pid/bind", "internal/bind", "metrics", "", "replicate"),
    *("replicate/v1", "replicate/v2/push", "replicate/v1/push/", "replicate/v1/Push", "replicate//v1/push"),
]


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest_twisted.ensureDeferred
async def test_there_is_nothing_else_on_this_listener(replication, path, method):
    answer = await replication.ask(path, GOOD[PUSH], method=method)

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")
    assert replication.receiver.calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
@pytest_twisted.ensureDeferred
async def test_the_public_listener_has_none_of_it(server, path, method):
    answer = await server.ask(method, path, GOOD[path])

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), path=st.sampled_from(PATHS), known=st.booleans())
@pytest_twisted.ensureDeferred
async def test_nothing_that_is_sent_makes_a_server_error(data, path, known):
    replication = Replication()
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(GOOD[path])), json_values))
    raw = data.draw(
        st.just(json.dumps(GOOD[path] | changes).encode())
        | json_values.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=60)
    )
    content_type = data.draw(st.sampled_from([b"application/json", b"application/x-www-form-urlencoded"]))
    answer = await replication.ask(
        path, raw=raw, names=CERTIFICATE if known else (), content_type=content_type
    )

    assert answer.status in {200, 400} if known else answer.status == 403
    assert len(replication.receiver.calls) == (answer.status == 200)
