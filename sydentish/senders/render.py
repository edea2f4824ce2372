"""Renders mails, pages and short texts from Jinja2 templates; operators see `docs/templates.md`.

A brand is a folder of templates. What a brand lacks comes from the shipped one. Everything is compiled and
tried out at start, so that a mistake in a template is found by the operator and not by a user.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from traceback import walk_tb
from urllib.parse import quote

from jinja2 import (
    ChoiceLoader,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

from sydentish.domain.display import bare
from sydentish.senders.brands import brand_folders, no_such_brand
from sydentish.senders.languages import TextFiles
from sydentish.senders.samples import MAILS, PAGES, TEXTS
from sydentish.senders.visible import visible_value

SHIPPED_BRAND = "default"

_MAX_SUBJECT = 200


class TemplateProblem(Exception):
    """Templates cannot be used; the message has a line for each problem.

    Attributes:
        problems: what is wrong; each names the file, and the line where it is known.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class MailText:
    """A rendered mail: a subject of one line, and the body as plain text and as HTML."""

    subject: str
    text: str
    html: str


def shipped_templates() -> Path:
    """The directory of the templates that come with the package.

    An installed package has them inside; `python -m sydentish` in a checkout finds them in its `res`.

    Raises:
        TemplateProblem: they are nowhere, or not plain files.
    """
    package = resources.files("sydentish")
    if isinstance(package, Path):
        for folder in (package / "templates", package.parent / "res" / "templates"):
            if (folder / SHIPPED_BRAND).is_dir():
                return folder
    raise TemplateProblem("the shipped templates are missing: is the package installed, and unpacked?")


class Templates:
    """The templates of all brands."""

    def __init__(self, shipped: Path, custom: Path | None = None, default_brand: str = SHIPPED_BRAND) -> None:
        """Finds the brands; `check` reads them.

        Args:
            shipped: the directory of the shipped brand's folder, see `shipped_templates`.
            custom: the operator's directory of brand folders, or None.
            default_brand: the brand where none, or an unknown one, is asked for.

        Raises:
            TemplateProblem: `custom` or a folder in it cannot be read, a folder has a name that no brand can
                have, or the default brand does not exist; it has the mistakes in templates, too.
        """
        self._brands: dict[str, SandboxedEnvironment] = {
            SHIPPED_BRAND: _environment(shipped / SHIPPED_BRAND),
        }
        self._texts = {SHIPPED_BRAND: TextFiles(shipped / SHIPPED_BRAND)}
        found, problems = brand_folders(custom)
        for folder in found:
            self._brands[folder.name] = _environment(folder, shipped / SHIPPED_BRAND)
            self._texts[folder.name] = TextFiles(folder, shipped / SHIPPED_BRAND)
        if default_brand not in self._brands:
            problems.append(no_such_brand(default_brand, self.brands, custom))
        if problems:
            raise TemplateProblem(*problems, *self._mistakes())
        self._default = default_brand

    def adopt(self, other: "Templates") -> None:
        """Has the templates of another one from now on, which were checked."""
        self._brands, self._texts, self._default = other._brands, other._texts, other._default  # noqa: SLF001 - our own kind

    @property
    def brands(self) -> tuple[str, ...]:
        """The names of all brands, in alphabetical order."""
        return tuple(sorted(self._brands))

    def check(self) -> None:
        """Compiles every known template of every brand, and renders it with sample values.

        Raises:
            TemplateProblem: with every template that is missing, has a mistake, uses a variable that there is
                not, or lacks a subject or a body.
        """
        mistakes = self._mistakes()
        if mistakes:
            raise TemplateProblem(*mistakes)

    def _mistakes(self) -> list[str]:
        told = (
            f"brand {brand!r}: {mistake}"
            for brand, environment in self._brands.items()
            for mistake in _check(environment, self._texts[brand])
        )
        return list(dict.fromkeys(told))

    def mail(self, name: str, brand: str | None, variables: Mapping[str, str]) -> MailText:
        """Renders `<name>.eml.txt` and `<name>.eml.html`; the subject is that of the former.

        Args:
            name: of the mail, without `.eml`.
            brand: its name; with None, or one that does not exist, the default brand is meant.
            variables: what the templates can use. Values may come from anybody: what cannot be seen in them is
                taken out, and other values than links are shortened.

        Raises:
            TemplateProblem: a template cannot be rendered.
        """
        return _mail(self._environment(brand), name, variables)

    def page(self, name: str, brand: str | None, variables: Mapping[str, str]) -> str:
        """Renders the page `name`, a file name; arguments and errors are those of `mail`."""
        return _page(self._environment(brand), name, variables)

    def text(
        self, name: str, brand: str | None, languages: Sequence[str], variables: Mapping[str, str]
    ) -> str:
        """Renders the short text `name`, such as `sms`, on one line.

        Args:
            name: of the text, without `.txt`.
            brand: as for `mail`.
            languages: what the person reads, best first, as language tags (RFC 5646).
            variables: as for `mail`.

        Raises:
            TemplateProblem: the template cannot be rendered.
        """
        chosen = self._known(brand)
        return _text(self._brands[chosen], self._texts[chosen].best(name, languages), variables)

    def _environment(self, brand: str | None) -> SandboxedEnvironment:
        return self._brands[self._known(brand)]

    def _known(self, brand: str | None) -> str:
        return self._default if brand is None or brand not in self._brands else brand


def _environment(*folders: Path) -> SandboxedEnvironment:
    # The sandbox, because who designs a mail need not be who may read the daemon's keys.
    environment = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["url"] = _url_part
    return environment


def _url_part(value: str) -> str:
    return quote(value, safe="")


def _files(mail: str) -> tuple[str, str]:
    return f"{mail}.eml.txt", f"{mail}.eml.html"


def _check(environment: SandboxedEnvironment, texts: TextFiles) -> Iterator[str]:
    mails = [(_check_mail, file, values) for name, values in MAILS.items() for file in _files(name)]
    pages = [(_page, name, values) for name, samples in PAGES.items() for values in samples]
    short = [(_check_text, file, values) for name, values in TEXTS.items() for file in texts.all(name)]
    for try_out, file, values in (*mails, *pages, *short):
        try:
            try_out(environment, file, values)
        except TemplateProblem as problem:
            yield from problem.problems


def _check_mail(environment: SandboxedEnvironment, file: str, values: Mapping[str, str]) -> None:
    parts = _subject_and_body(environment, file, values)
    path = _load(environment, file).filename
    empty = [block for block, content in zip(("subject", "body"), parts, strict=True) if not content.strip()]
    if empty:
        raise TemplateProblem(*(f"{path}: no block {block!r}, or nothing in it" for block in empty))


def _check_text(environment: SandboxedEnvironment, file: str, values: Mapping[str, str]) -> None:
    if values["code"] not in _text(environment, file, values):
        raise TemplateProblem(f"{_load(environment, file).filename}: 'code' is not in it")


def _mail(environment: SandboxedEnvironment, name: str, variables: Mapping[str, str]) -> MailText:
    values = {key: visible_value(key, value) for key, value in variables.items()}
    text_file, html_file = _files(name)
    subject, text = _subject_and_body(environment, text_file, values)
    _, html = _subject_and_body(environment, html_file, values)
    return MailText(one_line(subject), _lines(text), _lines(html))


def _page(environment: SandboxedEnvironment, name: str, variables: Mapping[str, str]) -> str:
    template = _load(environment, name)
    context = template.new_context({key: visible_value(key, value) for key, value in variables.items()})
    try:
        return _whole(template, context)
    except Exception as error:
        raise _problem(name, error) from error


def _text(environment: SandboxedEnvironment, name: str, variables: Mapping[str, str]) -> str:
    return bare(_page(environment, name, variables))


def _subject_and_body(
    environment: SandboxedEnvironment, name: str, values: Mapping[str, str]
) -> tuple[str, str]:
    template = _load(environment, name)
    context = template.new_context(dict(values))
    try:
        # Rendering the whole is what brings in the blocks of the templates that this one extends.
        whole = _whole(template, context)
        first = next(iter(context.blocks), "body")
        subject = _block(context, first) if first != "body" else ""
        body = _block(context, "body") if "body" in context.blocks else whole.replace(subject, "", 1)
    except Exception as error:
        raise _problem(name, error) from error
    return subject, body


def _whole(template: Template, context: Context) -> str:
    return "".join(template.root_render_func(context))


def _block(context: Context, name: str) -> str:
    return "".join(context.blocks[name][0](context))


def _load(environment: SandboxedEnvironment, name: str) -> Template:
    try:
        return environment.get_template(name)
    except (TemplateError, UnicodeDecodeError, OSError) as error:
        raise _problem(name, error) from error


def _problem(name: str, error: Exception) -> TemplateProblem:
    place = name
    if isinstance(error, TemplateSyntaxError):
        place = f"{error.filename or name}:{error.lineno}"
    for frame, line in walk_tb(error.__traceback__):
        # A compiled template knows which line of the file a line of its code comes from.
        template = frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            place = f"{template.filename}:{template.get_corresponding_lineno(line)}"
    if (
        isinstance(error, OSError) and error.strerror
    ):  # the file system's own, not Jinja2's for what is not there
        return TemplateProblem(f"{error.filename or name}: cannot be read: {error.strerror}")
    return TemplateProblem(f"{place}: {error}")


def one_line(text: str) -> str:
    """What fits a header: the text on one line of at most 200 characters, without what cannot be seen.

    It holds no encoded word either (RFC 2047): in each `=?`, with which one begins, a blank is put. Else who reads
    it, or Python when it writes it, would see what is encoded: line ends, and headers after them.
    """
    line = bare(text).replace("=?", "= ?")
    return line if len(line) <= _MAX_SUBJECT else line[: _MAX_SUBJECT - 1] + "…"


def _lines(text: str) -> str:
    return text.strip("\n") + "\n"
