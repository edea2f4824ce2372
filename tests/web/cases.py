"""Every endpoint with every answer that the specification, or the design, documents for it.

A case is asked in a `World`. Those of version 1 are in `cases_v1`.
"""

from dataclasses import replace

from fixtures import DAY_MS, INVITES, public_key_bytes
from unpaddedbase64 import decode_base64, encode_base64
from web.conftest import TERMS as POLICIES
from web.rows import ALICE, ROWS, needs_terms
from web.world import BOUND, INVITED, PHONE, PROVED, ROOM, Case

from sydentish.domain.invites import InvitePolicy

PUBLIC_KEY = encode_base64(public_key_bytes())


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


def _fail_codes(house):
    house.codes.failing = True


def _reject_codes(house):
    house.codes.rejected = frozenset({"GB"})


def _wait_for_ever(house):
    house.advance(91 * DAY_MS)


def _standard(key):
    return encode_base64(decode_base64(key))


def _url_safe(key):
    return encode_base64(decode_base64(key), urlsafe=True)


def _ephemeral(spelt=lambda key: key):
    return lambda world: {"public_key": spelt(world.invitation["public_key"])}


def _has(name):
    return lambda body, _world: name in body


def _sms(**changes):
    return lambda _world: (
        {
            "client_secret": "s3cret",
            "country": "GB",
            "phone_number": "07700900999",
            "send_attempt": 1,
        }
        | changes
    )


def _invite(**changes):
    return lambda _world: (
        {
            "medium": "email",
            "address": "carol@example.org",
            "room_id": ROOM,
            "sender": ALICE,
        }
        | changes
    )


def _sign(**changes):
    return lambda world: (
        {
            "mxid": "@carol:hs.example.org",
            "token": world.invitation["token"],
            "private_key": world.invitation["private_key"],
        }
        | changes
    )


def _stored(body, world):
    assert set(body) == {"token", "public_keys", "public_key", "display_name"}
    assert body["display_name"] == "car...@exa..."
    (long_term, ephemeral) = body["public_keys"]
    where = "https://id.example.org/_matrix/identity/v2/pubkey"
    assert long_term == {"public_key": PUBLIC_KEY, "key_validity_url": f"{where}/isvalid"}
    assert ephemeral["key_validity_url"] == f"{where}/ephemeral/isvalid"
    return body["public_key"] == PUBLIC_KEY != ephemeral["public_key"]


def _signed_invitation(body, world):
    assert set(body) == {"mxid", "sender", "token", "signatures"}
    assert (body["mxid"], body["sender"]) == ("@carol:hs.example.org", ALICE)
    return body["token"] == world.invitation["token"] and list(body["signatures"]) == ["id.example.org"]


REGISTER, TERMS, LOOKUP = "v2/account/register", "v2/terms", "v2/lookup"
LOG_OUT = "v2/account/logout"
REQUEST, SUBMIT = "v2/validate/email/requestToken", "v2/validate/email/submitToken"
VALIDATED, BIND, UNBIND = "v2/3pid/getValidated3pid", "v2/3pid/bind", "v2/3pid/unbind"
SMS, CODE = "v2/validate/msisdn/requestToken", "v2/validate/msisdn/submitToken"
INVITE, SIGN = "v2/store-invite", "v2/sign-ed25519"
VALID, EPHEMERAL = "v2/pubkey/isvalid", "v2/pubkey/ephemeral/isvalid"
_token = lambda world: world.mail_token  # noqa: E731 - a parameter that is known in a world
_code = lambda world: world.code  # noqa: E731
_BLOCKED = {"invites": replace(INVITES, policy=InvitePolicy(blocked_rooms=frozenset({"!blocked:a.org"})))}
_NO_INVITES = {"invites": replace(INVITES, enabled=False)}

_MAIN = [
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
    Case("ok", "POST", LOG_OUT, answer={}),
    Case("unknown token", "POST", LOG_OUT, 401, "M_UNKNOWN_TOKEN", token="unknown"),
    Case("no token", "POST", LOG_OUT, 401, "M_UNAUTHORIZED", token=False),
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
    Case("no user", "POST", UNBIND, 400, "M_INVALID_PARAM", _unbind("bound", mxid="alice")),
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
_TELEPHONES = [
    Case(
        "ok",
        "POST",
        SMS,
        params=_sms(),
        answer=lambda body, _world: (
            body.pop("sid")
            and body == {"success": True, "msisdn": "447700900999", "intl_fmt": "+44 7700 900999"}
        ),
    ),
    Case(
        "international",
        "POST",
        SMS,
        params=_sms(country="DE", phone_number="+44 7700 900999"),
        answer=_has("sid"),
    ),
    Case("lower case", "POST", SMS, params=_sms(country="gb"), answer=_has("sid")),
    Case("attempt as text", "POST", SMS, params=_sms(send_attempt="1"), answer=_has("sid")),
    Case("next_link", "POST", SMS, params=_sms(next_link="https://app.example.org/"), answer=_has("sid")),
    Case("null next_link", "POST", SMS, params=_sms(next_link=None), answer=_has("sid")),
    Case("javascript", "POST", SMS, 400, "M_INVALID_PARAM", _sms(next_link="javascript:alert(1)")),
    Case("no number", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(phone_number="nobody")),
    Case("empty number", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(phone_number="")),
    Case("too short", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(phone_number="077")),
    Case("too long", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(phone_number="0" * 5000)),
    Case("line break", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(phone_number="07700\r\n900999;ext=1")),
    Case("country", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(country="XX")),
    Case("empty country", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(country="")),
    Case("name of a country", "POST", SMS, 400, "M_INVALID_ADDRESS", _sms(country="Britain")),
    Case("gateways", "POST", SMS, 400, "M_SEND_ERROR", _sms(), prepare=_fail_codes),
    Case("rejected", "POST", SMS, 400, "M_DESTINATION_REJECTED", _sms(), prepare=_reject_codes),
    Case("secret", "POST", SMS, 400, "M_INVALID_PARAM", _sms(client_secret="a b")),
    Case("attempt", "POST", SMS, 400, "M_INVALID_PARAM", _sms(send_attempt=1.5)),
    Case("no token", "POST", SMS, 401, "M_UNAUTHORIZED", _sms(), token=False),
    Case("ok", "POST", CODE, params=_session("sms pending", token=_code), answer={"success": True}),
    Case(
        "blanks",
        "POST",
        CODE,
        params=_session("sms pending", token=lambda world: f" {world.code} "),
        answer={"success": True},
    ),
    Case("code", "POST", CODE, 400, "M_TOKEN_INCORRECT", _session("sms pending", token="wrong")),
    Case("expired", "POST", CODE, 400, "M_SESSION_EXPIRED", _session("sms expired", token="any")),
    Case("sid", "POST", CODE, 400, "M_INVALID_PARAM", _session("sms pending", token=_code, sid="a/b")),
    Case("guessed", "POST", CODE, 429, "M_LIMIT_EXCEEDED", _session("sms guessed", token="any")),
    Case("no token", "POST", CODE, 401, "M_UNAUTHORIZED", token=False),
    Case("unknown sid", "POST", CODE, 404, "M_NO_VALID_SESSION", _session("unknown", token="any")),
    Case("other secret", "POST", CODE, 404, "M_NO_VALID_SESSION", _session("sms other secret", token="any")),
    Case(
        "telephone",
        "GET",
        VALIDATED,
        params=_session("sms proved"),
        answer=lambda body, _world: (body["medium"], body["address"]) == ("msisdn", PHONE),
    ),
    Case("telephone, pending", "GET", VALIDATED, 400, "M_SESSION_NOT_VALIDATED", _session("sms pending")),
    Case(
        "telephone",
        "POST",
        BIND,
        params=_session("sms proved", mxid=ALICE),
        answer=lambda body, _world: (body["medium"], body["address"]) == ("msisdn", PHONE),
    ),
    Case("telephone", "POST", UNBIND, params=_unbind("sms proved", PHONE, medium="msisdn"), answer={}),
    Case(
        "telephone, plus",
        "POST",
        UNBIND,
        params=_unbind("sms proved", f"+{PHONE}", medium="msisdn"),
        answer={},
    ),
]
_INVITATIONS = [
    Case("ok", "POST", INVITE, params=_invite(), answer=_stored),
    Case("case", "POST", INVITE, params=_invite(address="Carol@EXAMPLE.org"), answer=_stored),
    Case(
        "all fields",
        "POST",
        INVITE,
        params=_invite(
            room_alias="#room:hs.example.org",
            room_avatar_url="mxc://hs.example.org/a",
            room_join_rules="invite",
            room_name="Fun <b>&",
            room_type="m.space",
            sender_display_name="Alice",
            sender_avatar_url="mxc://hs.example.org/b",
            guest_access_token="guest",
            guest_user_id="@guest:hs.example.org",
            brand="unknown",
            bracketed_room_name="(Fun)",
            **{"org.matrix.web_client_location": "https://evil.example.org"},
        ),
        answer=_stored,
    ),
    Case("null fields", "POST", INVITE, params=_invite(room_name=None, room_type=None), answer=_stored),
    Case("invited before", "POST", INVITE, params=_invite(address=INVITED), answer=_has("token")),
    Case("in use", "POST", INVITE, 400, "M_THREEPID_IN_USE", _invite(address=BOUND)),
    Case("in use, other case", "POST", INVITE, 400, "M_THREEPID_IN_USE", _invite(address=BOUND.upper())),
    Case("telephone", "POST", INVITE, 400, "M_UNRECOGNIZED", _invite(medium="msisdn", address=PHONE)),
    Case("medium", "POST", INVITE, 400, "M_UNRECOGNIZED", _invite(medium="")),
    Case("address", "POST", INVITE, 400, "M_INVALID_EMAIL", _invite(address="carol")),
    Case("line break", "POST", INVITE, 400, "M_INVALID_EMAIL", _invite(address="a@b.org\r\nBcc: b@c.d")),
    Case("room", "POST", INVITE, 400, "M_INVALID_PARAM", _invite(room_id="room")),
    Case("room, script", "POST", INVITE, 400, "M_INVALID_PARAM", _invite(room_id="#a:b")),
    Case("sender", "POST", INVITE, 400, "M_INVALID_PARAM", _invite(sender="alice")),
    Case("long", "POST", INVITE, 400, "M_INVALID_PARAM", _invite(room_name="a" * 4097)),
    Case("number", "POST", INVITE, 400, "M_INVALID_PARAM", _invite(room_name=17)),
    Case("not you", "POST", INVITE, 403, "M_UNAUTHORIZED", _invite(sender="@bob:hs.example.org")),
    Case("blocked", "POST", INVITE, 403, "M_FORBIDDEN", _invite(room_id="!blocked:a.org"), options=_BLOCKED),
    Case("off", "POST", INVITE, 403, "M_FORBIDDEN", _invite(), options=_NO_INVITES),
    Case("no token", "POST", INVITE, 401, "M_UNAUTHORIZED", _invite(), token=False),
    Case("ok", "POST", SIGN, params=_sign(), answer=_signed_invitation),
    Case(
        "other alphabet",
        "POST",
        SIGN,
        params=lambda world: _sign(private_key=_standard(world.invitation["private_key"]))(world),
        answer=_signed_invitation,
    ),
    Case("unknown", "POST", SIGN, 404, "M_UNRECOGNIZED", _sign(token="unknown")),
    Case("expired", "POST", SIGN, 404, "M_UNRECOGNIZED", _sign(), prepare=_wait_for_ever),
    Case("no key", "POST", SIGN, 400, "M_INVALID_PARAM", _sign(private_key="?")),
    Case("empty key", "POST", SIGN, 400, "M_INVALID_PARAM", _sign(private_key="")),
    Case("other key", "POST", SIGN, 400, "M_INVALID_PARAM", _sign(private_key="A" * 43)),
    Case("user", "POST", SIGN, 400, "M_INVALID_PARAM", _sign(mxid="carol")),
    Case("no token", "POST", SIGN, 401, "M_UNAUTHORIZED", _sign(), token=False),
    Case("of an invitation", "GET", EPHEMERAL, params=_ephemeral(), answer={"valid": True}),
    Case("other alphabet", "GET", EPHEMERAL, params=_ephemeral(_url_safe), answer={"valid": True}),
    Case("expired", "GET", EPHEMERAL, params=_ephemeral(), answer={"valid": False}, prepare=_wait_for_ever),
    Case("no long-term key", "GET", VALID, params=_ephemeral(), answer={"valid": False}),
]
_UNSIGNED_TERMS = [
    Case("terms", row.method, row.path, 403, "M_TERMS_NOT_SIGNED", options={"terms": POLICIES})
    for row in ROWS
    if needs_terms(row)
]
CASES = [*_MAIN, *_TELEPHONES, *_INVITATIONS, *_UNSIGNED_TERMS]
