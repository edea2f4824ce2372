"""Whatever anybody sends: it is never our fault."""

import json

import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web import rows
from web.rows import PROOF, ROWS, SAMPLES, key, path

NAMES = sorted({field for sample in SAMPLES.values() for field in sample} | {"next_link", "access_token"})
texts = st.text(max_size=40) | st.sampled_from(
    [
        "alice@example.org",
        "@a:b",
        "ed25519:0",
        "sha256",
        "none",
        "email",
        "1",
        "\0",
        "%",
        "a@b\0.org",
        "\uff20",
        "ß@ß.de",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["medium", "address"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.sampled_from(ROWS), data=st.data())
@pytest_twisted.ensureDeferred
async def test_nothing_that_is_sent_makes_a_server_error(server, row, data):
    server.house.proofs.origins = {PROOF.encode(): "hs.example.org"}
    sample = SAMPLES.get(key(row), {})
    changes = data.draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=3))
    raw = data.draw(
        st.one_of(
            st.just(json.dumps({**sample, **changes}).encode()),
            values.map(lambda value: json.dumps(value).encode()),
            st.binary(max_size=60),
        )
    )
    given_query = st.dictionaries(st.sampled_from(NAMES) | texts, texts, max_size=4)
    odd = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30)
    query = data.draw(given_query.map(lambda params: {**sample, **params}) | odd)
    content_type = data.draw(
        st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "", ";;"])
    )

    odd_headers = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["X-Forwarded-For", "Accept-Language", "Authorization"]), odd),
            max_size=3,
        )
    )
    signed = data.draw(st.booleans())
    headers = [f"Content-Type: {content_type}", *(f"{name}: {value}" for name, value in odd_headers)]
    answer = await server.ask(
        row.method,
        path(row),
        raw=raw,
        query=query,
        token=await server.house.token() if rows.needs_token(row) and not signed else None,
        headers=[*headers, f"Authorization: {PROOF}"] if signed else headers,
    )
    assert answer.status < 500
