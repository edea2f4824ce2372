"""The stand-in relay, with the client of the standard library."""

import smtplib
import ssl

import pytest
import pytest_twisted
from senders.relays import server_context
from standins.mailbox import Mailbox
from twisted.internet.threads import deferToThread


def deliver(mailbox, login=None, starttls=None):
    with smtplib.SMTP(mailbox.host, mailbox.port) as client:
        if starttls is not None:
            client.starttls(context=starttls)
        if login is not None:
            client.login(*login)
        client.sendmail("a@b.example", ["c@d.example"], "Subject: hi\r\n\r\nHello\r\n")


def test_without_a_reactor():
    mailbox = Mailbox()
    mailbox.start()
    try:
        deliver(mailbox)
        mail = mailbox.wait_for_mail(5)
    finally:
        mailbox.stop()
    assert (mail.sender, mail.recipients, mail.login, mail.tls) == (
        "a@b.example",
        ("c@d.example",),
        None,
        False,
    )
    assert mail.message["Subject"] == "hi"
    assert mailbox.mails == [mail]
    with pytest.raises(TimeoutError):
        mailbox.wait_for_mail(0)


@pytest_twisted.ensureDeferred
async def test_with_a_reactor(new_mailbox):
    mailbox = new_mailbox()
    waiting = mailbox.next_mail()
    await deferToThread(deliver, mailbox)
    await deferToThread(deliver, mailbox)
    assert (await waiting).message["Subject"] == "hi"
    assert (await mailbox.next_mail()).raw == b"Subject: hi\r\n\r\nHello\r\n"


def test_login_and_starttls_are_required(certificate, ca_file):
    mailbox = Mailbox(starttls=server_context(certificate), login=("mailer", "pass"))
    mailbox.start()
    trusting = ssl.create_default_context(cafile=ca_file)
    try:
        with pytest.raises(smtplib.SMTPSenderRefused):
            deliver(mailbox)
        with pytest.raises(smtplib.SMTPSenderRefused):
            deliver(mailbox, starttls=trusting)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            deliver(mailbox, ("mailer", "wrong"), trusting)
        deliver(mailbox, ("mailer", "pass"), trusting)
        mail = mailbox.wait_for_mail(5)
    finally:
        mailbox.stop()
    assert (mail.login, mail.tls) == ("mailer", True)
