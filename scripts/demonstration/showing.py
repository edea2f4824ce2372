"""What people see."""

import json
import os
import sys

from standins.mailbox import Mail


class Failed(Exception):
    """Something did not hold."""


def paint(code: str, text: str) -> str:
    """Coloured on a terminal, plain elsewhere."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def step(number: int, title: str) -> None:
    """The headline of a step."""
    print(f"\n{paint('1', f'{number}. {title}')}")


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
    for header in ("From", "To", "Subject", "Date", "Message-ID"):
        show("✉", f"{header}: {mail.message[header]}")
    show("✉", "\n" + text_of(mail))


def text_of(mail: Mail) -> str:
    """The plain text part of a mail."""
    part = mail.message.get_body(preferencelist=("plain",))
    return part.get_content().strip() if part else ""


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
