import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import pytest_twisted
from hypothesis import example, given, settings
from hypothesis import strategies as st
from senders.reading import assert_well_formed
from senders.relays import CLOSE, SILENCE, Recorder, templates_directory
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.domain.ephemeral import ephemeral_key
from sydentish.domain.invite_links import invitation_link, sign_url
from sydentish.domain.invites import Invitation, InviteDetails, InviteMail
from sydentish.domain.threepids import Threepid
from sydentish.senders.email import EmailSender
from sydentish.senders.invites import InviteMailer
from sydentish.senders.render import MailText, Templates

ALICE = "alice.secret@example.org"
BOB = "@bob:example.org"
KEY = ephemeral_key(b"\xff" * 32)
INVITATION = Invitation("secret-token", Threepid("email", ALICE), "!abc:example.org", BOB, 1, 2)
TEA = InviteDetails(room_name="Tea House", room_alias="#tea:example.org", sender_display_name="Bob Smith")


def mail_of(details=TEA, **changes):
    signing = sign_url("https://id.example.org", INVITATION.token, KEY.private_key)
    link = invitation_link("https://app.element.io", INVITATION, details, signing)
    return replace(InviteMail(address=ALICE, link=link, sender=BOB, details=details), **changes)


def delivery_of(mail):
    payload = mail if isinstance(mail, str) else mail.to_json()
    return Delivery(outbox_id=1, destination="relay", payload=payload, attempts=0, method=None)


@pytest.fixture
def new_mailer(templates, results, clock):
    def make(relay, **settings):
        sender = EmailSender(
            relay=relay,
            clock=clock,
            random_bytes=lambda length: b"\xab" * length,
            on_result=lambda _: results.append("reported twice"),
            server_name="id.example.org",
            from_address="noreply@id.example.org",
            **{"templates": templates} | settings,
        )
        return InviteMailer(sender=sender, clock=clock, time_limit=8.0, on_result=results.append)

    return make


def start(mailer, mail=None):
    return Deferred.fromCoroutine(mailer.deliver(delivery_of(mail_of() if mail is None else mail)))


class Reading(HTMLParser):
    """What a mail in HTML consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.links = []
        self.words = ""
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(sorted(name for name, _ in attributes))))
        self.links += [value for name, value in attributes if name in {"href", "src", "background"}]
        self._silent = tag == "style"

    def handle_data(self, data):
        self.words += "" if self._silent else data


def rendered(mail, templates):
    """The parsed mail, its subject, text and HTML."""
    relay = Recorder()
    sender = EmailSender(
        templates=templates,
        relay=relay,
        clock=Clock(),
        random_bytes=bytes,
        on_result=lambda _: None,
        server_name="id.example.org",
        from_address="noreply@id.example.org",
    )
    mailer = InviteMailer(sender=sender, clock=Clock(), time_limit=8.0, on_result=lambda _: None)
    # The relay takes it at once: it ends without having waited.
    with pytest.raises(StopIteration) as ended:
        mailer.deliver(delivery_of(mail)).send(None)
    assert ended.value.value == Delivered()
    [(_, _, raw)] = relay.sent
    message = assert_well_formed(raw)
    text, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    return message, text, html


@pytest_twisted.ensureDeferred
async def test_the_mail_as_an_independent_relay_got_it(new_mailer, new_client, new_mailbox, results):
    mailbox = new_mailbox(starttls=True)
    mailer = new_mailer(new_client(mailbox.port, "starttls"))
    assert await mailer.deliver(delivery_of(mail_of())) == Delivered()
    mail = await mailbox.next_mail()
    assert (mail.sender, mail.recipients) == ("noreply@id.example.org", (ALICE,))
    message = assert_well_formed(mail.raw)
    assert message["To"] == ALICE
    assert message["Subject"] == "Matrix invitation from Bob Smith (@bob:example.org)"
    text, html = (part.get_content() for part in message.iter_parts())
    assert mail_of().link in text.splitlines()
    assert set(Reading(html).links) == {mail_of().link}
    for part in (text, Reading(html).words):
        for words in ("Tea House", "Bob Smith", BOB, "id.example.org", "limited time"):
            assert words in part
    assert results == ["sent"]


# --- what it says --------------------------------------------------------------------------------------


def test_a_room_and_a_space(templates):
    for room_type, what, other in ((None, "room", "space"), ("m.space", "space", "room")):
        _, text, html = rendered(mail_of(replace(TEA, room_type=room_type)), templates)
        assert f"invited to a {what}" in text
        assert f"{what.capitalize()}:" in text
        assert f"You are invited to a {what}" in Reading(html).words
        assert f"invited to a {other}" not in text + html


def test_an_alias_where_there_is_no_name(templates):
    _, text, html = rendered(mail_of(replace(TEA, room_name="")), templates)
    assert "    Room:       #tea\n" in text
    assert "#tea" in Reading(html).words
    assert "Tea House" not in text + html


def test_where_nothing_is_known_nothing_is_said(templates):
    message, text, html = rendered(mail_of(InviteDetails()), templates)
    assert message["Subject"] == "Matrix invitation from @bob:example.org"
    assert "    From:       @bob:example.org\n" in text
    for part in (text, Reading(html).words):
        assert part.count(BOB) == 1
        assert not re.search(r"Room\b|None|Matrix ID:|Their Matrix ID", part)


@pytest.mark.parametrize("room", [None, "Tea House"])
@pytest.mark.parametrize("name", [None, "Bob Smith"])
def test_what_is_known_stands_together(templates, room, name):
    _, text, _ = rendered(mail_of(InviteDetails(room_name=room, sender_display_name=name)), templates)
    known = {"Room:": room, "From:": name or BOB, "Matrix ID:": BOB if name else None}
    lines = [f"    {label:12}{value}" for label, value in known.items() if value is not None]
    assert "\n\n" + "\n".join(lines) + "\n\nTo see the invitation" in text
    assert "\n\n\n" not in text


def test_a_name_never_stands_without_the_checked_id(templates):
    mail = mail_of(InviteDetails(sender_display_name="@admin:example.org"), sender="@eve:evil.example")
    message, text, html = rendered(mail, templates)
    assert message["Subject"] == "Matrix invitation from @admin: example. org (@eve:evil.example)"
    assert "    From:       @admin: example. org\n    Matrix ID:  @eve:evil.example\n" in text
    words = " ".join(Reading(html).words.split())
    assert "From @admin: example. org Their Matrix ID @eve:evil.example" in words


def test_nothing_is_loaded_from_anywhere(templates):
    details = replace(TEA, room_avatar_url="mxc://a.example/x", sender_avatar_url="mxc://a.example/y")
    _, text, html = rendered(mail_of(details), templates)
    assert not re.search(r"<img|<script|<link|src=|url\(|@import", html)
    assert "mxc:" not in html + text


HOSTILE = [
    "x\r\nBcc: all@example.org",
    "x\n\n.\r\nMAIL FROM:<eve@evil.example>",
    '"quoted" <b@c.example>',
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "<a href=https://evil.example>click</a>",
    "</td></table><h1>You won</h1>",
    "https://evil.example/login",
    "evil.example www.evil.example evil\u3002example",
    "{{ 7 * 7 }}{% raw %}",
    "\0\x07\x1b[2J\x7f\x85",
    "\u202egro.elpmaxe\u2066\u2028\u2029\ufeff",
    "\ud800",
    "W" * 4096,
    "\u0301" * 4096,
    "ü" * 300,
    "ليلى (2)",
    "=?utf-8?q?=0d=0aBcc=3aall=40example.org=0d=0a=0d=0aHello?=",
    "=\0?x?q?=0d=0aBcc=3aall=40example.org?=",
    "[Inc.] <a@b.example>, \\ (c) " + "x" * 80,
    "-- \n",
]
TEXTS = ["room_name", "room_alias", "sender_display_name", "room_type", "room_join_rules", "room_avatar_url"]
LINK = re.compile(
    r"(?i)[a-z][a-z0-9+.-]*:[/\\\w]|[^\W_][.\u3002\uff0e][\u200c\u200d]*[^\W\d_]{2,}|\\\\|www\.\w"
)


def assert_calm(mail, templates):
    """Whatever it holds, it has the shape of a mail that says nothing odd, and one link."""
    message, text, html = rendered(mail, templates)
    calm = rendered(mail_of(InviteDetails(room_name="x", sender_display_name="y")), templates)
    assert message["To"].addresses[0].addr_spec == ALICE
    assert [each.addr_spec for each in message["From"].addresses] == ["noreply@id.example.org"]
    subject = str(message["Subject"])
    assert subject.startswith("Matrix invitation from ")
    assert not LINK.search(subject.replace(BOB, ""))
    reading = Reading(html)
    assert set(reading.links) == {mail.link}
    assert not LINK.search(text.replace(mail.link, "").replace(BOB, "").replace("id.example.org", ""))
    assert not LINK.search(reading.words.replace(BOB, "").replace("id.example.org", ""))
    assert set(reading.tags) <= set(Reading(calm[2]).tags)
    assert len(text.splitlines()) <= len(calm[1].splitlines())
    for part in (subject, text, html):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", part)


@pytest.mark.parametrize("place", TEXTS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts(place, hostile, templates):
    assert_calm(mail_of(replace(TEA, **{place: hostile})), templates)


@given(values=st.fixed_dictionaries({name: st.none() | st.text(max_size=40) for name in TEXTS}))
@example(values=dict.fromkeys(TEXTS, "http://a.b\r\n=?x?q?=0d?=<b>"))
@settings(deadline=None)
def test_any_texts(values, templates):
    assert_calm(mail_of(InviteDetails(**values)), templates)


def test_a_very_long_user_id(templates):
    sender = f"@{'b' * 200}:example.org"
    message, text, html = rendered(mail_of(sender=sender), templates)
    assert len(str(message["Subject"])) == 200
    assert sender in text
    assert sender in html


def test_a_user_id_of_old_times_is_escaped(templates):
    _, text, html = rendered(mail_of(sender='@<b>"x":example.org'), templates)
    assert '@<b>"x":example.org' in text
    assert "@&lt;b&gt;&#34;x&#34;:example.org" in html


@pytest.mark.parametrize("brand", ["acme", None, "unknown"])
def test_brands(brand, tmp_path):
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "invite.eml.txt").write_text(
        "{% block subject %}Acme {{ bracketed_room_name }}{% endblock %}"
        "{% block body %}{{ link }} {{ room_join_rules }} {{ room_type }} {{ room_alias }}{% endblock %}"
    )
    templates = Templates(templates_directory(), tmp_path)
    templates.check()
    message, _, _ = rendered(mail_of(brand=brand), templates)
    assert (message["Subject"] == "Acme (Tea House)") == (brand == "acme")


# --- how it is delivered -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code", "permanent"),
    [
        ("greeting", 421, False),
        ("greeting", 554, False),
        ("EHLO", 550, False),
        ("MAIL", 451, False),
        ("MAIL", 530, False),
        ("MAIL", 550, True),
        ("RCPT", 421, False),
        ("RCPT", 450, False),
        ("RCPT", 550, True),
        ("DATA", 452, False),
        ("DATA", 554, True),
        ("message", 451, False),
        ("message", 552, True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_refusal(step, code, permanent, new_mailer, new_client, new_relay, results, logged):  # noqa: PLR0917
    relay = await new_relay(**{step: f"{code} <{ALICE}> secret-token\r\n".encode()})
    verdict = await start(new_mailer(new_client(relay.port)))
    reason = f"the relay answered {code} to {step}"
    # A mailbox that takes nothing now is no reason to leave the relay alone.
    well = step == "RCPT" and code != 421
    assert verdict == NotDelivered(reason, permanent=permanent, destination_is_well=well)
    assert results == ["refused"]
    assert "secret" not in logged() + verdict.reason


@pytest_twisted.ensureDeferred
async def test_a_login_that_is_refused_can_be_set_right(new_mailer, new_client, new_relay):
    relay = await new_relay(AUTH=b"535 no\r\n")
    client = new_client(relay.port, username="mailer", password="wrong horse")
    assert await start(new_mailer(client)) == NotDelivered("the relay answered 535 to AUTH", permanent=False)


@pytest.mark.parametrize("reply", [CLOSE, b"what?\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_failure(reply, new_mailer, new_client, new_relay, results):
    relay = await new_relay(DATA=reply)
    verdict = await start(new_mailer(new_client(relay.port)))
    assert (verdict.permanent, results) == (False, ["failed"])
    assert ALICE not in verdict.reason


@pytest_twisted.ensureDeferred
async def test_nobody_listens(new_mailer, new_client, results):
    closed = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    port = closed.getHost().port
    await closed.stopListening()
    verdict = await start(new_mailer(new_client(port)))
    assert not verdict.permanent
    assert "no connection to the relay" in verdict.reason
    assert results == ["failed"]


@pytest.mark.parametrize("step", ["greeting", "EHLO", "RCPT", "message"])
@pytest_twisted.ensureDeferred
async def test_the_limit(step, new_mailer, new_client, new_relay, clock, results):  # noqa: PLR0917
    relay = await new_relay(**{step: SILENCE})
    delivering = start(new_mailer(new_client(relay.port)))
    await relay.reached(step)
    clock.advance(7.9)
    assert not delivering.called
    clock.advance(0.2)
    verdict = await delivering
    assert verdict == NotDelivered("the relay did not take it within the limit", permanent=False)
    assert results == ["timeout"]
    await relay.no_connections()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_limit_of_the_relay_can_come_first(new_mailer, new_client, new_relay, clock, results):
    relay = await new_relay(message=SILENCE)
    delivering = start(new_mailer(new_client(relay.port, timeout=2.0)))
    await relay.reached("message")
    clock.advance(2.1)
    verdict = await delivering
    assert (verdict.permanent, results) == (False, ["timeout"])


@pytest.mark.parametrize("step", ["greeting", "EHLO", "RCPT", "message"])
@pytest_twisted.ensureDeferred
async def test_cancelling_cuts_the_connection(step, new_mailer, new_client, new_relay, clock, results):  # noqa: PLR0917
    relay = await new_relay(**{step: SILENCE})
    delivering = start(new_mailer(new_client(relay.port)))
    await relay.reached(step)
    delivering.cancel()
    with pytest.raises(CancelledError):
        await delivering
    await relay.no_connections()
    assert (results, clock.getDelayedCalls()) == ([], [])


@pytest_twisted.ensureDeferred
async def test_an_address_that_this_relay_cannot_be_told(new_mailer, new_client, new_mailbox, results):
    mailbox = new_mailbox(smtputf8=False)
    verdict = await start(new_mailer(new_client(mailbox.port)), mail_of(address="jürgen@example.org"))
    assert verdict == NotDelivered(
        "the relay does not offer SMTPUTF8, which the address needs", permanent=True
    )
    assert (mailbox.mails, results) == ([], ["failed"])


@pytest.mark.parametrize(
    "address", ["", "nobody", "a@b.example\r\nBcc: c@d.example", "a b@c.example", "a@b@c"]
)
@pytest_twisted.ensureDeferred
async def test_an_address_that_is_none(address, new_mailer, results):
    relay = Recorder()
    verdict = await start(new_mailer(relay), mail_of(address=address))
    assert verdict.permanent
    assert (relay.sent, results) == ([], ["failed"])


@pytest.mark.parametrize("payload", ["", "{}", "secret", '{"address": "secret@example.org"}'])
@pytest_twisted.ensureDeferred
async def test_a_payload_that_cannot_be_read(payload, new_mailer):
    verdict = await start(new_mailer(Recorder()), payload)
    assert verdict == NotDelivered("the payload is not that of an invitation mail", permanent=True)


class Careless:
    """Templates that take no care of a subject."""

    def mail(self, _name, _brand, _variables):
        return MailText("a\r\nBcc: eve@evil.example", "text\n", "html\n")


@pytest_twisted.ensureDeferred
async def test_a_mail_that_would_say_something_else_is_never_sent(new_mailer, results):
    relay = Recorder()
    verdict = await start(new_mailer(relay, templates=Careless()))
    assert verdict.permanent
    assert verdict.reason.startswith("the message is not what was meant")
    assert (relay.sent, results) == ([], ["failed"])


@pytest_twisted.ensureDeferred
async def test_a_template_that_fails_can_be_mended(new_mailer, results, tmp_path, logged):
    brand = tmp_path / "default"
    brand.mkdir()
    (brand / "invite.eml.txt").write_text(
        "{% block subject %}x{% endblock %}{% block body %}{{ {}[address].x }}{% endblock %}"
    )
    relay = Recorder()
    verdict = await start(new_mailer(relay, templates=Templates(templates_directory(), tmp_path)))
    assert verdict == NotDelivered("the templates of the mail cannot be rendered", permanent=False)
    assert (relay.sent, results) == ([], ["failed"])
    assert "invite.eml.txt" in logged()
