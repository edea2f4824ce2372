import re
from datetime import UTC, datetime

import pytest
import pytest_twisted
from hypothesis import example, given, settings
from hypothesis import strategies as st
from senders.reading import assert_well_formed
from senders.relays import SILENCE, Recorder, templates_directory
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sydentish.actions.ports import Style
from sydentish.domain.errors import EmailSendError, InvalidEmail
from sydentish.domain.threepids import normalise_email
from sydentish.senders.email import EmailSender
from sydentish.senders.render import MailText, Templates, one_line

LINK = "https://identity.example.org/_matrix/identity/v2/validate/email/submitToken?sid=a&client_secret=b&token=c"
NOW = 1_790_000_000.5


@pytest.fixture
def new_sender(templates, results):
    def make(relay, **settings):
        clock = Clock()
        clock.advance(NOW)
        settings = {
            "templates": templates,
            "clock": clock,
            "random_bytes": lambda length: b"\xab" * length,
            "on_result": results.append,
            "server_name": "identity.example.org",
            "from_address": "noreply@identity.example.org",
        } | settings
        return EmailSender(relay=relay, **settings)

    return make


@pytest.fixture(scope="session")
def strangers(tmp_path_factory):
    """Templates with a subject that holds what strangers say."""
    brand = tmp_path_factory.mktemp("brands") / "default"
    brand.mkdir()
    (brand / "verification.eml.txt").write_text(SUBJECT_OF_STRANGERS)
    return Templates(templates_directory(), brand.parent)


@pytest_twisted.ensureDeferred
async def test_the_mail_as_an_independent_relay_got_it(new_sender, new_client, new_mailbox, results):
    mailbox = new_mailbox(starttls=True)
    sender = new_sender(new_client(mailbox.port, "starttls"), from_name="Example, Inc. (Identität)")
    await sender.send_verification("alice@example.org", LINK, Style())
    mail = await mailbox.next_mail()
    assert (mail.sender, mail.recipients) == ("noreply@identity.example.org", ("alice@example.org",))
    message = assert_well_formed(mail.raw)
    assert message["To"] == "alice@example.org"
    assert message["From"].addresses[0].addr_spec == "noreply@identity.example.org"
    assert message["From"].addresses[0].display_name == "Example, Inc. (Identität)"
    assert message["Subject"] == "Confirm your e-mail address"
    assert message["Date"].datetime == datetime.fromtimestamp(int(NOW), UTC)
    assert message["Message-ID"] == f"<{'ab' * 16}@identity.example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    text, html = (part.get_content() for part in message.iter_parts())
    assert LINK in text.splitlines()
    assert LINK.replace("&", "&amp;") in html
    assert results == ["sent"]


MINE = "{% block subject %}Mine{% endblock %}{% block body %}{{ link }} {{ server_name }}{% endblock %}"


@pytest.mark.parametrize(
    ("configured", "asked", "subject"),
    [
        (None, None, "Default"),
        ("acme", None, "Acme"),
        ("acme", "beta", "Beta"),
        (None, "beta", "Beta"),
        (None, "unknown", "Default"),
        (None, "../acme", "Default"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_brand_is_that_of_the_request_or_the_configured_one(
    configured, asked, subject, new_sender, tmp_path
):
    for brand in ("default", "acme", "beta"):
        (tmp_path / brand).mkdir()
        (tmp_path / brand / "verification.eml.txt").write_text(MINE.replace("Mine", brand.capitalize()))
    relay = Recorder()
    sender = new_sender(relay, templates=Templates(templates_directory(), tmp_path), brand=configured)
    await sender.send_verification("alice@example.org", LINK, Style(brand=asked, languages=("de",)))
    assert assert_well_formed(relay.sent[0][2])["Subject"] == subject


@pytest_twisted.ensureDeferred
async def test_a_mailbox_beyond_ascii(new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    address = normalise_email("Jürgen@Bücher.example")
    await new_sender(new_client(mailbox.port)).send_verification(address, LINK, Style())
    mail = await mailbox.next_mail()
    assert mail.mail_options == ("SMTPUTF8", "BODY=8BITMIME")
    message = assert_well_formed(mail.raw, seven_bits=False)
    assert message["To"] == "jürgen@bücher.example"
    assert "To: jürgen@bücher.example\r\n".encode() in mail.raw


@pytest_twisted.ensureDeferred
async def test_a_domain_beyond_ascii_needs_no_smtputf8(new_sender, new_client, new_mailbox):
    mailbox = new_mailbox(smtputf8=False)
    sender = new_sender(new_client(mailbox.port), from_address="Mailer@Bücher.example")
    await sender.send_verification(normalise_email("alice@Bücher.example"), LINK, Style())
    mail = await mailbox.next_mail()
    message = assert_well_formed(mail.raw)
    assert message["To"] == "alice@xn--bcher-kva.example"
    assert message["From"] == "Mailer@xn--bcher-kva.example"
    assert mail.sender == "Mailer@xn--bcher-kva.example"
    assert message["Message-ID"].endswith("@xn--bcher-kva.example>")


@pytest_twisted.ensureDeferred
async def test_a_sender_beyond_ascii_needs_smtputf8(new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    sender = new_sender(new_client(mailbox.port), from_address="identität@bücher.example")
    await sender.send_verification("alice@example.org", LINK, Style())
    mail = await mailbox.next_mail()
    assert mail.mail_options == ("SMTPUTF8", "BODY=8BITMIME")
    message = assert_well_formed(mail.raw, seven_bits=False)
    assert message["From"] == "identität@bücher.example"
    assert message["Message-ID"].endswith("@xn--bcher-kva.example>")


@pytest.mark.parametrize("length", [50, 70, 75, 76, 77, 900, 998, 1000, 3000])
@pytest_twisted.ensureDeferred
async def test_long_links_stay_whole(length, new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    link = LINK + "&x=" + "%3D.=" * (length // 5)
    await new_sender(new_client(mailbox.port)).send_verification("alice@example.org", link, Style())
    text, html = (
        part.get_content() for part in assert_well_formed((await mailbox.next_mail()).raw).iter_parts()
    )
    assert link in text.splitlines()
    assert f'href="{link.replace("&", "&amp;")}"' in html


HOSTILE = [
    "x\r\nBcc: all@example.org",
    '"quoted" <b@c.example>',
    "\0\x1b[2J",
    "\u202egro",
    "x" * 10_000,
    "ü" * 300,
    "a\n\nb",
    "room =?utf-8?q?=0d=0aBcc=3aall=40example.org=0d=0a=0d=0aHello?= x",
    "=?x?b?DQpCY2M6IGFsbEBleGFtcGxlLm9yZw==?=",
    "=\0?x?q?=0d=0aBcc=3aall=40example.org?=",
    "[Inc.] <a@b.example>, \\ (c) " + "x" * 80,
]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["server_name", "from_name", "link"])
@pytest_twisted.ensureDeferred
async def test_hostile_values_stay_where_they_are(place, hostile, new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    values = {} if place == "link" else {place: hostile}
    link = hostile if place == "link" else LINK
    await new_sender(new_client(mailbox.port), **values).send_verification("alice@example.org", link, Style())
    mail = await mailbox.next_mail()
    assert mail.recipients == ("alice@example.org",)
    message = assert_well_formed(mail.raw)
    assert [each.addr_spec for each in message["From"].addresses] == ["noreply@identity.example.org"]


SUBJECT_OF_STRANGERS = (
    "{% block subject %}Invite to {{ server_name }}{% endblock %}{% block body %}{{ link }}{% endblock %}"
)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest_twisted.ensureDeferred
async def test_a_subject_stays_a_subject(hostile, new_sender, new_client, new_mailbox, strangers):
    mailbox = new_mailbox()
    sender = new_sender(new_client(mailbox.port), templates=strangers, server_name=hostile)
    await sender.send_verification("alice@example.org", LINK, Style())
    message = assert_well_formed((await mailbox.next_mail()).raw)
    assert message["Subject"] == one_line(f"Invite to {hostile}")
    assert LINK in next(message.iter_parts()).get_content().splitlines()


# Random text is hardly ever an encoded word; these are made of what such words are made of.
NEAR_ENCODED_WORDS = st.lists(
    st.one_of(
        st.sampled_from(["=?", "?=", "=", "?", "utf-8", "?q?", "?b?", "=0d=0a", "DQo=", "Bcc=3a", "=3a=20"]),
        st.sampled_from(
            ["\0", "\u202e", "\u200d", "\r\n", " ", "ü", "\ud800", '"', "\\", "<", "@", ",", "(", ")"]
        ),
        st.text(max_size=3),
    ),
    max_size=30,
).map("".join)
LOCAL_PARTS = st.text(alphabet="ab0=?_-!#$%&'*+/^`{|}~äß", min_size=1, max_size=32)


@given(address=LOCAL_PARTS, name=NEAR_ENCODED_WORDS, server_name=NEAR_ENCODED_WORDS, link=NEAR_ENCODED_WORDS)
@example(
    address="=?x?q?=0d=0aSubject=3aYou_won=0d=0a=0d=0aGo_to_evil.io/x?=",
    name="=?utf-8?q?room=0d=0aBcc=3aeve=40evil.io?=",
    server_name="=?utf-8?q?room=0d=0aBcc=3aeve=40evil.io?=",
    link="=?utf-8?q?room=0d=0aBcc=3aeve=40evil.io?=",
)
@settings(deadline=None)
def test_nobody_adds_a_header(address, name, server_name, link, strangers):
    try:
        address = normalise_email(f"{address}@example.org")
    except InvalidEmail:
        assert "=?" in address
        address = "alice@example.org"
    relay = Recorder()
    sender = EmailSender(
        templates=strangers,
        relay=relay,
        clock=Clock(),
        random_bytes=bytes,
        on_result=lambda _: None,
        server_name=server_name,
        from_address="noreply@identity.example.org",
        from_name=name,
    )
    link = f"{LINK}&x={link}"
    # The relay takes it at once: it ends without having waited.
    with pytest.raises(StopIteration):
        sender.send_verification(address, link, Style()).send(None)
    [(envelope_sender, recipient, raw)] = relay.sent
    assert (envelope_sender, recipient.envelope) == ("noreply@identity.example.org", address)
    message = assert_well_formed(raw, seven_bits=address.isascii())
    assert message["To"].addresses[0].addr_spec.encode("utf-8", "surrogateescape").decode() == address
    assert [each.addr_spec for each in message["From"].addresses] == ["noreply@identity.example.org"]
    assert "".join(message["From"].addresses[0].display_name.split()) == "".join(one_line(name).split())
    assert message["Subject"] == one_line(f"Invite to {server_name}")
    meant = strangers.mail(
        "verification", None, {"address": address, "link": link, "server_name": server_name}
    )
    plain, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    assert (plain, html) == (meant.text, meant.html)
    assert LINK in plain


class Careless:
    """Templates that take no care of a subject."""

    def __init__(self, subject):
        self.subject = subject

    def mail(self, _name, _brand, _variables):
        return MailText(self.subject, "text\n", "html\n")


@pytest.mark.parametrize(
    "subject", ["a\r\nBcc: eve@evil.example", "a\rb", "a\nb", "a\0b", "a\x85b", "a\ud800b"]
)
@pytest_twisted.ensureDeferred
async def test_a_mail_that_would_say_something_else_is_not_sent(subject, new_sender, results, logged):
    relay = Recorder()
    sender = new_sender(relay, templates=Careless(subject))
    with pytest.raises(EmailSendError) as error:
        await sender.send_verification("alice.secret@example.org", LINK, Style())
    assert relay.sent == []
    assert results == ["failed"]
    assert "mail not handed over, failed: the message is not what was meant" in logged()
    assert not re.search("secret@|token=|evil", logged() + str(error.value))
    assert error.value.__cause__ is None


@pytest.mark.parametrize("reply", [b"550 <alice.secret@example.org> unknown\r\n", b"450 later\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_refusal(reply, new_sender, new_client, new_relay, results, logged):  # noqa: PLR0917
    relay = await new_relay(RCPT=reply)
    with pytest.raises(EmailSendError) as error:
        await new_sender(new_client(relay.port)).send_verification("alice.secret@example.org", LINK, Style())
    assert results == ["refused"]
    assert f"the relay answered {reply[:3].decode()} to RCPT" in logged()
    assert not re.search("secret@|token=", logged() + str(error.value))
    assert error.value.__cause__ is None


@pytest_twisted.ensureDeferred
async def test_a_failure(new_sender, new_client, new_relay, results, logged):
    relay = await new_relay(EHLO=b"alice.secret@example.org?\r\n")
    with pytest.raises(EmailSendError):
        await new_sender(new_client(relay.port)).send_verification("alice.secret@example.org", LINK, Style())
    assert results == ["failed"]
    assert "does not speak SMTP at EHLO" in logged()
    assert "secret" not in logged().replace("client_secret", "")


@pytest_twisted.ensureDeferred
async def test_a_relay_that_is_late(new_sender, new_client, new_relay, clock, results, logged):  # noqa: PLR0917
    relay = await new_relay(message=SILENCE)
    sender = new_sender(new_client(relay.port))
    sending = Deferred.fromCoroutine(sender.send_verification("alice.secret@example.org", LINK, Style()))
    await relay.reached("message")
    clock.advance(31)
    with pytest.raises(EmailSendError):
        await sending
    assert results == ["timeout"]
    assert "waiting for: message" in logged()
    assert "secret@" not in logged()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "Name <a@b.example>",
        "a@b.example\r\nBcc: c@d.example",
        "=?x?q?=0d=0aX=3ay?=@b.example",
    ],
)
def test_a_from_address_that_is_none(address, new_sender):
    with pytest.raises(InvalidEmail):
        new_sender(Recorder(), from_address=address)
