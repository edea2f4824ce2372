"""The one table from domain errors to answers."""

import inspect
import json

import pytest

from sydentish.domain import errors
from sydentish.domain.errors import IdentityError
from sydentish.web.errors import (
    STATUS_AND_ERRCODE,
    errcode_of,
    error_headers,
    error_reply,
    internal_error_reply,
    status_of,
)

EVERY = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, IdentityError) and found is not IdentityError
]
MADE = {
    errors.InvalidParam: lambda: errors.InvalidParam("sid", "must be there"),
    errors.MethodNotAllowed: lambda: errors.MethodNotAllowed("no", ("GET", "HEAD")),
    errors.UnbindProofFailed: lambda: errors.UnbindProofFailed(errors.SessionExpired("too old")),
    errors.VerificationFailed: lambda: errors.VerificationFailed("not signed", ("12", "17")),
    errors.InvalidPepper: lambda: errors.InvalidPepper("sha256", "new"),
    errors.Busy: lambda: errors.Busy("later", 1001),
    errors.KeysUnavailable: lambda: errors.KeysUnavailable("later", 1001),
    errors.LimitExceeded: lambda: errors.LimitExceeded("later", 1001),
}

TRY_LATER = [errors.Busy, errors.KeysUnavailable, errors.LimitExceeded]


def made(kind):
    return MADE.get(kind, lambda: kind("a message"))()


def test_every_error_stands_in_the_table_and_nothing_else():
    assert set(STATUS_AND_ERRCODE) == set(EVERY)


@pytest.mark.parametrize("kind", EVERY)
def test_an_error_becomes_a_matrix_error(kind):
    error = made(kind)
    reply = error_reply(error)

    assert reply.status == status_of(error)
    assert 400 <= reply.status <= 504
    assert reply.content_type == b"application/json"
    assert error.message.encode() in reply.body
    assert b'"errcode":"%b"' % errcode_of(error).encode() in reply.body
    assert errcode_of(error).startswith("M_")


@pytest.mark.parametrize("kind", [errors.NoValidSession, errors.SessionExpired, errors.SessionNotValidated])
def test_a_proof_that_fails_is_403_with_the_code_of_its_cause(kind):
    error = errors.UnbindProofFailed(kind("a message"))

    assert status_of(error) == 403
    assert errcode_of(error) == errcode_of(error.cause)


@pytest.mark.parametrize("kind", TRY_LATER)
@pytest.mark.parametrize(("ms", "seconds"), [(1, b"1"), (1000, b"1"), (1001, b"2"), (60_000, b"60")])
def test_retry_after_is_in_the_body_and_rounded_up_to_seconds_in_the_head(kind, ms, seconds):
    error = kind("later", ms)

    assert error_headers(error) == ((b"Retry-After", seconds),)
    assert error_reply(error).headers == ((b"Retry-After", seconds),)
    assert json.loads(error_reply(error).body)["retry_after_ms"] == ms


def test_whom_the_address_belongs_to_is_told():
    body = json.loads(error_reply(errors.ThreepidInUse("@alice:hs.example.org")).body)

    assert (body["errcode"], body["mxid"]) == ("M_THREEPID_IN_USE", "@alice:hs.example.org")


def test_what_a_peer_has_pushed_in_vain_is_told():
    body = json.loads(error_reply(made(errors.VerificationFailed)).body)

    assert body == {"errcode": "M_VERIFICATION_FAILED", "error": "not signed", "failed_ids": ["12", "17"]}


def test_what_is_allowed_is_a_header():
    assert error_headers(made(errors.MethodNotAllowed)) == ((b"Allow", b"GET, HEAD"),)


@pytest.mark.parametrize(
    "kind", [kind for kind in EVERY if kind not in {*TRY_LATER, errors.MethodNotAllowed}]
)
def test_other_errors_add_no_header(kind):
    assert error_headers(made(kind)) == ()


def test_our_own_mistake_tells_only_the_request_id():
    reply = internal_error_reply("abc")

    assert reply.status == 500
    assert reply.body == (
        b'{"errcode":"M_UNKNOWN","error":"Internal server error; the server\'s log knows more about request abc"}'
    )
