"""How an option is declared: its parser, its default and one sentence, as metadata of a dataclass field."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

T = TypeVar("T")

_METADATA = "option"


class Secret:
    """A password or token that no repr, log line or traceback shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def reveal(self) -> str:
        """The value itself, for the one place that hands it over."""
        return self._value


@dataclass(frozen=True, slots=True)
class Declaration:
    """All there is to know about an option.

    Attributes:
        parser: text of the file to value; raises `ValueError` with a message that begins with "must".
        default: as it would be written in the file; for a mandatory option an example. `$data_dir` and `$host`
            stand for what `[general]` says, and are put in by the loader.
        about: one sentence for the person who writes the file.
        key: the name in the file where it cannot be the field's, else None.
        mandatory: there is no default.
        secret: the value is a `Secret`; it is also taken from the file that the option `<key>_file` names.
    """

    parser: Callable[[str], object]
    default: str
    about: str
    key: str | None = None
    mandatory: bool = False
    secret: bool = False

    @property
    def derived(self) -> bool:
        """Whether the default depends on `[general]`."""
        return "$" in self.default


def option(parser: Callable[[str], T], default: str, about: str, *, key: str | None = None) -> T:
    """Declares an option with a default; see `Declaration`."""
    declaration = Declaration(parser, default, about, key)
    if declaration.derived:
        return cast("T", field(metadata={_METADATA: declaration}))
    return field(default=parser(default), metadata={_METADATA: declaration})


def mandatory(parser: Callable[[str], T], example: str, about: str) -> T:
    """Declares an option that must be set; see `Declaration`."""
    return cast("T", field(metadata={_METADATA: Declaration(parser, example, about, mandatory=True)}))


def secret(about: str) -> Secret | None:
    """Declares a secret, which may be absent; see `Declaration`."""
    declaration = Declaration(_secret, "", about, secret=True)
    return cast("Secret | None", field(default=None, metadata={_METADATA: declaration}))


def _secret(text: str) -> Secret | None:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return Secret(text) if text else None


def declarations(section: type[Any]) -> Iterator[tuple[str, Declaration]]:
    """The options of a section, as pairs of field name and declaration."""
    for declared in fields(section):
        yield declared.name, declared.metadata[_METADATA]
