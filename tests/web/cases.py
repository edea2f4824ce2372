"""Every endpoint with every answer that the specification, or the design, documents for it.

A case is asked in a `World`: two users, and sessions in every state.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fixtures import DAY_MS, public_key_bytes
from unpaddedbase64 import encode_base64

from sydentish.actions.accounts import Caller
from sydentish.actions.validation import Credentials, TokenRequest
from sydentish.domain.errors import HomeserverError, HomeserverTimeout
from sydentish.domain.lookup import hash_address
from sydentish.domain.threepids import EMAIL, Threepid

ALICE = "@alice:hs.example.org"
SECRET = "monkeys_are_GREAT"
BOUND = "bound@example.org"
PROVED = "proved@example.org"
PUBLIC_KEY = encode_base64(public_key_bytes())


@dataclass
class World:
    """What a case can talk about."""

    server: Any
    token: str
    sessions: dict[str, Credentials] = field(default_factory=dict)
    mail_token: str = ""
    pepper: str = ""

    def session(self, state):
        found = self.sessions[state]
        return {"sid": found.sid, "client_secret": found.client_secret}

    def address_hash(self, address):
        return hash_address(Threepid(EMAIL, address), self.pepper)


async def make_world(serve, **options):
    server = await serve(**options)
    house = server.house
    caller = Caller(await house.token(ALICE), needs_terms=False)
    world = World(server, caller.token)
    world.sessions["expired"] = await house.prove(caller, "old@example.org", SECRET)
    house.advance(DAY_MS + 1)
    world.sessions["bound"] = await house.prove(caller, BOUND, SECRET)
    await house.associations.bind(caller, world.sessions["bound"], ALICE)
    world.sessions["proved"] = await house.prove(caller, PROVED, SECRET)
    request = TokenRequest(Threepid(EMAIL, "pending@example.org"), SECRET, 1, None)
    world.sessions["pending"] = Credentials(await house.validation.request_token(caller, request), SECRET)
    world.mail_token = house.sender.last_token()
    known = world.sessions["proved"]
    world.sessions["unknown"] = Credentials("unknown", SECRET)
    world.sessions["other secret"] = Credentials(known.sid, "wrong")
    world.pepper = (await house.lookup.hash_details(caller))["lookup_pepper"]
    house.verifier.tokens |= {
        "good": ALICE,
        "down": HomeserverError("The homeserver cannot be reached"),
        "slow": HomeserverTimeout("The homeserver did not answer in time"),
    }
    return world


@dataclass(frozen=True)
class Case:
    """One request and its answer.

    Attributes:
        params: makes the parameters from the world.
        token: whether alice's token is sent.
        answer: the body of a good answer, or a function that checks it.
        prepare: what happens to the house before.
    """

    name: str
    method: str
    path: str
    status: int = 200
    errcode: str | None = None
    params: Callable[[World], dict] | None = None
    token: bool = True
    answer: Any = None
    prepare: Callable[[Any], None] = lambda _house: None

    def __str__(self):
        return f"{self.method} {self.path}: {self.name}"

    async def ask(self, world):
        self.prepare(world.server.house)
        params = self.params(world) if self.params else None
        where = {"query": params} if self.method == "GET" else {"params": params}
        token = world.token if self.token else None
        return await world.server.ask(self.method, self.path, token=token, **where)


def _openid(token="good", **changes):
    return lambda _world: (
        {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": "hs.example.org",
            "expires_in": 3600,
        }
        | changes
    )


def _mail(**changes):
    return lambda _world: {"client_secret": "s3cret", "email": "new@example.org", "send_attempt": 1} | changes


def _session(state, **more):
    return lambda world: (
        world.session(state)
        | {name: value(world) if callable(value) else value for name, value in more.items()}
    )


def _unbind(state, address=BOUND, mxid=ALICE, medium="email"):
    return _session(state, mxid=mxid, threepid={"medium": medium, "address": address})


def _lookup(algorithm="sha256", addresses=lambda _world: [], **changes):
    return lambda world: (
        {
            "algorithm": algorithm,
            "pepper": world.pepper,
            "addresses": addresses(world),
        }
        | changes
    )


def _keys(*names):
    return lambda body, _world: set(body) == set(names)


def _fail_mails(house):
    house.sender.failing = True


REGISTER, TERMS, LOOKUP = "v2/account/register", "v2/terms", "v2/lookup"
REQUEST, SUBMIT = "v2/validate/email/requestToken", "v2/validate/email/submitToken"
VALIDATED, BIND, UNBIND = "v2/3pid/getValidated3pid", "v2/3pid/bind", "v2/3pid/unbind"
VALID, EPHEMERAL = "v2/pubkey/isvalid", "v2/pubkey/ephemeral/isvalid"
_token = lambda world: world.mail_token  # noqa: E731 - a parameter that is known in a world

CASES = [
    Case("all", "GET", "versions", token=False, answer={"versions": [f"v1.{n}" for n in range(1, 20)]}),
    Case("alive", "GET", "v2", token=False, answer={}),
    Case("ok", "POST", REGISTER, params=_openid(), token=False, answer=_keys("token", "access_token")),
    Case("refused", "POST", REGISTER, 401, "M_UNAUTHORIZED", _openid("bad"), token=False),
    Case("down", "POST", REGISTER, 502, "M_UNKNOWN", _openid("down"), token=False),
    Case("slow", "POST", REGISTER, 504, "M_UNKNOWN", _openid("slow"), token=False),
    Case("empty", "POST", REGISTER, 400, "M_INVALID_PARAM", _openid(""), token=False),
    Case("control", "POST", REGISTER, 400, "M_INVALID_PARAM", _openid("a\nb"), token=False),
    Case("name", "POST", REGISTER, 400, "M_INVALID_PARAM", _openid(matrix_server_name="a/b"), token=False),
    Case("ok", "GET", "v2/account", answer={"user_id": ALICE}),
    Case("no token", "GET", "v2/account", 401, "M_UNAUTHORIZED", token=False),
    Case("ok", "POST", "v2/account/logout", answer={}),
    Case("no token", "POST", "v2/account/logout", 401, "M_UNAUTHORIZED", token=False),
    Case("none", "GET", TERMS, token=False, answer={"policies": {}}),
    Case("unknown URL", "POST", TERMS, params=lambda _world: {"user_accepts": ["x"]}, answer={}),
    Case("nothing", "POST", TERMS, params=lambda _world: {"user_accepts": []}, answer={}),
    Case("no token", "POST", TERMS, 401, "M_UNAUTHORIZED", token=False),
    Case(
        "ok",
        "GET",
        "v2/hash_details",
        answer=lambda body, world: body == {"algorithms": ["sha256", "none"], "lookup_pepper": world.pepper},
    ),
    Case("nobody", "POST", LOOKUP, params=_lookup(), answer={"mappings": {}}),
    Case(
        "somebody",
        "POST",
        LOOKUP,
        params=_lookup(addresses=lambda world: [world.address_hash(BOUND), world.address_hash(PROVED)]),
        answer=lambda body, world: body == {"mappings": {world.address_hash(BOUND): ALICE}},
    ),
    Case(
        "in the clear",
        "POST",
        LOOKUP,
        params=_lookup("none", lambda _world: [f"{BOUND} email", f"{PROVED} email", BOUND, "", " ", "a b c"]),
        answer={"mappings": {f"{BOUND} email": ALICE}},
    ),
    Case(
        "a NUL does not end an address",
        "POST",
        LOOKUP,
        params=_lookup(addresses=lambda world: [world.address_hash(BOUND) + "\0"]),
        answer={"mappings": {}},
    ),
    Case("pepper", "POST", LOOKUP, 400, "M_INVALID_PEPPER", _lookup(pepper="old")),
    Case("pepper, in the clear", "POST", LOOKUP, 400, "M_INVALID_PEPPER", _lookup("none", pepper="old")),
    Case("algorithm", "POST", LOOKUP, 400, "M_INVALID_PARAM", _lookup("md5")),
    Case(
        "too many", "POST", LOOKUP, 400, "M_INVALID_PARAM", _lookup(addresses=lambda _world: ["a"] * 10_001)
    ),
    Case("ok", "POST", REQUEST, params=_mail(), answer=_keys("sid")),
    Case("attempt as text", "POST", REQUEST, params=_mail(send_attempt="1"), answer=_keys("sid")),
    Case(
        "next_link", "POST", REQUEST, params=_mail(next_link="https://app.example.org/"), answer=_keys("sid")
    ),
    Case("null next_link", "POST", REQUEST, params=_mail(next_link=None), answer=_keys("sid")),
    Case("javascript", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(next_link="javascript:alert(1)")),
    Case("file", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(next_link="file:///etc/passwd")),
    Case("relative", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(next_link="//evil.example.org")),
    Case(
        "line break", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(next_link="https://a\r\nSet-Cookie: b")
    ),
    Case("no mail address", "POST", REQUEST, 400, "M_INVALID_EMAIL", _mail(email="alice")),
    Case("two @", "POST", REQUEST, 400, "M_INVALID_EMAIL", _mail(email="a@b@example.org")),
    Case("line break", "POST", REQUEST, 400, "M_INVALID_EMAIL", _mail(email="a@example.org\r\nBcc: b@c.d")),
    Case("relay", "POST", REQUEST, 400, "M_EMAIL_SEND_ERROR", _mail(), prepare=_fail_mails),
    Case("secret", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(client_secret="a b")),
    Case("empty secret", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(client_secret="")),
    Case("long secret", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(client_secret="a" * 256)),
    Case("attempt", "POST", REQUEST, 400, "M_INVALID_PARAM", _mail(send_attempt=-1)),
    Case("ok", "POST", SUBMIT, params=_session("pending", token=_token), answer={"success": True}),
    Case("token", "POST", SUBMIT, 400, "M_TOKEN_INCORRECT", _session("pending", token="wrong")),
    Case("expired", "POST", SUBMIT, 400, "M_SESSION_EXPIRED", _session("expired", token="any")),
    Case("sid", "POST", SUBMIT, 400, "M_INVALID_PARAM", _session("pending", token=_token, sid="a/b")),
    Case("no token", "POST", SUBMIT, 401, "M_UNAUTHORIZED", token=False),
    Case("unknown sid", "POST", SUBMIT, 404, "M_NO_VALID_SESSION", _session("unknown", token="any")),
    Case("other secret", "POST", SUBMIT, 404, "M_NO_VALID_SESSION", _session("other secret", token="any")),
    Case(
        "ok",
        "GET",
        VALIDATED,
        params=_session("proved"),
        answer=lambda body, world: (
            body == {"medium": "email", "address": PROVED, "validated_at": world.server.house.now_ms()}
        ),
    ),
    Case("pending", "GET", VALIDATED, 400, "M_SESSION_NOT_VALIDATED", _session("pending")),
    Case("expired", "GET", VALIDATED, 400, "M_SESSION_EXPIRED", _session("expired")),
    Case("unknown sid", "GET", VALIDATED, 404, "M_NO_VALID_SESSION", _session("unknown")),
    Case("other secret", "GET", VALIDATED, 404, "M_NO_VALID_SESSION", _session("other secret")),
    Case(
        "ok",
        "POST",
        BIND,
        params=_session("proved", mxid=ALICE),
        answer=_keys("address", "medium", "mxid", "not_before", "not_after", "ts", "signatures"),
    ),
    Case("pending", "POST", BIND, 400, "M_SESSION_NOT_VALIDATED", _session("pending", mxid=ALICE)),
    Case("expired", "POST", BIND, 400, "M_SESSION_EXPIRED", _session("expired", mxid=ALICE)),
    Case("mxid", "POST", BIND, 400, "M_INVALID_PARAM", _session("proved", mxid="alice")),
    Case("not you", "POST", BIND, 403, "M_UNAUTHORIZED", _session("proved", mxid="@bob:hs.example.org")),
    Case("unknown sid", "POST", BIND, 404, "M_NO_VALID_SESSION", _session("unknown", mxid=ALICE)),
    Case("other secret", "POST", BIND, 404, "M_NO_VALID_SESSION", _session("other secret", mxid=ALICE)),
    Case("ok", "POST", UNBIND, params=_unbind("bound"), answer={}),
    Case("not bound", "POST", UNBIND, params=_unbind("proved", PROVED), answer={}),
    Case("another user's", "POST", UNBIND, params=_unbind("bound", mxid="@bob:a.org"), answer={}),
    Case("unknown sid", "POST", UNBIND, 403, "M_NO_VALID_SESSION", _unbind("unknown")),
    Case("other secret", "POST", UNBIND, 403, "M_NO_VALID_SESSION", _unbind("other secret")),
    Case("pending", "POST", UNBIND, 403, "M_SESSION_NOT_VALIDATED", _unbind("pending")),
    Case("expired", "POST", UNBIND, 403, "M_SESSION_EXPIRED", _unbind("expired")),
    Case("another address", "POST", UNBIND, 403, "M_FORBIDDEN", _unbind("bound", PROVED)),
    Case("another medium", "POST", UNBIND, 403, "M_FORBIDDEN", _unbind("bound", medium="msisdn")),
    Case("no address", "POST", UNBIND, 403, "M_FORBIDDEN", _unbind("bound", "nothing")),
    Case(
        "no proof",
        "POST",
        UNBIND,
        403,
        "M_FORBIDDEN",
        lambda _world: {"mxid": ALICE, "threepid": {"medium": "email", "address": BOUND}},
    ),
    Case("ours", "GET", "v2/pubkey/ed25519:0", token=False, answer={"public_key": PUBLIC_KEY}),
    Case("encoded", "GET", "v2/pubkey/ed25519%3A0", token=False, answer={"public_key": PUBLIC_KEY}),
    Case("unknown", "GET", "v2/pubkey/ed25519:1", 404, "M_NOT_FOUND", token=False),
    Case("ours", "GET", VALID, params=lambda _world: {"public_key": PUBLIC_KEY}, answer={"valid": True}),
    Case("not ours", "GET", VALID, params=lambda _world: {"public_key": "A" * 43}, answer={"valid": False}),
    Case("no key", "GET", VALID, params=lambda _world: {"public_key": "?"}, answer={"valid": False}),
    Case(
        "not ours", "GET", EPHEMERAL, params=lambda _world: {"public_key": "A" * 43}, answer={"valid": False}
    ),
    Case("no key", "GET", EPHEMERAL, params=lambda _world: {"public_key": ""}, answer={"valid": False}),
]
