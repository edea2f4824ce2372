"""The internal API: bind and unbind by the word of the operator, one at a time and in bulk."""

import json

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web.wire import PREFIX, request

from sydentish.domain.errors import Busy
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import associations as association_rows
from sydentish.web.admission import InternalAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.internal import InternalHandlers
from sydentish.web.routes import IDENTITY_PREFIX, internal_routes

ALICE, BOB = "@alice:hs.example.org", "@bob:other.example.org"
BIND, UNBIND, BULK = "internal/bind", "internal/unbind", "internal/bulk"
TOKEN = "open sesame"
NDJSON = "application/x-ndjson"


@pytest.fixture
def serve_internal(make_house, listen):
    """Listens as the internal listener does; `body` and `bulk` are the limits."""

    async def serve_it(*, token=None, body=65536, bulk=64 * 1024 * 1024, associations=None):
        house = await make_house()
        dispatcher = Dispatcher(
            routes=internal_routes(InternalHandlers(associations or house.associations)),
            prefix=IDENTITY_PREFIX,
            admission=InternalAdmission(token),
            pages=None,
            limits=RequestLimits(body, bulk, None),
            clock=house.clock,
            new_request_id=lambda: "1",
            log=house.requests,
        )
        server = await listen(dispatcher, house.clock)
        server.house = house
        return server

    return serve_it


@pytest_twisted.async_yield_fixture
async def internal(serve_internal):
    yield await serve_internal()


def about(address="alice@example.org", mxid=ALICE, medium="email", **more):
    return {"medium": medium, "address": address, "mxid": mxid, **more}


def lines_of(*entries):
    return b"".join(
        (entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n" for entry in entries
    )


async def bulk(server, *entries, raw=None, **options):
    """The answer to each line."""
    wire = await server.connect()
    headers = [f"Content-Type: {NDJSON}", *options.get("headers", ())]
    wire.send(
        request("POST", PREFIX + BULK, body=lines_of(*entries) if raw is None else raw, headers=headers)
    )
    answer = await wire.answer()
    assert (answer.status, answer.headers["content-type"]) == (200, NDJSON)
    assert answer.body.endswith(b"\n") or not answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


async def bound(server, address="alice@example.org", medium=EMAIL):
    found = await server.house.db.read(association_rows.association, Threepid(medium, address))
    return None if found is None else found.mxid


async def told(server):
    """How many homeservers wait to be told, and of whom."""
    rows = await server.house.db.read(
        lambda tx: tx.rows("SELECT payload FROM outbox WHERE kind = 'onbind' ORDER BY outbox_id", ())
    )
    return [json.loads(payload)["mxid"] for (payload,) in rows]


# --- one at a time -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_bind_and_unbind(internal):
    first = await internal.ask("POST", BIND, about("Alice@EXAMPLE.org"))
    assert (first.status, first.json, await bound(internal)) == (200, {}, ALICE)
    assert await told(internal) == [ALICE]
    assert internal.house.woken == 1
    gone = await internal.ask("POST", UNBIND, about())
    assert (gone.status, gone.json, await bound(internal)) == (200, {}, None)


@pytest_twisted.ensureDeferred
async def test_what_is_bound_already_is_told_once(internal):
    for _ in range(3):
        assert (await internal.ask("POST", BIND, about())).status == 200

    assert await told(internal) == [ALICE]


@pytest_twisted.ensureDeferred
async def test_the_last_word_counts(internal):
    for mxid in (ALICE, BOB):
        await internal.ask("POST", BIND, about(mxid=mxid))

    assert await bound(internal) == BOB


@pytest_twisted.ensureDeferred
async def test_what_is_bound_to_another_user_stays(internal):
    await internal.ask("POST", BIND, about())
    other = await internal.ask("POST", UNBIND, about(mxid=BOB))
    nobody = await internal.ask("POST", UNBIND, about("nobody@example.org"))

    assert (other.status, nobody.status, await bound(internal)) == (200, 200, ALICE)


@pytest.mark.parametrize("address", ["447700900001", "+447700900001"])
@pytest_twisted.ensureDeferred
async def test_a_telephone_number(internal, address):
    assert (await internal.ask("POST", BIND, about(address, medium="msisdn"))).status == 200
    assert await bound(internal, "447700900001", MSISDN) == ALICE


BAD = [
    ({}, "M_MISSING_PARAMS", "medium, address, mxid"),
    ({"medium": "email", "mxid": ALICE}, "M_MISSING_PARAMS", "address"),
    (about(medium="fax"), "M_INVALID_PARAM", "medium"),
    (about("alice"), "M_INVALID_PARAM", "address"),
    (about("0770 0900001", medium="msisdn"), "M_INVALID_PARAM", "address"),
    (about(17), "M_INVALID_PARAM", "address"),
    (about(mxid="alice"), "M_INVALID_PARAM", "mxid"),
    (about(mxid=None), "M_INVALID_PARAM", "mxid"),
]


@pytest.mark.parametrize(("params", "errcode", "named"), BAD)
@pytest.mark.parametrize("path", [BIND, UNBIND])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_is_400(internal, path, params, errcode, named):
    answer = await internal.ask("POST", path, params)

    assert (answer.status, answer.errcode) == (400, errcode)
    assert named in answer.json["error"]
    assert await told(internal) == []


@pytest.mark.parametrize(("raw", "errcode"), [(b"{", "M_NOT_JSON"), (b"[]", "M_BAD_JSON")])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_json_object_is_400(internal, raw, errcode):
    answer = await internal.ask("POST", BIND, raw=raw)

    assert (answer.status, answer.errcode) == (400, errcode)


# --- in bulk -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_each_line_has_its_answer_in_order_and_a_bad_one_holds_up_no_other(internal):
    answers = await bulk(
        internal,
        about("a@example.org"),
        b"{",
        about("b@example.org", mxid="nobody"),
        about("b@example.org", action="bind"),
        b"[]",
        about("no address"),
        about("a@example.org", action="unbind"),
        about("c@example.org", action="explode"),
        b"\xff",
        {"medium": "email"},
        about("c@example.org", mxid=BOB, unknown=17),
    )

    assert [answer.get("errcode") for answer in answers] == [
        *(None, "M_NOT_JSON", "M_INVALID_PARAM", None, "M_BAD_JSON", "M_INVALID_PARAM", None),
        *("M_INVALID_PARAM", "M_NOT_JSON", "M_MISSING_PARAMS", None),
    ]
    assert all(answer == {} for answer in answers if "errcode" not in answer)
    assert all(answer["error"] for answer in answers if "errcode" in answer)
    assert [await bound(internal, f"{name}@example.org") for name in "abc"] == [None, ALICE, BOB]


@pytest_twisted.ensureDeferred
async def test_no_answer_repeats_an_address(internal):
    answers = await bulk(
        internal, about("canary@"), about("canary@example.org", mxid="canary"), about(medium="canary")
    )

    assert "canary" not in repr(answers)
    assert all("errcode" in answer for answer in answers)


@pytest_twisted.ensureDeferred
async def test_an_error_names_its_line_empty_ones_counted(internal):
    good, bad = (json.dumps(about(address)).encode() for address in ("a@example.org", "no address"))
    raw = b"\n".join([b"", bad, good, b" \r", b"{", *[good] * 120, bad])
    answers = await bulk(internal, raw=raw)

    assert [answer.get("line") for answer in answers] == [2, None, 5, *[None] * 120, 126]


@pytest.mark.parametrize("raw", [b"", b"\n", b"\r\n \n\n"])
@pytest_twisted.ensureDeferred
async def test_no_lines_have_no_answers(internal, raw):
    assert await bulk(internal, raw=raw) == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b""])
@pytest_twisted.ensureDeferred
async def test_lines_may_end_as_they_like_to(internal, end):
    raw = lines_of(about("a@example.org")) + json.dumps(about("b@example.org")).encode() + end

    assert await bulk(internal, raw=raw) == [{}, {}]
    assert await bound(internal, "b@example.org") == ALICE


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "text/plain", "application/x-www-form-urlencoded"]
)
@pytest_twisted.ensureDeferred
async def test_the_content_type_does_not_matter(internal, content_type):
    answer = await internal.ask(
        "POST", BULK, raw=lines_of(about())[:-1], headers=[f"Content-Type: {content_type}", "Accept: */*"]
    )

    assert answer.body == b"{}\n"


@pytest_twisted.ensureDeferred
async def test_thousands_of_lines(internal):
    """Many transactions' worth: all of it is there, in order, and so is what each homeserver must hear."""
    number = 5000
    entries = [about(f"user{n}@example.org", f"@user{n}:hs{n % 7}.example.org") for n in range(number)]
    entries[1234] = b"nonsense"
    answers = await bulk(internal, *entries)

    assert [n for n, answer in enumerate(answers) if answer] == [1234]
    assert len(answers) == number
    count = await internal.house.db.read(lambda tx: tx.row("SELECT count(*) FROM associations", ()))
    assert count == (number - 1,)
    assert len(await told(internal)) == number - 1
    again = await bulk(internal, *entries)
    assert again == answers
    assert len(await told(internal)) == number - 1


@pytest_twisted.ensureDeferred
async def test_others_are_answered_in_between(internal):
    """A long list does not hold up those who come after it."""
    entries = [about(f"user{n}@example.org") for n in range(3000)]
    wire = await internal.connect()
    wire.send(request("POST", PREFIX + BULK, body=lines_of(*entries)))
    await internal.ask("POST", BIND, about("quick@example.org"))

    assert not wire.received
    assert len((await wire.answer()).body.splitlines()) == 3000


class FailingOnce:
    """Cannot do the second batch."""

    def __init__(self, error):
        self.error = error
        self.calls = 0

    async def provision(self, wanted):
        self.calls += 1
        if self.calls == 2:
            raise self.error


@pytest_twisted.ensureDeferred
async def test_lines_that_the_database_has_no_time_for_say_so(serve_internal):
    busy = Busy("The server is busy: try again soon", 2000)
    server = await serve_internal(associations=FailingOnce(busy))
    answers = await bulk(server, *[about(f"user{n}@example.org") for n in range(250)], b"{")

    assert [n for n, answer in enumerate(answers) if answer] == [*range(100, 200), 250]
    assert answers[150] == {
        "line": 151,
        "errcode": "M_UNKNOWN",
        "error": "The server is busy: try again soon",
        "retry_after_ms": 2000,
    }
    assert answers[250]["errcode"] == "M_NOT_JSON"


@pytest_twisted.ensureDeferred
async def test_what_was_done_is_told_even_when_something_breaks(serve_internal, failures):
    server = await serve_internal(associations=FailingOnce(RuntimeError("canary")))
    answers = await bulk(server, *[about(f"user{n}@example.org") for n in range(250)])

    assert [n for n, answer in enumerate(answers) if answer] == list(range(100, 200))
    assert answers[150]["errcode"] == "M_UNKNOWN"
    assert "canary" not in repr(answers)
    ((_, failure),) = failures
    failures.clear()
    assert failure.check(RuntimeError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
entries = st.one_of(
    st.fixed_dictionaries(
        {
            "medium": st.sampled_from(["email", "msisdn", "x"]) | json_values,
            "address": st.sampled_from(["a@b.org", "447700900001"]) | json_values,
            "mxid": st.just(ALICE) | json_values,
        },
        optional={"action": st.sampled_from(["bind", "unbind"]) | json_values},
    ).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, max_size=8))
@pytest_twisted.ensureDeferred
async def test_whatever_stands_in_the_lines_each_has_one_answer(internal, wanted):
    answers = await bulk(internal, *wanted)

    assert len(answers) == len([line for line in wanted if line.strip()])


# --- who may ask ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [BIND, UNBIND, BULK])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        "Bearer open",
        "Bearer",
        "Basic open sesame",
        "Bearer \xff",
        TOKEN,
    ],
)
@pytest_twisted.ensureDeferred
async def test_without_the_token_it_is_401_before_the_body(serve_internal, path, authorization):
    server = await serve_internal(token=TOKEN)
    wire = await server.connect()
    headers = [f"Authorization: {authorization}"] if authorization else []
    wire.send(request("POST", PREFIX + path, headers=headers, length=1000))
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")
    assert answer.headers["connection"] == "close"


@pytest_twisted.ensureDeferred
async def test_with_the_token_it_is_done(serve_internal):
    server = await serve_internal(token=TOKEN)

    assert (await server.ask("POST", BIND, about(), token=TOKEN)).status == 200
    assert await bulk(server, about(), headers=[f"Authorization: bearer {TOKEN}"]) == [{}]


@pytest_twisted.ensureDeferred
async def test_the_token_does_not_count_in_the_query(serve_internal):
    server = await serve_internal(token=TOKEN)

    assert (await server.ask("POST", BIND, about(), query={"access_token": TOKEN})).status == 401


@pytest_twisted.ensureDeferred
async def test_a_token_of_an_account_is_none_of_these(serve_internal):
    server = await serve_internal(token=TOKEN)

    assert (await server.ask("POST", BIND, about(), token=await server.house.token())).status == 401


@pytest.mark.parametrize("path", [BIND, UNBIND, BULK])
@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1:8091"])
@pytest_twisted.ensureDeferred
async def test_a_web_page_is_forbidden_even_with_the_token(serve_internal, path, token, origin):
    """A browser on this machine lets any page post to a loopback address, without a preflight even."""
    server = await serve_internal(token=token)
    headers = [f"Origin: {origin}", "Content-Type: text/plain"]
    answer = await server.ask("POST", path, raw=lines_of(about()), headers=headers, token=token)

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert await bound(server) is None


# --- what else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("path", [BIND, UNBIND, BULK])
@pytest_twisted.ensureDeferred
async def test_the_public_listener_has_none_of_it(server, path, method):
    answer = await server.ask(method, path, about())

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    "path", ["v2", "versions", "v2/account/register", "api/v1", "/metrics", "/", "internal"]
)
@pytest_twisted.ensureDeferred
async def test_the_internal_listener_has_nothing_else(internal, path):
    answer = await internal.ask("GET", path)

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")


@pytest_twisted.ensureDeferred
async def test_another_method_is_405(internal):
    answer = await internal.ask("GET", BULK)

    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")


@pytest_twisted.ensureDeferred
async def test_bodies_have_limits_and_that_of_bulk_is_larger(serve_internal):
    server = await serve_internal(body=1000, bulk=5000)
    line = lines_of(about())
    wire = await server.connect()
    wire.send(request("POST", PREFIX + BIND, length=1001))
    one = await wire.answer()
    wire = await server.connect()
    wire.send(request("POST", PREFIX + BULK, length=5001))
    many = await wire.answer()

    assert (one.status, one.errcode) == (many.status, many.errcode) == (413, "M_TOO_LARGE")
    assert await bulk(server, raw=line * (5000 // len(line))) == [{}] * (5000 // len(line))


@pytest_twisted.ensureDeferred
async def test_a_body_of_many_megabytes(internal):
    padding = "x" * 1_000_000
    answers = await bulk(internal, *[about(f"user{n}@example.org", padding=padding) for n in range(8)])

    assert answers == [{}] * 8
