import re
from dataclasses import replace
from datetime import UTC, datetime
from email.header import decode_header, make_header

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from senders.reading import assert_well_formed

from sydentish.senders.message import Letter, MessageProblem, check_message, write_message
from sydentish.senders.render import MailText

LETTER = Letter(
    sender="noreply@identity.example.org",
    sender_name="Identity",
    recipient="alice@example.org",
    date=datetime(2026, 9, 21, 13, 33, 20, tzinfo=UTC),
    message_id="0123@identity.example.org",
    content=MailText("Hello", "text\n", "<p>html\n"),
)
SHOWN = st.text(alphabet=st.characters(exclude_categories=["C", "Z"]))
# On one line, as `one_line` makes it.
LINES = (
    st.lists(
        st.one_of(SHOWN, st.sampled_from(["x" * 70, "=?", "ü" * 40, "[x]", '"', "(c)", "<a@b.example>"]))
    )
    .map(lambda words: " ".join(" ".join(words).replace("=?", "= ?").split()))
    .map(lambda line: line[:200].strip())
)


def titled(subject):
    return replace(LETTER, content=replace(LETTER.content, subject=subject))


@given(
    subject=LINES,
    name=LINES,
    text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
@example("für ü x " + "x" * 70 + " ü", "Inc. <a@b.example> " + "x" * 70 + ", (ü) [x]", "")
@settings(deadline=None)
def test_whatever_is_in_it_the_message_is_well_formed(subject, name, text):
    for recipient in ("alice@example.org", "jürgen@bücher.example"):
        content = MailText(subject, text + "\n", text + "\n")
        letter = replace(LETTER, recipient=recipient, sender_name=name, content=content)
        raw = write_message(letter)
        message = assert_well_formed(raw, seven_bits=recipient.isascii())
        assert max(len(line) for line in raw.split(b"\r\n")) <= 78
        assert message["Subject"] == subject
        assert "".join(message["From"].addresses[0].display_name.split()) == "".join(name.split())
        plain, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
        expected = re.sub(r"\r\n|\r|\n", "\n", text + "\n")
        assert (plain, html) == (expected, expected)


def test_headers_are_legible_where_they_can_be():
    raw = write_message(replace(titled("Confirm your address"), sender_name='Example, "Inc."'))
    assert b'From: "Example, \\"Inc.\\""\r\n <noreply@identity.example.org>\r\n' in raw
    assert b"\r\nSubject: Confirm your address\r\n" in raw
    assert b"\r\nDate: Mon, 21 Sep 2026 13:33:20 +0000\r\n" in raw
    assert b"From: noreply@identity.example.org\r\n" in write_message(replace(LETTER, sender_name=""))


@pytest.mark.parametrize("text", ["Identität", "ü" * 200, "\U0001f468 " * 60 + "x", "x " * 99 + "x"])
def test_another_reader_gets_the_same_words(text):
    raw = write_message(replace(titled(text), sender_name=text)).decode()
    subject = re.search(r"^Subject: ([^\r]*(?:\r\n [^\r]*)*)", raw, re.MULTILINE)[1]
    name = re.search(r"^From: ([^\r]*(?:\r\n [^\r]*)*)\r\n <", raw, re.MULTILINE)[1]
    for words in (subject, name):
        assert all(re.fullmatch(r"=\?utf-8\?b\?[^? ]+\?=", word) for word in words.split())
        assert max(len(word) for word in words.split()) <= 75
        assert str(make_header(decode_header(words.replace("\r\n", "")))) == text


def test_the_longest_addresses_stay_whole():
    longest = "a" * 64 + "@" + ".".join(["b" * 63, "c" * 63, "d" * 57, "org"])
    raw = write_message(replace(LETTER, sender=longest, sender_name="x" * 200, recipient=longest))
    assert f"\r\nTo: {longest}\r\n".encode() in raw
    assert f"\r\n <{longest}>\r\n".encode() in raw


INJECTIONS = [
    "=?x?q?=0d=0aSubject=3aYou_won=0d=0a=0d=0aGo_to_evil.io/x?=@example.org",
    "=?x?q?eve?=@example.org",
    "eve@evil.example, alice@example.org",
    "alice@example.org\r\nBcc: eve@evil.example",
    "alice@example.org\r\n\r\nHello",
    "alice@example.org\n",
    "alice@example.org\r",
    "alice\0@example.org",
    "friends: alice@example.org;",
    "alice@example.org (\x1b)",
    "alice@example.org (eve)",
    "Eve <alice@example.org>",
    "alice@example.org@evil.example",
    "ali\ud800ce@example.org",
    "",
]


@pytest.mark.parametrize("address", INJECTIONS)
def test_an_address_that_is_none_makes_no_message(address):
    """Nothing calls it with these: it does not rely on that."""
    for letter in (replace(LETTER, recipient=address), replace(LETTER, sender=address)):
        with pytest.raises(MessageProblem, match="not what was meant") as caught:
            write_message(letter)
        assert not re.search("alice|eve|evil", str(caught.value))


@pytest.mark.parametrize(
    "text", ["a\r\nBcc: eve@evil.example", "a\nb", "a\0b", "a\x7fb", "a\x85b", "a\u2028b"]
)
def test_controls_make_no_message(text):
    for letter in (titled(text), replace(LETTER, sender_name=text)):
        with pytest.raises(MessageProblem):
            write_message(letter)


def test_even_an_encoded_word_that_was_left_in_is_only_text():
    text = "Hi =?utf-8?q?room=0d=0aBcc=3aeve=40evil.example?="
    message = assert_well_formed(write_message(titled(text)))
    assert message["Subject"] == text


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        (b"Subject: Hello", b"Subject: Hello\r\nBcc: eve@evil.example", "names of headers"),
        (b"Subject: Hello", b"Subject: Hello\r\nSubject: Hello", "names of headers"),
        (b"Subject: Hello\r\n", b"", "names of headers"),
        (b"Subject: Hello", b"\r\nSubject: Hello", "names of headers"),
        (b"Subject: Hello", b"nonsense\r\nSubject: Hello", "names of headers"),
        (b"Subject: Hello", b"Subject: Bye", "Subject"),
        (b"Subject: Hello", b"Subject: =?utf-8?q?Hello=0d?=", "control characters"),
        (b"Subject: Hello", b"Subject: Hello\x1b", "control characters"),
        (b"Subject: Hello", b"Subject: Hello\r", "line ends"),
        (b"Subject: Hello\r\n", b"Subject: Hello\n", "line ends"),
        (b"Subject: Hello", b"Subject: Hello\xff", "cannot be read"),
        (b"To: alice@example.org", b"To: eve@evil.example", "To"),
        (b"To: alice@example.org", b"To: alice@example.org, eve@evil.example", "To"),
        (b"To: alice@example.org", b"To: Alice <alice@example.org>", "To"),
        (b'"Identity"', b'"Bank"', "From"),
        (b'From: "Identity"', b'From: eve@evil.example, "Identity"', "From"),
        (b"<noreply@", b"<reply@", "From"),
    ],
)
def test_what_differs_is_noticed(written, instead, says):
    raw = write_message(LETTER)
    check_message(raw, LETTER)
    assert raw.count(written) == 1
    with pytest.raises(MessageProblem, match=says) as caught:
        check_message(raw.replace(written, instead), LETTER)
    assert not re.search("alice|eve|evil", str(caught.value))
