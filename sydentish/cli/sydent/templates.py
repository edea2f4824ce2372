"""Which templates of a Sydent need a hand, and what they are called here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sydentish.cli.sydent.old import OldConfig

_MAIL, _INVITE, _PAGE = (
    ("verification.eml.txt", "verification.eml.html"),
    ("invite.eml.txt", "invite.eml.html"),
    ("verify_response.html",),
)
_FILES = {
    "verification_template.eml": _MAIL,
    "verification_template.eml.j2": _MAIL,
    "invite_template.eml": _INVITE,
    "invite_template.eml.j2": _INVITE,
    "verify_response_template.html": _PAGE,
}
_OPTIONS = (
    ("email", "email.template", _MAIL),
    ("email", "email.invite_template", _INVITE),
    ("http", "verify_response_template", _PAGE),
)
_TEXTS = (
    ("email", "email.invite.subject", "the block subject of invite.eml.txt"),
    (
        "email",
        "email.invite.subject_space",
        "the block subject of invite.eml.txt, where room_type is m.space",
    ),
    ("sms", "bodytemplate", "sms.txt, with {{ code }} for {token}"),
)


@dataclass(frozen=True, slots=True)
class Template:
    """Something that people read, and that somebody must write anew.

    Attributes:
        old: the file, or the option.
        brand: the folder that it goes into here.
        new: what it becomes.
    """

    old: str
    brand: str
    new: str


def find(old: OldConfig) -> list[Template]:
    """The templates that a Sydent uses."""
    default = old.get("general", "brand.default")
    return [*_in_folders(old), *_named(old, default)]


def _in_folders(old: OldConfig) -> Iterator[Template]:
    try:
        folder = old.path_of(old.get("general", "templates.path"))
        brands = sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return
    for brand in brands:
        for file in _sorted_files(brand):
            yield Template(str(file), brand.name, ", ".join(_FILES[file.name]))


def _sorted_files(brand: Path) -> list[Path]:
    try:
        return sorted(each for each in brand.iterdir() if each.name in _FILES)
    except OSError:
        return []


def _named(old: OldConfig, brand: str) -> Iterator[Template]:
    for section, key, new in _OPTIONS:
        if old.is_given(section, key):
            yield Template(f"[{section}] {key}: {old.get(section, key)}", brand, ", ".join(new))
    for section, key, told in _TEXTS:
        if old.is_given(section, key):
            yield Template(f"[{section}] {key}", brand, told)
