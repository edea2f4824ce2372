"""What people see."""

import json
import os
import sys
from itertools import count

from standins.mailbox import Mail

_numbers = count(1)


class Failed(Exception):
    """Something did not hold."""


def paint(code: str, text: str) -> str:
    """Coloured on a terminal, plain elsewhere."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def step(title: str) -> None:
    """The headline of a step; they are numbered."""
    print(f"\n{paint('1', f'{next(_numbers)}. {title}')}")


def check(what: str, *, holds: bool) -> None:
    """Shows that something holds.

    Raises:
        Failed: it does not.
    """
    if not holds:
        raise Failed(f"This did not hold: {what}")
    print(f"   {paint('32', '✓')} {what}")


def show(arrow: str, text: str) -> None:
    """What went over the wire, one way or the other."""
    for line in text.splitlines():
        print(f"   {paint('2', arrow)} {line}")


def show_mail(mail: Mail) -> None:
    """What a person sees of a mail."""
    show_headers(mail, "From", "To", "Subject", "Date", "Message-ID")
    show("✉", "\n" + text_of(mail))


def show_headers(mail: Mail, *names: str) -> None:
    """Some of the headers of a mail."""
    for name in names:
        show("✉", f"{name}: {mail.message[name]}")


def text_of(mail: Mail) -> str:
    """The plain text part of a mail."""
    part = mail.message.get_body(preferencelist=("plain",))
    return part.get_content().strip() if part else ""


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
