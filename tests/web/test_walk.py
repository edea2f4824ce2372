"""Every public route, asked in every wrong way."""

import json

import pytest
import pytest_twisted
from web import rows
from web.conftest import TERMS
from web.rows import ROWS, SAMPLES, WITHOUT_PARAMS, key, name, path, required
from web.wire import PREFIX, chunked, request

from sydentish.web import models

every_row = pytest.mark.parametrize("row", ROWS, ids=name)
token_rows = pytest.mark.parametrize("row", [row for row in ROWS if rows.needs_token(row)], ids=name)
terms_rows = pytest.mark.parametrize("row", [row for row in ROWS if rows.needs_terms(row)], ids=name)
body_rows = pytest.mark.parametrize("row", [row for row in ROWS if rows.reads_body(row)], ids=name)
fields = pytest.mark.parametrize(
    ("row", "field"),
    [(row, field) for row in ROWS if key(row) in SAMPLES for field in required(row)],
    ids=lambda value: value if isinstance(value, str) else name(value),
)


async def token_for(server, row):
    return await server.house.token() if rows.needs_token(row) else None


def test_every_row_is_walked():
    assert {key(row) for row in ROWS} == set(SAMPLES) | WITHOUT_PARAMS
    for row in ROWS:
        assert (key(row) in WITHOUT_PARAMS) == (row.model in {models.Nothing, models.KeyReference})


@every_row
@pytest_twisted.ensureDeferred
async def test_options_needs_no_token_and_does_nothing(server, row):
    answer = await server.ask("OPTIONS", path(row))

    assert answer.status == 200
    assert answer.json == {}
    assert server.house.sender.mails == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.method == "GET"], ids=name)
@pytest_twisted.ensureDeferred
async def test_head_is_answered_as_get_without_a_body(server, row):
    token = await token_for(server, row)
    query = SAMPLES.get(key(row))
    get = await server.ask("GET", path(row), query=query, token=token)
    wire = await server.connect()
    head = await server.ask("HEAD", path(row), query=query, token=token, wire=wire)
    after = await server.ask("GET", "v2", wire=wire)

    assert after.status == 200  # what would have been a body would be read as this answer
    assert head.body == b""
    if row.page is None:  # pages have a HEAD of their own, which does nothing
        assert head.status == get.status
        assert head.headers["content-length"] == str(len(get.body))
    assert head.headers["content-type"] == get.headers["content-type"]


@token_rows
@pytest_twisted.ensureDeferred
async def test_without_a_token_the_answer_comes_before_the_body(server, row):
    wire = await server.connect()
    wire.send(request(row.method, PREFIX + path(row), length=500))
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")
    assert answer.headers["connection"] == "close"


@token_rows
@pytest_twisted.ensureDeferred
async def test_an_unknown_token_is_refused(server, row):
    answer = await server.ask(
        row.method, path(row), token="wrong", **rows.request_of(row, SAMPLES.get(key(row), {}))
    )

    expected = "M_UNKNOWN_TOKEN" if row.path == "v2/account/logout" else "M_UNAUTHORIZED"
    assert (answer.status, answer.errcode) == (401, expected)


@terms_rows
@pytest_twisted.ensureDeferred
async def test_terms_must_be_signed_where_the_row_says_so(serve, row):
    server = await serve(terms=TERMS)
    answer = await server.ask(
        row.method,
        path(row),
        token=await server.house.token(),
        **rows.request_of(row, SAMPLES.get(key(row), {})),
    )

    assert (answer.status, answer.errcode) == (403, "M_TERMS_NOT_SIGNED")


@pytest.mark.parametrize("row", [row for row in ROWS if not rows.needs_terms(row)], ids=name)
@pytest_twisted.ensureDeferred
async def test_other_rows_do_not_ask_for_terms(serve, row):
    server = await serve(terms=TERMS)
    answer = await server.ask(
        row.method,
        path(row),
        token=await server.house.token(),
        **rows.request_of(row, SAMPLES.get(key(row), {})),
    )

    assert b"TERMS" not in answer.body


@every_row
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "FOO", "get"])
@pytest_twisted.ensureDeferred
async def test_a_wrong_method_is_405_and_names_the_right_ones(server, row, method):
    answer = await server.ask(method, path(row))

    assert (answer.status, answer.errcode) == (405, "M_UNRECOGNIZED")
    allowed = answer.headers["allow"].split(", ")
    assert {row.method, "OPTIONS"} <= set(allowed)
    for other in allowed:
        assert (await server.ask(other, path(row))).status != 405


def refused(answer, errcode, *named):
    """Whether it is a 400 with that code that names the fields; on a page, people are told something simpler."""
    assert answer.status == 400
    if answer.headers["content-type"] == "application/json":
        assert answer.errcode == errcode
        for field in named:
            assert field in answer.json["error"]


@body_rows
@pytest.mark.parametrize(
    ("raw", "errcode"),
    [
        (b"{", "M_NOT_JSON"),
        (b"nothing", "M_NOT_JSON"),
        (b"  ", "M_NOT_JSON"),
        (b'{"a": NaN}', "M_NOT_JSON"),
        (b"{'a': 1}", "M_NOT_JSON"),
        (b'{"a": 1,}', "M_NOT_JSON"),
        (b"\xef\xbb\xbf{}", "M_NOT_JSON"),
        (b'{"a": "\xff"}', "M_NOT_JSON"),
        (b'{"a": "\xed\xa0\x80"}', "M_NOT_JSON"),
        (rb'{"a": "\ud800"}', "M_NOT_JSON"),
        (b'{"a": 1e999}', "M_NOT_JSON"),
        (b'{"a":' * 10_000, "M_NOT_JSON"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "M_NOT_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"null", "M_BAD_JSON"),
        (b'"text"', "M_BAD_JSON"),
        (b"17", "M_BAD_JSON"),
        (b"", "M_MISSING_PARAMS"),
        (b"{}", "M_MISSING_PARAMS"),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_json_object_is_400(server, row, raw, errcode):
    answer = await server.ask(row.method, path(row), raw=raw, token=await token_for(server, row))

    refused(answer, errcode)


@fields
@pytest_twisted.ensureDeferred
async def test_a_missing_field_is_named(server, row, field):
    params = {name: value for name, value in SAMPLES[key(row)].items() if name != field}
    answer = await server.ask(
        row.method, path(row), token=await token_for(server, row), **rows.request_of(row, params)
    )

    refused(answer, "M_MISSING_PARAMS", field)


@pytest.mark.parametrize("row", [row for row in ROWS if key(row) in SAMPLES], ids=name)
@pytest_twisted.ensureDeferred
async def test_all_missing_fields_are_named_at_once(server, row):
    answer = await server.ask(
        row.method, path(row), token=await token_for(server, row), **rows.request_of(row, {"unknown": "x"})
    )

    refused(answer, "M_MISSING_PARAMS", *required(row))


WRONG = [None, True, 17, -1.5, 2**70, 1e300, [], [[]], [17], ["a", None], {}, {"a": {}}]


@pytest.mark.parametrize(
    ("row", "field"),
    [(row, field) for row in ROWS if rows.reads_body(row) for field in required(row)],
    ids=lambda value: value if isinstance(value, str) else name(value),
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_type_is_400_and_the_field_is_named(server, row, field):
    token = await token_for(server, row)
    good = SAMPLES[key(row)][field]
    wrong = [value for value in WRONG if not isinstance(value, type(good)) or isinstance(value, bool)]
    if isinstance(good, list):
        wrong = [*wrong, [[]], [17], ["a", None]]
    if field == "expires_in":
        wrong = [value for value in wrong if isinstance(value, bool) or not isinstance(value, int | float)]
    wire = await server.connect()
    for value in wrong:
        params = {**SAMPLES[key(row)], field: value}
        answer = await server.ask(row.method, path(row), params, token=token, wire=wire)

        nested = field == "threepid" and isinstance(value, dict)
        refused(answer, "M_MISSING_PARAMS" if nested else "M_INVALID_PARAM", field)


@body_rows
@pytest_twisted.ensureDeferred
async def test_of_two_keys_with_one_name_the_last_counts(server, row):
    field = required(row)[0]
    raw = json.dumps(SAMPLES[key(row)])[:-1].encode() + b', "%b": false}' % field.encode()
    answer = await server.ask(row.method, path(row), raw=raw, token=await token_for(server, row))

    refused(answer, "M_INVALID_PARAM")


@every_row
@pytest.mark.parametrize("in_chunks", [False, True], ids=["announced", "in chunks"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_413(server, row, in_chunks):
    size = (4 * 1024 * 1024 if row.large else 65536) + 1
    token = await token_for(server, row)
    wire = await server.connect()
    headers = ([f"Authorization: Bearer {token}"] if token else []) + (
        ["Transfer-Encoding: chunked"] if in_chunks else []
    )
    wire.send(request(row.method, PREFIX + path(row), headers=headers, length=None if in_chunks else size))
    if in_chunks:
        wire.send(chunked(b" " * size))
    answer = await wire.answer(row.method)

    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    if row.method != "HEAD" and not row.page:
        assert answer.errcode == "M_TOO_LARGE"


@every_row
@pytest_twisted.ensureDeferred
async def test_a_body_that_nobody_asked_for_is_ignored(server, row):
    if rows.may_read_body(row):
        return
    token = await token_for(server, row)
    query = SAMPLES.get(key(row))
    without = await server.ask(row.method, path(row), query=query, token=token)
    if row.path == "v2/account/logout":
        token = await token_for(server, row)
    with_body = await server.ask(row.method, path(row), query=query, token=token, raw=b"\xff{")

    assert (with_body.status, with_body.body) == (without.status, without.body)
