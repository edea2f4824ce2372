import json
import re
import unicodedata
from base64 import b64encode, urlsafe_b64encode
from dataclasses import fields, replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from signedjson.key import decode_verify_key_bytes, get_verify_key
from signedjson.sign import SignatureVerifyException, verify_signed_json

from sydentish.domain.accounts import opaque_token
from sydentish.domain.display import MAX_SHOWN, bare, unlinked
from sydentish.domain.ephemeral import ephemeral_key, public_key_of, public_keys_json, sign_invite
from sydentish.domain.errors import InvalidParam
from sydentish.domain.ids import opaque
from sydentish.domain.invite_links import WebClients, invitation_link, sign_url
from sydentish.domain.invite_texts import SPACE, InviteTexts, invite_texts
from sydentish.domain.invites import (
    TOKEN_BYTES,
    Invitation,
    InviteDetails,
    InviteMail,
    InvitePolicy,
    detail,
    onbind_invite,
    redact,
    room_id,
    signed_part,
)
from sydentish.domain.keys import KeyRing, decode_base64, make_key, parse_key
from sydentish.domain.threepids import Threepid

BASE = "https://id.example.org"
ELEMENT = "https://app.element.io"
BOB = "@bob:example.org"
ALICE = "@alice:hs.example.com"
INVITATION = Invitation(
    token="tok.en-1",
    threepid=Threepid("email", "alice+tea@example.com"),
    room_id="!abc:example.org",
    sender=BOB,
    created_ts=1,
    expires_ts=2,
)
SEEDS = st.binary(min_size=32, max_size=32)
HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from("ab1.:/\\@+?#&=%<>\"'-_ \t\r\n\0\u202e\u200c\u200d\u2028\u3002\uff0e\ud800\u0301"),
        st.characters(exclude_categories=()),
    ),
    max_size=60,
)
TEXT_FIELDS = [each.name for each in fields(InviteDetails)]


# --- tokens, ids and details ---------------------------------------------------------------------------


def test_tokens_are_within_the_allowed_characters_and_cannot_be_guessed():
    assert TOKEN_BYTES * 8 >= 128
    assert opaque("token", opaque_token(b"\xff" * TOKEN_BYTES))


@pytest.mark.parametrize(
    "value", ["!abc:example.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!ä:b", "!x"]
)
def test_room_ids(value):
    assert room_id("room_id", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "!",
        "abc:example.org",
        "#a:b",
        "!a b:c",
        "!a\n:b",
        "!a\0",
        "!a\u202eb",
        "!\ud800",
        "!" + "a" * 255,
        "!" + "ä" * 128,
    ],
)
def test_what_is_no_room_id(value):
    with pytest.raises(InvalidParam) as caught:
        room_id("room_id", value)
    assert caught.value.name == "room_id"
    assert len(value) < 2 or value not in caught.value.message


def test_details_have_a_bound_that_nobody_meets_by_accident():
    assert detail("room_name", "x" * 4096) == "x" * 4096
    with pytest.raises(InvalidParam, match="room_name: must have at most 4096 characters"):
        detail("room_name", "x" * 4097)


def test_no_secret_is_shown_by_accident():
    details = InviteDetails(guest_access_token="s3cret", room_name="s3cret")
    mail = InviteMail(address="s3cret@example.org", link="https://x/s3cret", sender=BOB, details=details)
    shown = repr(mail) + repr(replace(details, room_name=None)) + repr(ephemeral_key(b"s" * 32))
    assert "s3cret" not in shown
    assert ephemeral_key(b"s" * 32).private_key not in shown
    assert "alice" not in repr(INVITATION)
    assert "tok.en" not in repr(INVITATION)


# --- what the room may see of an address ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown", "redacted"),
    [
        ("foobar@example.com", 3, "foo...@exa..."),
        ("foo@example.com", 3, "fo...@exa..."),
        ("a@example.com", 3, "...@exa..."),
        ("ab@b.c", 3, "a...@b...."),
        ("foobar@example.com", 1, "f...@e..."),
        ("foobar@example.com", 0, "...@..."),
        ("foobar@example.com", 100, "fooba...@example.co..."),
        ("foobar@example.com", -5, "...@..."),
        ("jürgen@bücher.example", 2, "jü...@bü..."),
    ],
)
def test_a_redacted_address(address, shown, redacted):
    assert redact(address, shown) == redacted


@given(
    local=st.text(alphabet="abc.+", min_size=1, max_size=20),
    domain=st.text(alphabet="abc.", min_size=1, max_size=20),
    shown=st.integers(0, 40),
)
def test_never_a_whole_part(local, domain, shown):
    kept = re.fullmatch(r"(.*)\.\.\.@(.*)\.\.\.", redact(f"{local}@{domain}", shown))
    for part, left in zip((local, domain), kept.groups(), strict=True):
        assert part.startswith(left)
        assert len(left) == min(shown, len(part) - 1)


# --- keys ----------------------------------------------------------------------------------------------


def signed_with(private_key):
    return sign_invite(private_key, mxid=ALICE, sender=BOB, token="tok.en-1", server_name="id.example.org")


@given(SEEDS)
def test_a_key_pair(seed):
    key = ephemeral_key(seed)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", key.private_key)
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}", key.public_base64)
    assert decode_base64(key.public_base64) == key.public_key == public_key_of(key.private_key)


@pytest.mark.parametrize("seed", [b"", b"x" * 31, b"x" * 33])
def test_a_seed_of_another_length(seed):
    with pytest.raises(ValueError, match="32 bytes"):
        ephemeral_key(seed)


@given(SEEDS)
@example(b"\xff\xfe\xfb" * 10 + b"\xff\xfe")
def test_either_alphabet_padded_or_not(seed):
    key = ephemeral_key(seed)
    for encoded in (b64encode(seed).decode(), urlsafe_b64encode(seed).decode()):
        for written in (encoded, encoded.rstrip("=")):
            assert public_key_of(written) == key.public_key
            signed = signed_with(written)
            assert {name: signed[name] for name in ("mxid", "sender", "token")} == {
                "mxid": ALICE,
                "sender": BOB,
                "token": "tok.en-1",
            }
            assert signed.keys() == {"mxid", "sender", "token", "signatures"}
            assert list(signed["signatures"]) == ["id.example.org"]
            verify = decode_verify_key_bytes("ed25519:0", decode_base64(key.public_base64))
            verify_signed_json(signed, "id.example.org", verify)


def test_another_key_does_not_fit():
    signed = signed_with(ephemeral_key(b"x" * 32).private_key)
    other = decode_verify_key_bytes("ed25519:0", ephemeral_key(b"y" * 32).public_key)
    with pytest.raises(SignatureVerifyException):
        verify_signed_json(signed, "id.example.org", other)


@pytest.mark.parametrize(
    "text", ["", "=", "x", "A" * 42, "A" * 44, "A" * 10_000, "ä" * 43, "A" * 42 + "!", "A\n" * 22]
)
def test_what_is_no_private_key(text):
    for use in (public_key_of, signed_with):
        with pytest.raises(InvalidParam, match="private_key: must be 32 bytes in base64"):
            use(text)


def test_the_keys_of_the_answer():
    key = ephemeral_key(b"x" * 32)
    assert public_keys_json("longTermKey", key, "https://id.example.org/under") == {
        "public_keys": [
            {
                "public_key": "longTermKey",
                "key_validity_url": "https://id.example.org/under/_matrix/identity/v2/pubkey/isvalid",
            },
            {
                "public_key": key.public_base64,
                "key_validity_url": "https://id.example.org/under/_matrix/identity/v2/pubkey/ephemeral/isvalid",
            },
        ],
        "public_key": "longTermKey",
    }


# --- onbind --------------------------------------------------------------------------------------------


def test_an_invitation_for_the_homeserver():
    ring = KeyRing("id.example.org", parse_key(make_key("1", b"k" * 32)))
    signed = ring.sign(signed_part(INVITATION, ALICE))
    invite = onbind_invite(INVITATION, ALICE, signed)
    assert invite == {
        "medium": "email",
        "address": "alice+tea@example.com",
        "mxid": ALICE,
        "room_id": "!abc:example.org",
        "sender": BOB,
        "token": "tok.en-1",
        "signed": {"mxid": ALICE, "token": "tok.en-1", "signatures": signed["signatures"]},
    }
    verify_signed_json(invite["signed"], "id.example.org", get_verify_key(ring.active.signing_key))


# --- the web client ------------------------------------------------------------------------------------

ONE = WebClients(ELEMENT, frozenset({"https://chat.example.org/app"}))
ANY = WebClients(ELEMENT, frozenset({"*"}))


@pytest.mark.parametrize(
    "requested", [None, "", "https://other.example", "chat.example.org/app", "//chat.example.org/app"]
)
def test_who_asks_for_none_or_another_gets_ours(requested):
    assert ONE.choose(requested) == ELEMENT
    assert WebClients(ELEMENT + "/").choose(requested) == ELEMENT


@pytest.mark.parametrize(
    "requested",
    [
        "https://chat.example.org/app",
        "https://chat.example.org/app/",
        "HTTPS://Chat.Example.ORG/app",
        "https://chat.example.org:443/app//",
    ],
)
def test_an_allowed_one_in_any_spelling(requested):
    assert ONE.choose(requested) == "https://chat.example.org/app"


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://x.example:80", "http://x.example"),
        ("https://x.example:80", "https://x.example:80"),
        ("https://[2001:DB8::1]:8443/%20a/b", "https://[2001:db8::1]:8443/%20a/b"),
    ],
)
def test_any_one(requested, chosen):
    assert ANY.choose(requested) == chosen


@pytest.mark.parametrize(
    "requested",
    [
        "javascript:alert(1)//https://x.example",
        "data:text/html,x",
        "ftp://x.example",
        "https:x.example",
        "https:///x.example",
        "https://",
        "https://user@x.example",
        "https://app.element.io@evil.example",
        "https://app.element.io:443@evil.example/",
        "https://x.example?q",
        "https://x.example/#/room",
        "https://x.example\\@evil.example",
        "https://x.exa mple",
        " https://x.example",
        "https://x.example\n",
        "https://x.example/\r\nBcc: eve@evil.example",
        "https://x.example/\u202e",
        "https://bücher.example",
        "https://x.example/<script>",
        'https://x.example/"onclick="',
        "https://x.example/%",
        "https://x.example:99999",
        "https://x.example:port",
        "https://..",
        "https://[::1",
        "https://" + "a" * 3000,
        "*",
    ],
)
def test_hostile_web_clients_change_nothing(requested):
    assert ANY.choose(requested) == ELEMENT


@given(prefix=st.sampled_from(["", "http://", "https://", "HTTPS://a", "https://a/"]), rest=HOSTILE)
def test_whatever_is_asked_for_a_link_begins_with_a_plain_base_url(prefix, rest):
    chosen = ANY.choose(prefix + rest)
    parts = urlsplit(chosen)
    assert chosen.isascii()
    assert chosen.isprintable()
    assert not re.search(r"[\s?#\\<>\"@]", chosen.partition("//")[2].partition("/")[0])
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert (parts.query, parts.fragment, parts.username) == ("", "", None)
    assert ONE.choose(prefix + rest) in {ELEMENT, "https://chat.example.org/app"}


# --- the link ------------------------------------------------------------------------------------------


def link_of(details=InviteDetails(), invitation=INVITATION):  # noqa: B008 - it is frozen
    key = ephemeral_key(b"\xff" * 32)
    return invitation_link(ELEMENT, invitation, details, sign_url(BASE, invitation.token, key.private_key))


def read(link):
    """What a web client reads: the fragment, its path decoded, its parameters."""
    base, _, fragment = link.partition("/#/")
    path, _, query = fragment.partition("?")
    return (
        base,
        unquote(path),
        {k: v[0] for k, v in parse_qs(query, keep_blank_values=True, strict_parsing=True).items()},
    )


def test_the_link_to_the_letter():
    details = InviteDetails(
        room_name="Tea & Cake",
        room_avatar_url="mxc://example.org/tea_1-x",
        sender_display_name="Bob Ünal",
        room_type=SPACE,
        guest_access_token="gt",
        guest_user_id="@1:example.org",
    )
    key = "_" * 42 + "8"
    assert link_of(details) == (
        "https://app.element.io/#/room/%21abc%3Aexample.org?email=alice%2Btea%40example.com"
        "&signurl=https%3A%2F%2Fid.example.org%2F_matrix%2Fidentity%2Fapi%2Fv1%2Fsign-ed25519"
        f"%3Ftoken%3Dtok.en-1%26private_key%3D{key}"
        "&room_name=Tea%20%26%20Cake&room_avatar_url=mxc%3A%2F%2Fexample.org%2Ftea_1-x&inviter_name=Bob%20%C3%9Cnal"
        "&guest_access_token=gt&guest_user_id=%401%3Aexample.org&room_type=m.space"
    )


def test_what_is_not_known_is_empty():
    base, path, parameters = read(link_of())
    assert (base, path) == (ELEMENT, "room/!abc:example.org")
    assert list(parameters) == [
        "email",
        "signurl",
        "room_name",
        "room_avatar_url",
        "inviter_name",
        "guest_access_token",
        "guest_user_id",
        "room_type",
    ]
    assert parameters.pop("email") == "alice+tea@example.com"
    signing = urlsplit(parameters.pop("signurl"))
    assert set(parameters.values()) == {""}
    assert (
        f"{signing.scheme}://{signing.netloc}{signing.path}" == f"{BASE}/_matrix/identity/api/v1/sign-ed25519"
    )
    assert parse_qs(signing.query) == {
        "token": ["tok.en-1"],
        "private_key": [ephemeral_key(b"\xff" * 32).private_key],
    }


@given(
    values=st.fixed_dictionaries({name: st.none() | HOSTILE for name in TEXT_FIELDS}),
    room=HOSTILE.filter("\ud800".__ne__),
)
@example(values=dict.fromkeys(TEXT_FIELDS, "\ud800&signurl=https://evil.example#?"), room="a?b#c&d/e")
def test_nobody_adds_a_parameter(values, room):
    try:
        room = room_id("room_id", "!" + room)
    except InvalidParam:
        room = "!<script>&x?y#z"
    link = link_of(InviteDetails(**values), replace(INVITATION, room_id=room))
    assert re.fullmatch(r"[A-Za-z0-9:/#?&=%._~-]+", link)
    base, path, parameters = read(link)
    calm = read(link_of())[2]
    assert (base, path) == (ELEMENT, f"room/{room}")
    assert list(parameters) == list(calm)
    assert parameters["signurl"] == calm["signurl"]
    assert re.fullmatch(r"(mxc://[^/]+/[^/]+)?", parameters["room_avatar_url"])
    assert all(unicodedata.category(c) not in {"Cc", "Cs"} for value in parameters.values() for c in value)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x.png",
        "javascript:alert(1)",
        "mxc://a/b/c",
        "mxc://a b/c",
        "mxc:///c",
        "mxc://a/../b",
    ],
)
def test_pictures_are_content_uris(url):
    assert read(link_of(InviteDetails(room_avatar_url=url)))[2]["room_avatar_url"] == ""


def test_names_in_a_link_are_bounded():
    assert (
        len(link_of(InviteDetails(room_name="\U0001f375" * 4096, sender_display_name="\U0001f375" * 4096)))
        < 4000
    )


# --- texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Tea House", "Tea House"),
        ("  Tea \r\n\t House\0 ", "Tea House"),
        ("\u202eesuoH aeT", "esuoH aeT"),
        ("a\ud800b", "ab"),
        ("\u3164\u2800 \u115f", ""),
        ("https://evil.example/x", "https: //evil. example/x"),
        ("www.evil.example", "www. evil. example"),
        ("go to evil.example.", "go to evil. example."),
        ("evil\u3002example", "evil\u3002 example"),
        ("evil\uff0eexample", "evil\uff0e example"),
        ("evil.\u200dexample", "evil. \u200dexample"),
        ("e\u200bvil.exam\u00adple", "evil. example"),
        ("mailto:eve@evil.example", "mailto: eve@evil. example"),
        ("tel:+49123", "tel: +49123"),
        ("http://192.0.2.1/", "http: //192.0. 2. 1/"),
        ("1e100.net", "1e100. net"),
        ("\\\\evil\\share", "\\ \\evil\\share"),
        ("1.2 at 10:30 :)", "1.2 at 10:30 :)"),
        ("Wait... what?", "Wait... what?"),
        ("z" + "\u0301" * 50 + "a", "z" + "\u0301" * 4 + "a"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 99 + "…"),
        ("ليلى", "ليلى"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    ],
)
def test_a_name_as_it_is_shown(name, shown):
    assert unlinked(name) == shown


# What mail programs make links of: a scheme, or labels with dots that end in letters.
LINK = re.compile(
    r"(?i)[a-z][a-z0-9+.-]*:[/\\\w]|[^\W_][.\u3002\uff0e\uff61][\u200c\u200d]*[^\W\d_]{2,}|\\\\|www\.\w"
)


@given(HOSTILE)
@example("http://a.b")
@example("1.\u200d2.evil")
def test_no_name_is_a_link(name):
    shown = unlinked(name)
    assert not LINK.search(shown)
    assert len(shown) <= MAX_SHOWN
    assert shown == shown.strip()
    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\ufeff")
    assert bare(bare(name)) == bare(name)


def test_the_texts_of_a_mail():
    details = InviteDetails(
        room_name="Tea House",
        room_alias="#tea:example.org",
        room_type=SPACE,
        room_join_rules="invite",
        sender_display_name="Bob",
        room_avatar_url="mxc://example.org/room",
        sender_avatar_url="https://evil.example/bob",
    )
    assert invite_texts(BOB, details) == InviteTexts(
        sender=BOB,
        sender_display_name="Bob",
        bracketed_verified_sender="(@bob:example.org)",
        room_name="Tea House",
        room_alias="#tea",
        bracketed_room_name="(Tea House)",
        room_type="m.space",
        room_join_rules="invite",
        room_avatar_url="mxc://example.org/room",
        sender_avatar_url="",
    )


@pytest.mark.parametrize("name", [None, "", " ", "\u202e\0", BOB])
def test_who_has_no_name_is_called_by_their_id(name):
    texts = invite_texts(BOB, InviteDetails(sender_display_name=name))
    assert (texts.sender_display_name, texts.bracketed_verified_sender) == (BOB, "")


def test_nobody_poses_as_somebody_else():
    texts = invite_texts("@eve:evil.example", InviteDetails(sender_display_name=BOB))
    assert texts.sender == "@eve:evil.example"
    assert texts.bracketed_verified_sender == "(@eve:evil.example)"
    assert texts.sender_display_name != BOB


@pytest.mark.parametrize(
    "alias", [None, "", "#", "#:x", "tea:example.org", "#https://evil.example", "#evil.example:x"]
)
def test_an_alias_is_no_link_either(alias):
    assert not LINK.search(invite_texts(BOB, InviteDetails(room_alias=alias)).room_alias)


def test_odd_types_and_rules_are_not_known():
    texts = invite_texts(
        BOB, InviteDetails(room_type="m.space<script>", room_join_rules="https://evil.example")
    )
    assert (texts.room_type, texts.room_join_rules) == ("", "")


# --- policy --------------------------------------------------------------------------------------------

POLICY = InvitePolicy(
    blocked_rooms=frozenset({"!bad:example.org"}),
    blocked_homeservers=frozenset({"evil.example", "*.evil.example", "port.example:8448"}),
    blocked_words=("Casino", "buy  now", "STRASSE", ""),
)


def reason(room="!abc:example.org", sender=BOB, **details):
    found = POLICY.find(room, sender, InviteDetails(**details))
    return None if found is None else found.reason


def test_what_is_wanted():
    assert reason() is None
    assert reason(room_name="Tea", sender_display_name="Bob", room_alias="#tea:example.org") is None
    assert InvitePolicy().find("!a", "@e:evil.example", InviteDetails(room_name="Casino")) is None
    assert reason(room_join_rules="casino", room_type="casino") is None, "nobody reads these"
    assert reason(sender="@e:port.example") is None


def test_rooms():
    assert reason("!bad:example.org") == "room"


@pytest.mark.parametrize(
    ("room", "sender", "name", "entry"),
    [
        ("!bad:example.org", BOB, None, "!bad:example.org"),
        ("!abc:example.org", "@e:x.evil.example:1", None, "*.evil.example"),
        ("!abc:example.org", BOB, "the CASINO", "Casino"),
    ],
)
def test_the_operator_learns_which_entry_it_was(room, sender, name, entry):
    assert POLICY.find(room, sender, InviteDetails(room_name=name)).entry == entry


@pytest.mark.parametrize(
    "server",
    [
        "evil.example",
        "EVIL.example",
        "evil.example.",
        "evil.example:8448",
        "a.b.evil.example:1",
        "port.example:8448",
    ],
)
def test_homeservers(server):
    assert reason(sender=f"@e:{server}") == "homeserver"
    assert reason(room=f"!abc:{server}") == "homeserver"


@pytest.mark.parametrize("server", ["notevil.example", "evil.example.org", "xn--evil.example2"])
def test_other_homeservers(server):
    assert reason(sender=f"@e:{server}", room=f"!abc:{server}") is None


@pytest.mark.parametrize("room", ["!no_server", "!a:", "!a::", "!a:[", "!a:b c", "!a:evil.example/x"])
def test_a_room_id_need_not_have_a_server(room):
    assert reason(room) is None


@pytest.mark.parametrize(
    "text",
    [
        "casino",
        "Big CASINO!!",
        "ca\u200bsi\u00adno",
        "c\u200da\u200csino",
        "\uff23\uff21\uff33\uff29\uff2e\uff2f",
        "buy\n now",
        "Straße",
        "xcasinox",
    ],
)
@pytest.mark.parametrize("place", ["room_name", "sender_display_name", "room_alias"])
def test_words(place, text):
    assert reason(**{place: text}) == "word"


def test_words_in_the_name_of_a_user():
    assert reason(sender="@casino:example.org") == "word"


@given(values=st.fixed_dictionaries({name: st.none() | HOSTILE for name in TEXT_FIELDS}))
def test_a_policy_has_an_answer_to_everything(values):
    assert reason(**values) in {None, "word"}


# --- the payload ---------------------------------------------------------------------------------------


@given(
    values=st.fixed_dictionaries({name: st.none() | HOSTILE for name in TEXT_FIELDS}),
    brand=st.none() | HOSTILE,
)
def test_a_mail_survives_the_outbox(values, brand):
    mail = InviteMail(
        address="alice@example.com",
        link="https://x",
        sender=BOB,
        details=InviteDetails(**values),
        brand=brand,
    )
    payload = mail.to_json()
    assert payload.isascii()
    assert "\0" not in payload
    assert InviteMail.from_json(payload) == mail


def test_what_an_older_version_did_not_write_is_not_known():
    payload = json.loads(
        InviteMail(address="a@b.example", link="l", sender=BOB, details=InviteDetails()).to_json()
    )
    payload["details"] = {"room_name": "Tea", "unknown": 1}
    assert InviteMail.from_json(json.dumps(payload)).details == InviteDetails(room_name="Tea")


@pytest.mark.parametrize(
    "change",
    [
        {"address": 1},
        {"link": None},
        {"details": None},
        {"details": {"room_name": 1}},
        {"brand": 1},
    ],
)
def test_a_payload_that_is_none(change):
    good = json.loads(
        InviteMail(address="secret@b.example", link="l", sender=BOB, details=InviteDetails()).to_json()
    )
    for payload in (json.dumps(good | change), "", "[]", "1", "{", '"secret"', "{}", "null"):
        with pytest.raises(ValueError, match="not that of an invitation mail") as caught:
            InviteMail.from_json(payload)
        assert "secret" not in str(caught.value)
