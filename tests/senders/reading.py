"""What a reader gets from the bytes of a mail."""

import email
import email.policy
import re
from email.message import EmailMessage


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
