import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sydentish.domain.errors import InvalidEmail
from sydentish.domain.threepids import Mailbox, Threepid, mailbox, normalise_email

ANY_CHARACTER = st.characters(exclude_categories=())
ATEXT = "abcxyzABCXYZ0189!#$%&'*+-/=?^_`{|}~"
LOCAL_PARTS = (
    st.lists(st.text(alphabet=ATEXT + "äßЖİ", min_size=1, max_size=6), min_size=1, max_size=3)
    .map(".".join)
    .filter(lambda local: "=?" not in local)
)
DOMAINS = st.lists(
    st.from_regex(r"[a-zA-Z]([a-zA-Z0-9]{0,10}[a-zA-Z])?", fullmatch=True), min_size=1, max_size=3
).map(".".join)
# Random text is hardly ever near an address; these are made of what addresses are made of, and of traps.
NEAR_ADDRESSES = st.text(alphabet='aZß9@.-_+ \t\r\n\0"<>()[],;:\\/İ\u00ad\u200b\u3002xn', max_size=30)
UNWANTED = set(' \t\r\n\0"<>()[],;:\\')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Alice@Example.ORG", "alice@example.org"),
        ("Strauß@Example.com", "strauss@example.com"),
        ("strauss@example.com", "strauss@example.com"),
        ("ΑΓΓΕΛΟΣ@example.org", "αγγελοσ@example.org"),
        ("ﬁ@example.org", "fi@example.org"),
        ("I@example.org", "i@example.org"),
        ("a@localhost", "a@localhost"),
        ("a.b.c@example.org", "a.b.c@example.org"),
        ("a+tag@example.org", "a+tag@example.org"),
        ("?=a=b?@example.org", "?=a=b?@example.org"),
        ("!#$%&'*+-/?=^_`{|}~@example.org", "!#$%&'*+-/?=^_`{|}~@example.org"),
        ("a@BÜCHER.example", "a@bücher.example"),
        ("a@Straße.example", "a@strasse.example"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("a@1and1.com", "a@1and1.com"),
        ("a@1.2.3.4x", "a@1.2.3.4x"),
        ("用户@例子.广告", "用户@例子.广告"),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
        (f"{'ä' * 32}@example.org", f"{'ä' * 32}@example.org"),
        (f"a@{'b' * 63}.org", f"a@{'b' * 63}.org"),
    ],
)
def test_addresses_are_case_folded_as_a_whole(text, expected):
    assert normalise_email(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@",
        "@example.org",
        "alice@",
        "alice@@example.org",
        "alice@example.org@evil.org",
        "alice@evil.org@",
        "mailto:alice@example.org",
        "MAILTO:alice@example.org",
        "<alice@example.org>",
        "Alice <alice@example.org>",
        "alice@example.org>",
        "alice@example.org,bob@example.org",
        "alice,bob@example.org",
        "alice@example.org;bob",
        "alice;bob@example.org",
        "friends:alice@example.org",
        '"alice"@example.org',
        '"al ice"@example.org',
        '"a@b"@example.org',
        'al"ice@example.org',
        "(comment)alice@example.org",
        "alice@example.org(comment)",
        "alice@(comment)example.org",
        "al\\ice@example.org",
        "alice @example.org",
        " alice@example.org",
        "alice@example.org ",
        "alice@ example.org",
        "alice@exam ple.org",
        "al\tice@example.org",
        "alice\n@example.org",
        "alice@example.org\n",
        "alice@example.org\r\nBcc: bob@example.org",
        "alice\r\nRCPT TO:<bob@example.org>\r\n@example.org",
        "alice\0@example.org",
        "alice@example.org\0",
        "al\x7fice@example.org",
        "al\x85ice@example.org",
        "al\xa0ice@example.org",
        "al\u3000ice@example.org",
        "al\u200bice@example.org",
        "al\u00adice@example.org",
        "al\u2028ice@example.org",
        "al\u202eice@example.org",
        "al\ufeffice@example.org",
        "al\ud800ice@example.org",
        "alice@exa\ud800mple.org",
        ".alice@example.org",
        "alice.@example.org",
        "al..ice@example.org",
        ".@example.org",
        "alice@.example.org",
        "alice@example.org.",
        "alice@example..org",
        "alice@.",
        "alice@-example.org",
        "alice@example-.org",
        "alice@-",
        "alice@exam_ple.org",
        "alice@exam!ple.org",
        "alice@example.org/path",
        "alice@example.org:25",
        "alice@example.org?subject=x",
        "alice@192.0.2.1",
        "alice@[192.0.2.1]",
        "alice@[IPv6:::1]",
        "alice@example.123",
        "alice@例。com",
        "alice@\uff45xample.org",
        "alice@a\u200bb.org",
        "alice@\u0300a.org",
        "alice@ü\n.org",
        "alice@xn--ü.org",
        "alice%40example.org",
        "=?@example.org",
        "alice=?@example.org",
        "=?x?q?=0d=0aBcc=3abob/x?=@example.org",
        "=?UTF-8?B?DQpCY2M6IGJvYg==?=@example.org",
        "ä=?us-ascii?q?=0a?=@example.org",
        f"{'a' * 65}@example.org",
        f"{'ä' * 33}@example.org",
        f"{'ß' * 33}@example.org",
        f"a@{'b' * 64}.org",
        f"a@{'ü' * 63}.org",
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 63}.org",
        f"a@{'.'.join(['b' * 63] * 4)}",
        "a@" + ".".join(["b"] * 2000),
        "a" * 60000 + "@example.org",
    ],
)
def test_what_is_no_plain_address_is_refused_without_being_shown(text):
    with pytest.raises(InvalidEmail) as caught:
        normalise_email(text)
    assert caught.value.message.startswith("email: ")
    for part in ("alice", "bob", "example", "evil"):
        assert part not in caught.value.message.lower()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# Python's e-mail library, and others, see headers where these are, though every character is allowed.
ENCODED_WORDS = st.builds(
    "=?{}?{}?{}?=".format,
    st.sampled_from(["x", "utf-8", "US-ASCII", "utf-8*en", ""]),
    st.sampled_from("qQbBx"),
    st.lists(st.sampled_from(["=0d=0a", "=3a", "DQo", "_", "bcc", "?", "ä"]), max_size=5).map("".join),
)


@given(st.sampled_from(["", "a", "a.", "=", "ä"]), ENCODED_WORDS, st.sampled_from(["", "a", ".a", "?="]))
def test_no_encoded_word_is_a_part_of_an_address(before, word, after):
    local = before + word + after
    for read in (normalise_email, mailbox):
        with pytest.raises(InvalidEmail, match=r"^email: .* must not have a \? right after a =$"):
            read(f"{local}@example.org")


def test_an_address_has_at_most_254_bytes():
    longest = f"{'a' * 64}@" + ".".join(["b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 254
    assert normalise_email(longest) == longest
    with pytest.raises(InvalidEmail, match="at most 254 bytes"):
        normalise_email(longest + "d")


@pytest.mark.parametrize(("local", "labels"), [("a" * 55, 25), ("a", 32)])
def test_the_length_also_counts_in_the_form_that_goes_over_the_wire(local, labels):
    """A label of one letter is 2 bytes as it is written, and 7 as an A-label."""
    text = f"{local}@{'.'.join(['ü'] * labels)}"
    assert len(text.encode()) < 254
    with pytest.raises(InvalidEmail, match=r"at most 25[34] bytes"):
        normalise_email(text)
    assert normalise_email(text[1:] if len(local) > 1 else text.replace("ü.", "", 1))


@given(LOCAL_PARTS, DOMAINS)
@example("Strauß", "EXAMPLE.com")
def test_plain_addresses_are_accepted_in_folded_form(local, domain):
    assert normalise_email(f"{local}@{domain}") == f"{local}@{domain}".casefold()


@given(LOCAL_PARTS, DOMAINS)
def test_the_case_of_an_address_does_not_matter(local, domain):
    text = f"{local}@{domain}"
    assert normalise_email(text.casefold()) == normalise_email(text)
    if text.isascii():
        assert normalise_email(text.upper()) == normalise_email(text.lower())


@given(st.one_of(NEAR_ADDRESSES, st.text(alphabet=ANY_CHARACTER, max_size=40)))
@example("a@İ.org")
@example("ŉ@example.org")
@example("\u1e9e@\u1e9e.org")
@example("a@ⅷ.org")
def test_whatever_is_accepted_is_one_plain_address_and_normalised(text):
    try:
        address = normalise_email(text)
    except InvalidEmail:
        return
    local, domain = address.split("@")
    assert local
    assert domain
    assert not UNWANTED & set(address)
    assert address.isprintable()
    assert not any(c.isspace() for c in address)
    assert len(address.encode()) <= 254
    assert len(local.encode()) <= 64
    assert normalise_email(address) == address == text.casefold()
    assert mailbox(address).envelope.encode()


@given(st.text(alphabet=ANY_CHARACTER, max_size=6), DOMAINS, st.integers(min_value=0, max_value=20))
def test_no_character_that_cannot_be_seen_gets_into_an_address(inserted, domain, position):
    text = f"alice@{domain}"
    position = min(position, len(text))
    spoiled = text[:position] + inserted + text[position:]
    if any(c.isspace() or not c.isprintable() or c in UNWANTED for c in inserted.casefold()):
        with pytest.raises(InvalidEmail):
            normalise_email(spoiled)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("alice@example.org", Mailbox("alice@example.org", needs_smtputf8=False)),
        ("alice@bücher.example", Mailbox("alice@xn--bcher-kva.example", needs_smtputf8=False)),
        ("alice@例子.广告", Mailbox("alice@xn--fsqu00a.xn--4rr70v", needs_smtputf8=False)),
        ("älice@example.org", Mailbox("älice@example.org", needs_smtputf8=True)),
        ("älice@bücher.example", Mailbox("älice@bücher.example", needs_smtputf8=True)),
    ],
)
def test_a_domain_becomes_a_labels_and_a_local_part_beyond_ascii_needs_smtputf8(address, expected):
    assert mailbox(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "alice",
        "älice",
        "älice@",
        "@example.org",
        "älice@exa mple.org",
        "älice@a@b",
        "alice\r\nDATA@example.org",
        "älice\r\n@example.org",
        "<alice@example.org>",
        "alice@[192.0.2.1]",
        "alice@example.org\n",
    ],
)
def test_what_is_no_address_is_no_mailbox(address):
    with pytest.raises(InvalidEmail):
        mailbox(address)


@given(LOCAL_PARTS, st.sampled_from(["example.org", "bücher.example", "例子.广告", "ßtraße.example"]))
def test_the_envelope_is_ascii_exactly_when_no_smtputf8_is_needed(local, domain):
    address = normalise_email(f"{local}@{domain}")
    box = mailbox(address)
    assert box.envelope.isascii() != box.needs_smtputf8
    assert box.envelope.partition("@")[0] == address.partition("@")[0]
    assert idna.decode(box.envelope.partition("@")[2]) == address.partition("@")[2]


def test_the_same_address_of_another_medium_is_another_identifier():
    assert Threepid("email", "1") == Threepid("email", "1")
    assert Threepid("email", "1") != Threepid("msisdn", "1")
    assert len({Threepid("email", "1"), Threepid("email", "1"), Threepid("msisdn", "1")}) == 2
