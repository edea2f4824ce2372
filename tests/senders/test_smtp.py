"""Against an independent relay (aiosmtpd), on real sockets, with real TLS."""

import pytest
import pytest_twisted
import trustme
from twisted.internet import reactor

from sydentish.domain.threepids import Mailbox as Recipient
from sydentish.domain.threepids import mailbox as recipient_of
from sydentish.senders.relay import Relay, RelayFailed, RelayRefused, relay_tls

SENDER = "noreply@identity.example.org"
ALICE = recipient_of("alice@example.org")
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LOGIN = ("mailer", "correct horse")
USE_LOGIN = {"username": LOGIN[0], "password": LOGIN[1]}


@pytest_twisted.ensureDeferred
async def test_plain_when_that_is_the_setting(new_client, new_mailbox):
    mailbox = new_mailbox()
    await new_client(mailbox.port).send(SENDER, ALICE, MESSAGE)
    mail = await mailbox.next_mail()
    assert (mail.sender, mail.recipients, mail.mail_options) == (SENDER, ("alice@example.org",), ())
    assert mail.raw == MESSAGE
    assert not mail.tls


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_tls_verified_against_the_host(security, host, new_client, new_mailbox):
    mailbox = new_mailbox(**{security: True})
    await new_client(mailbox.port, security, host).send(SENDER, ALICE, MESSAGE)
    mail = await mailbox.next_mail()
    assert mail.tls
    assert mail.raw == MESSAGE


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_name(security, authority, new_client, new_mailbox, logged):
    mailbox = new_mailbox(presents=authority.issue_cert("other.example"), **{security: True})
    client = new_client(mailbox.port, security, **USE_LOGIN)
    with pytest.raises(RelayFailed, match=r"certificate is for another name|certificate verify failed"):
        await client.send(SENDER, ALICE, MESSAGE)
    assert mailbox.mails == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_of_an_unknown_authority(security, new_client, new_mailbox):
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    mailbox = new_mailbox(presents=certificate, **{security: True})
    with pytest.raises(RelayFailed, match="TLS failed"):
        await new_client(mailbox.port, security).send(SENDER, ALICE, MESSAGE)
    assert mailbox.mails == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_the_system_does_not_trust_the_test_authority(security, new_client, new_mailbox):
    mailbox = new_mailbox(**{security: True})
    with pytest.raises(RelayFailed, match="TLS failed"):
        await new_client(mailbox.port, security, trust="system").send(SENDER, ALICE, MESSAGE)


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_checking_can_be_switched_off(security, new_client, new_mailbox):
    mailbox = new_mailbox(presents=trustme.CA().issue_cert("other.example"), **{security: True})
    await new_client(mailbox.port, security, trust="anybody").send(SENDER, ALICE, MESSAGE)
    assert (await mailbox.next_mail()).tls


@pytest_twisted.ensureDeferred
async def test_starttls_is_never_given_up(new_client, new_mailbox):
    mailbox = new_mailbox(login=LOGIN)
    with pytest.raises(RelayFailed, match="does not offer STARTTLS"):
        await new_client(mailbox.port, "starttls", **USE_LOGIN).send(SENDER, ALICE, MESSAGE)
    assert mailbox.mails == []


@pytest_twisted.ensureDeferred
async def test_tls_to_a_relay_that_speaks_none(new_client, new_mailbox):
    mailbox = new_mailbox()
    with pytest.raises(RelayFailed, match="TLS failed"):
        await new_client(mailbox.port, "tls").send(SENDER, ALICE, MESSAGE)


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
@pytest.mark.parametrize("security", ["plain", "starttls", "tls"])
@pytest_twisted.ensureDeferred
async def test_login(security, mechanism, new_client, new_mailbox, logged):
    mailbox = new_mailbox(
        login=LOGIN, mechanisms=[mechanism], **({} if security == "plain" else {security: True})
    )
    await new_client(mailbox.port, security, **USE_LOGIN).send(SENDER, ALICE, MESSAGE)
    assert (await mailbox.next_mail()).login == LOGIN[0]
    assert LOGIN[1] not in logged()


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
@pytest_twisted.ensureDeferred
async def test_a_wrong_password(mechanism, new_client, new_mailbox):
    mailbox = new_mailbox(login=LOGIN, mechanisms=[mechanism], starttls=True)
    client = new_client(mailbox.port, "starttls", username=LOGIN[0], password="wrong")
    with pytest.raises(RelayRefused) as refused:
        await client.send(SENDER, ALICE, MESSAGE)
    assert (refused.value.code, refused.value.step) == (535, "AUTH")
    assert mailbox.mails == []


@pytest_twisted.ensureDeferred
async def test_no_login_is_offered_where_one_is_set(new_client, new_mailbox):
    mailbox = new_mailbox(starttls=True)
    with pytest.raises(RelayFailed, match="does not offer a login"):
        await new_client(mailbox.port, "starttls", **USE_LOGIN).send(SENDER, ALICE, MESSAGE)
    assert mailbox.mails == []


@pytest_twisted.ensureDeferred
async def test_a_login_is_needed_where_none_is_set(new_client, new_mailbox):
    mailbox = new_mailbox(login=LOGIN)
    with pytest.raises(RelayRefused) as refused:
        await new_client(mailbox.port).send(SENDER, ALICE, MESSAGE)
    assert (refused.value.code, refused.value.step) == (530, "MAIL")


@pytest_twisted.ensureDeferred
async def test_smtputf8_where_it_is_offered(new_client, new_mailbox):
    mailbox = new_mailbox(starttls=True)
    message = "Subject: Grüße\r\n\r\nHello.\r\n".encode()
    await new_client(mailbox.port, "starttls").send(SENDER, recipient_of("jürgen@bücher.example"), message)
    mail = await mailbox.next_mail()
    assert mail.recipients == ("jürgen@bücher.example",)
    assert mail.mail_options == ("SMTPUTF8", "BODY=8BITMIME")
    assert mail.raw == message


@pytest_twisted.ensureDeferred
async def test_smtputf8_where_it_is_not_offered(new_client, new_mailbox, logged):
    mailbox = new_mailbox(smtputf8=False)
    with pytest.raises(RelayFailed, match="SMTPUTF8") as failed:
        await new_client(mailbox.port).send(SENDER, recipient_of("jürgen@example.org"), MESSAGE)
    assert mailbox.mails == []
    assert "jürgen" not in str(failed.value) + logged()


@pytest.mark.parametrize("smtputf8", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_probe_logs_in_and_hands_nothing_over(smtputf8, new_client, new_mailbox):
    mailbox = new_mailbox(starttls=True, login=LOGIN, smtputf8=smtputf8)
    client = new_client(mailbox.port, "starttls", max_connections=1, **USE_LOGIN)
    assert await client.probe() is smtputf8
    # Its connection was given back, and mails go on.
    await client.send(SENDER, ALICE, MESSAGE)
    assert (await mailbox.next_mail()).recipients == ("alice@example.org",)
    assert len(mailbox.mails) == 1


@pytest_twisted.ensureDeferred
async def test_a_probe_with_a_wrong_password(new_client, new_mailbox):
    mailbox = new_mailbox(starttls=True, login=LOGIN)
    client = new_client(mailbox.port, "starttls", username=LOGIN[0], password="wrong")
    with pytest.raises(RelayRefused, match="535 to AUTH"):
        await client.probe()


@pytest_twisted.ensureDeferred
async def test_a_domain_beyond_ascii_goes_as_a_labels(new_client, new_mailbox):
    mailbox = new_mailbox(smtputf8=False)
    await new_client(mailbox.port).send(SENDER, recipient_of("alice@bücher.example"), MESSAGE)
    mail = await mailbox.next_mail()
    assert mail.recipients == ("alice@xn--bcher-kva.example",)
    assert mail.mail_options == ()


@pytest_twisted.ensureDeferred
async def test_dots_at_line_starts_and_much_text_arrive_as_they_are(new_client, new_mailbox):
    lines = [
        b"Subject: dots",
        b"",
        b".",
        b"..",
        b".a",
        *(b".%d %b" % (i, b"x" * 60) for i in range(5000)),
        b".",
    ]
    message = b"\r\n".join(lines) + b"\r\n"
    mailbox = new_mailbox()
    await new_client(mailbox.port).send(SENDER, ALICE, message)
    assert (await mailbox.next_mail()).raw == message


@pytest_twisted.ensureDeferred
async def test_one_connection_after_another(new_client, new_mailbox):
    mailbox = new_mailbox(tls=True)
    client = new_client(mailbox.port, "tls", max_connections=1)
    for number in range(3):
        await client.send(SENDER, recipient_of(f"alice{number}@example.org"), MESSAGE)
    assert [(await mailbox.next_mail()).recipients for _ in range(3)] == [
        (f"alice{number}@example.org",) for number in range(3)
    ]


@pytest.mark.parametrize(
    "bad", ["a\r\nRCPT TO:<b@c.example>", "a b@c.example", "<a@c.example>", "a@c.example\0"]
)
@pytest_twisted.ensureDeferred
async def test_an_address_cannot_become_a_command(bad, new_client, new_mailbox):
    mailbox = new_mailbox()
    for sender, recipient in ((SENDER, Recipient(bad, needs_smtputf8=False)), (bad, ALICE)):
        with pytest.raises(RelayFailed) as failed:
            await new_client(mailbox.port).send(sender, recipient, MESSAGE)
        assert bad not in str(failed.value)
    assert mailbox.mails == []


def test_settings_that_contradict_themselves():
    assert reactor is not None
    with pytest.raises(ValueError, match="tls"):
        Relay("relay.example", 25, "starttls", "identity.example.org")
    with pytest.raises(ValueError, match="tls"):
        Relay("relay.example", 25, "plain", "me.example", tls=relay_tls("relay.example", None))


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates(content, tmp_path):
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ValueError, match="ca_file"):
        relay_tls("relay.example", tmp_path / "ca.pem")


def test_the_password_is_not_shown():
    relay = Relay("relay.example", 25, "plain", "me.example", username="mailer", password="correct horse")
    assert "correct horse" not in repr(relay)
