"""The endpoints of version 1: those of version 2 without an access token, and what only version 1 has."""

from dataclasses import replace

from web.cases import CASES
from web.rows import ALICE, V1_ROWS
from web.world import BOUND, PHONE, PROVED, Case

# What is refused only because an access token is asked for, or says who asks.
_OF_TOKENS = {"no token", "not you", "terms"}
_TWINS = {(row.method, row.path) for _, row in V1_ROWS if row.path != "api/v1/lookup"}
LOOKUP_ONE, LOOKUP_MANY = "api/v1/lookup", "api/v1/bulk_lookup"


def _v1(path):
    return path.replace("v2", "api/v1", 1)


def _asked(medium, address):
    return lambda _world: {"medium": medium, "address": address}


def _asked_many(*pairs):
    return lambda _world: {"threepids": [list(pair) for pair in pairs]}


def _signed(body, world):
    assert set(body) == {"address", "medium", "mxid", "not_before", "not_after", "ts", "signatures"}
    assert (body["medium"], body["address"], body["mxid"]) == ("email", BOUND, ALICE)
    return list(body["signatures"]["id.example.org"]) == ["ed25519:0"]


V1_CASES = [
    *(
        replace(case, path=_v1(case.path), token=False)
        for case in CASES
        if (case.method, _v1(case.path).replace("ed25519:1", "{key_id}").replace("ed25519:0", "{key_id}"))
        in _TWINS
        and case.name not in _OF_TOKENS
    ),
    Case("alive", "GET", "api/v1", token=False, answer={}),
    Case("somebody", "GET", LOOKUP_ONE, params=_asked("email", BOUND), token=False, answer=_signed),
    Case("case", "GET", LOOKUP_ONE, params=_asked("email", BOUND.upper()), token=False, answer=_signed),
    Case("nobody", "GET", LOOKUP_ONE, params=_asked("email", PROVED), token=False, answer={}),
    Case("telephone", "GET", LOOKUP_ONE, params=_asked("msisdn", PHONE), token=False, answer={}),
    Case("no address", "GET", LOOKUP_ONE, params=_asked("email", "bound"), token=False, answer={}),
    Case("medium", "GET", LOOKUP_ONE, params=_asked("carrier pigeon", BOUND), token=False, answer={}),
    Case("nothing", "GET", LOOKUP_ONE, 400, "M_MISSING_PARAMS", token=False),
    Case("nobody", "POST", LOOKUP_MANY, params=_asked_many(), token=False, answer={"threepids": []}),
    Case(
        "somebody",
        "POST",
        LOOKUP_MANY,
        params=_asked_many(("email", PROVED), ("email", BOUND), ("msisdn", PHONE), ("", "")),
        token=False,
        answer={"threepids": [["email", BOUND, ALICE]]},
    ),
    Case(
        "as it was asked for",
        "POST",
        LOOKUP_MANY,
        params=_asked_many(("email", BOUND.upper())),
        token=False,
        answer={"threepids": [["email", BOUND.upper(), ALICE]]},
    ),
    Case(
        "too many",
        "POST",
        LOOKUP_MANY,
        400,
        "M_INVALID_PARAM",
        _asked_many(*[("a", "b")] * 10_001),
        token=False,
    ),
    Case("one", "POST", LOOKUP_MANY, 400, "M_INVALID_PARAM", _asked_many(("email",)), token=False),
    Case("three", "POST", LOOKUP_MANY, 400, "M_INVALID_PARAM", _asked_many(("email", "a", "b")), token=False),
    Case("nothing", "POST", LOOKUP_MANY, 400, "M_MISSING_PARAMS", token=False),
]
