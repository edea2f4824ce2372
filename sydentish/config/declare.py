"""How an option is declared: its parser, its default and one sentence, as metadata of a dataclass field."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

from sydentish.config import files, values

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


def option(
    parser: Callable[[str], T], default: str, about: str, *, key: str | None = None, hidden: bool = False
) -> T:
    """Declares an option with a default, with `hidden` one that no repr shows; see `Declaration`."""
    declaration = Declaration(parser, default, about, key)
    if declaration.derived:
        return cast("T", field(metadata={_METADATA: declaration}))
    value = parser(default)
    return field(default_factory=lambda: value, repr=not hidden, metadata={_METADATA: declaration})


def mandatory(parser: Callable[[str], T], example: str, about: str, *, hidden: bool = False) -> T:
    """Declares an option that must be set; see `Declaration` and `option`."""
    declaration = Declaration(parser, example, about, mandatory=True)
    return cast("T", field(repr=not hidden, metadata={_METADATA: declaration}))


def secret(about: str, parser: Callable[[str], str] = str) -> Secret | None:
    """Declares a secret, which may be absent and is one printable line; see `Declaration`."""
    declaration = Declaration(_secret(parser), "", about, secret=True)
    return cast("Secret | None", field(default=None, metadata={_METADATA: declaration}))


def mandatory_secret(example: str, about: str) -> Secret:
    """Declares a secret that must be set; see `Declaration`."""
    declaration = Declaration(_secret(str), example, about, mandatory=True, secret=True)
    return cast("Secret", field(metadata={_METADATA: declaration}))


def _secret(parser: Callable[[str], str]) -> Callable[[str], Secret | None]:
    def parse(text: str) -> Secret | None:
        if not text.isprintable():
            raise ValueError("must be one line of printable text")
        return Secret(parser(text)) if text else None

    return parse


def declarations(section: type[Any]) -> Iterator[tuple[str, Declaration]]:
    """The options of a section, as pairs of field name and declaration; fields that are no option are left out."""
    for declared in fields(section):
        if _METADATA in declared.metadata:
            yield declared.name, declared.metadata[_METADATA]


def keys(section: type[Any]) -> Iterator[tuple[str, Declaration]]:
    """The options of a section, as pairs of key in the file and declaration.

    A secret is followed by its `<key>_file` variant.
    """
    for name, declaration in declarations(section):
        key = declaration.key or name
        yield key, declaration
        if declaration.secret:
            about = f"A file whose one line is the value of {key}, for example a systemd credential."
            yield f"{key}_file", Declaration(values.optional(files.path), "", about)
