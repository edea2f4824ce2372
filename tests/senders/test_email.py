import email
import email.policy
import re
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from senders.relays import SILENCE
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sydentish.domain.errors import EmailSendError, InvalidEmail
from sydentish.domain.threepids import mailbox as recipient_of
from sydentish.domain.threepids import normalise_email
from sydentish.senders.email import EmailSender
from sydentish.senders.render import MailText

LINK = "https://identity.example.org/_matrix/identity/v2/validate/email/submitToken?sid=a&client_secret=b&token=c"
NOW = 1_790_000_000.5


class Recorder:
    """A relay that takes everything."""

    def __init__(self):
        self.sent = []

    async def send(self, sender, recipient, message):
        self.sent.append((sender, recipient, message))


@pytest.fixture
def results():
    return []


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


def parse(raw):
    return email.message_from_bytes(raw, EmailMessage, policy=email.policy.SMTPUTF8)


def assert_well_formed(raw, *, seven_bits=True):
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", raw)
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert not seven_bits or raw.isascii()
    message = parse(raw)
    assert message.defects == []
    for header in (
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "Auto-Submitted",
    ):
        assert len(message.get_all(header)) == 1
        # Python's reader calls every local part beyond ASCII a defect, SMTPUTF8 or not.
        assert message[header].defects == () or (header in {"From", "To"} and not seven_bits)
    assert len(message.keys()) == 8
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert all(part.defects == [] and part.get_content_charset() == "utf-8" for part in message.iter_parts())
    return message


@pytest_twisted.ensureDeferred
async def test_the_mail_as_an_independent_relay_got_it(new_sender, new_client, new_mailbox, results):
    mailbox = new_mailbox(starttls=True)
    sender = new_sender(new_client(mailbox.port, "starttls"), from_name="Example, Inc. (Identität)")
    await sender.send_verification("alice@example.org", LINK)
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


@pytest_twisted.ensureDeferred
async def test_a_mailbox_beyond_ascii(new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    address = normalise_email("Jürgen@Bücher.example")
    await new_sender(new_client(mailbox.port)).send_verification(address, LINK)
    mail = await mailbox.next_mail()
    assert mail.mail_options == ("SMTPUTF8", "BODY=8BITMIME")
    message = assert_well_formed(mail.raw, seven_bits=False)
    assert message["To"] == "jürgen@bücher.example"
    assert "To: jürgen@bücher.example\r\n".encode() in mail.raw


@pytest_twisted.ensureDeferred
async def test_a_domain_beyond_ascii_needs_no_smtputf8(new_sender, new_client, new_mailbox):
    mailbox = new_mailbox(smtputf8=False)
    sender = new_sender(new_client(mailbox.port), from_address="Mailer@Bücher.example")
    await sender.send_verification(normalise_email("alice@Bücher.example"), LINK)
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
    await sender.send_verification("alice@example.org", LINK)
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
    await new_sender(new_client(mailbox.port)).send_verification("alice@example.org", link)
    text, html = (
        part.get_content() for part in assert_well_formed((await mailbox.next_mail()).raw).iter_parts()
    )
    assert link in text.splitlines()
    assert f'href="{link.replace("&", "&amp;")}"' in html


@given(
    subject=st.text(alphabet=st.characters(exclude_categories=["C", "Z"])).map(lambda text: text[:200]),
    name=st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=60),
    text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
@settings(deadline=None)
def test_whatever_is_in_it_the_message_is_well_formed(subject, name, text, templates):
    for address in ("alice@example.org", "jürgen@example.org"):
        sender = EmailSender(
            templates=templates,
            relay=Recorder(),
            clock=Clock(),
            random_bytes=bytes,
            on_result=lambda _: None,
            server_name="x",
            from_address="noreply@identity.example.org",
            from_name=name,
        )
        raw = sender._message(recipient_of(address), MailText("s " + subject, text + "\n", text + "\n"))
        message = assert_well_formed(raw, seven_bits=address.isascii())
        assert message["Subject"].split() == f"s {subject}".split()
        # Python reads a blank between two encoded words of a name, where RFC 2047 has none.
        shown = "".join(message["From"].addresses[0].display_name.split())
        # It also leaves UTF-8 in headers undecoded.
        assert shown.encode("utf-8", "surrogateescape").decode() == name
        plain, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
        expected = re.sub(r"\r\n|\r|\n", "\n", text + "\n")
        assert (plain, html) == (expected, expected)


HOSTILE = [
    "x\r\nBcc: all@example.org",
    '"quoted" <b@c.example>',
    "\0\x1b[2J",
    "\u202egro",
    "x" * 10_000,
    "ü" * 300,
    "a\n\nb",
]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["server_name", "from_name", "link"])
@pytest_twisted.ensureDeferred
async def test_hostile_values_stay_where_they_are(place, hostile, new_sender, new_client, new_mailbox):
    mailbox = new_mailbox()
    values = {} if place == "link" else {place: hostile}
    link = hostile if place == "link" else LINK
    await new_sender(new_client(mailbox.port), **values).send_verification("alice@example.org", link)
    mail = await mailbox.next_mail()
    assert mail.recipients == ("alice@example.org",)
    message = assert_well_formed(mail.raw)
    assert [each.addr_spec for each in message["From"].addresses] == ["noreply@identity.example.org"]


@pytest.mark.parametrize("reply", [b"550 <alice.secret@example.org> unknown\r\n", b"450 later\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_refusal(reply, new_sender, new_client, new_relay, results, logged):  # noqa: PLR0917
    relay = await new_relay(RCPT=reply)
    with pytest.raises(EmailSendError) as error:
        await new_sender(new_client(relay.port)).send_verification("alice.secret@example.org", LINK)
    assert results == ["refused"]
    assert f"the relay answered {reply[:3].decode()} to RCPT" in logged()
    assert not re.search("secret@|token=", logged() + str(error.value))
    assert error.value.__cause__ is None


@pytest_twisted.ensureDeferred
async def test_a_failure(new_sender, new_client, new_relay, results, logged):
    relay = await new_relay(EHLO=b"alice.secret@example.org?\r\n")
    with pytest.raises(EmailSendError):
        await new_sender(new_client(relay.port)).send_verification("alice.secret@example.org", LINK)
    assert results == ["failed"]
    assert "does not speak SMTP at EHLO" in logged()
    assert "secret" not in logged().replace("client_secret", "")


@pytest_twisted.ensureDeferred
async def test_a_relay_that_is_late(new_sender, new_client, new_relay, clock, results, logged):  # noqa: PLR0917
    relay = await new_relay(message=SILENCE)
    sender = new_sender(new_client(relay.port))
    sending = Deferred.fromCoroutine(sender.send_verification("alice.secret@example.org", LINK))
    await relay.reached("message")
    clock.advance(31)
    with pytest.raises(EmailSendError):
        await sending
    assert results == ["timeout"]
    assert "waiting for: message" in logged()
    assert "secret@" not in logged()


@pytest.mark.parametrize("address", ["", "nobody", "Name <a@b.example>", "a@b.example\r\nBcc: c@d.example"])
def test_a_from_address_that_is_none(address, new_sender):
    with pytest.raises(InvalidEmail):
        new_sender(Recorder(), from_address=address)
