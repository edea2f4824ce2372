"""The bytes of a mail (RFC 5322, RFC 2045), and the proof that they say what was meant.

The headers that hold what others gave us are written here and not by Python's header registry: that one decodes
encoded words (RFC 2047) in what it is to write, so that they bring line ends and with these whole headers, and
drops the quotes of long display names.
"""

import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from email.parser import Parser
from email.policy import SMTP
from email.utils import format_datetime, quote

from sydentish.senders.render import MailText

# Seven bits a byte, since not every relay offers 8BITMIME, and no line of quoted-printable above 76 characters
# (RFC 2045 section 6.7), where Python's policy has 78.
_POLICY = SMTP.clone(cte_type="7bit", max_line_length=76)
_READING = SMTP.clone(utf8=True)
_HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
]
# So that a line has at most 76 characters, with "Subject: " before or a quoted name after it.
_MAX_PLAIN = 60
# An encoded word has at most 75 characters (RFC 2047 section 2), and the first one stands after "Subject: ".
_MAX_WORD_BYTES = 36
_NOT_CRLF = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))


class MessageProblem(Exception):
    """A mail would not say what was meant; the text names what differs, and holds nothing of the mail."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail is to say.

    Attributes:
        sender: the address of the From header.
        sender_name: the name in it, on one line; can be empty.
        recipient: the address of the To header.
        date: of the mail, with its time zone.
        message_id: without angle brackets.
        content: subject, on one line, and bodies.
    """

    sender: str
    sender_name: str
    recipient: str
    date: datetime
    message_id: str
    content: MailText


def write_message(letter: Letter) -> bytes:
    """The mail, with CRLF at the end of each line; ASCII unless an address is not.

    Raises:
        MessageProblem: what a reader gets from the bytes is not exactly what `letter` says.
    """
    headers = {
        "From": _sender(letter),
        "To": letter.recipient,
        "Subject": _words(letter.content.subject),
        "Date": format_datetime(letter.date),
        "Message-ID": f"<{letter.message_id}>",
        # RFC 3834 section 5: so that nobody's holiday notice answers.
        "Auto-Submitted": "auto-generated",
    }
    body = EmailMessage(_POLICY)
    body.set_content(letter.content.text, cte="quoted-printable")
    body.add_alternative(letter.content.html, subtype="html", cte="quoted-printable")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    message = head.encode("utf-8", "replace") + body.as_bytes()
    check_message(message, letter)
    return message


def check_message(message: bytes, letter: Letter) -> None:
    """Reads the bytes of a mail as its recipient does, and compares what is in the headers.

    Raises:
        MessageProblem: it is not exactly what `letter` says.
    """
    try:
        difference = next(_differences(message, letter), None)
    except Exception as error:  # noqa: BLE001 - Python's parser has many ways to trip; none lets a mail pass
        difference = f"it cannot be read ({type(error).__name__})"
    if difference is not None:
        raise MessageProblem(f"the message is not what was meant: {difference}")


def _differences(message: bytes, letter: Letter) -> Iterator[str]:
    if _NOT_CRLF.search(message):
        yield "line ends"
    read = Parser(EmailMessage, policy=_READING).parsestr(message.decode())
    if read.keys() != _HEADERS or read.defects:
        yield "names of headers"
    if any(unicodedata.category(c) in _CONTROLS for value in read.values() for c in str(value)):
        yield "control characters in a header"
    if _mailboxes(read["To"]) != [(None, "", letter.recipient)]:
        yield "To"
    if _mailboxes(read["From"]) != [(None, _without_blanks(letter.sender_name), letter.sender)]:
        yield "From"
    if str(read["Subject"]) != letter.content.subject:
        yield "Subject"


def _mailboxes(header: AddressHeader) -> list[tuple[str | None, str, str]]:
    # Python reads a blank between two encoded words of a name, where RFC 2047 has none.
    return [
        (group.display_name, _without_blanks(each.display_name), each.addr_spec)
        for group in header.groups
        for each in group.addresses
    ]


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _sender(letter: Letter) -> str:
    name = letter.sender_name
    if not name:
        return letter.sender
    phrase = f'"{quote(name)}"' if _is_plain(name) else _words(name)
    # The address on a line of its own, as it alone can be longer than a line should be.
    return f"{phrase}\r\n <{letter.sender}>"


def _words(text: str) -> str:
    """The text as it is, or as encoded words (RFC 2047) where that would not be safe or too long."""
    if _is_plain(text):
        return text
    words = (f"=?utf-8?b?{b64encode(piece).decode()}?=" for piece in _pieces(text))
    return "\r\n ".join(words)


def _is_plain(text: str) -> bool:
    one_line = text == " ".join(text.split())
    return one_line and text.isascii() and text.isprintable() and "=?" not in text and len(text) <= _MAX_PLAIN


def _pieces(text: str) -> Iterator[bytes]:
    # No character may be divided between two words (RFC 2047 section 5).
    piece = b""
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(piece) + len(encoded) > _MAX_WORD_BYTES:
            yield piece
            piece = b""
        piece += encoded
    yield piece
