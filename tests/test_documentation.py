"""What the documentation says is so: its links, its commands, its configurations, and its tables of what there is."""

import re
import shlex
from urllib.parse import unquote

import click
import pytest
from documents import PAGES, README, ROOT, anchors, blocks, commands, links, name, rows, spans
from standins.certificates import Authority
from store_tools import START_MS
from store_tools import rows as stored

from sydentish.cli import main
from sydentish.config import load, options
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.web.route import Auth, Route
from sydentish.web.routes import internal_routes, metrics_routes, public_routes, replication_routes, v1_routes

API = ROOT / "docs" / "api.md"
COMMANDS = ROOT / "docs" / "commands.md"
PRIVACY = ROOT / "docs" / "privacy.md"
INDEX = ROOT / "docs" / "README.md"
BY_NAME = {name(page): page for page in PAGES}
NEEDED = {"server_name": "example.org", "public_base_url": "https://id.example.org"}
MAX_README_LINES = 200
# What is written as a configuration, and is not one of ours.
OTHER_CONFIGURATIONS = {
    "replication.https.": "a Sydent's",
    "[Service]": "a unit of systemd",
}
FILE = re.compile(r"(?<=[ =])(?:/etc|/var)/[\w./-]+")
# What a block of peers alone does not say.
PAIR = "[replication]\ncertificate_file = /etc/sydentish/peers.pem\nkey_file = /etc/sydentish/peers.key\nca_file = /etc/sydentish/peers-ca.pem\n"

each_page = pytest.mark.parametrize("page", PAGES, ids=name)


# --- links -------------------------------------------------------------------------------------------------


@each_page
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_index_and_the_readme_lead_to_every_page():
    pages = {page for page in PAGES if page not in (README, INDEX)}
    for index in (README, INDEX):
        led_to = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
        assert {name(page) for page in pages - led_to} == set(), name(index)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


# --- commands ----------------------------------------------------------------------------------------------


def below(group):
    """The commands of a group, by name."""
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def tree(command=main, path=()):
    """All commands that can be run, by what is written behind `sydentish`."""
    if not isinstance(command, click.Group):
        return {" ".join(path): command}
    return {
        written: found
        for word, inner in below(command).items()
        for written, found in tree(inner, (*path, word)).items()
    }


def found_in_tree(words):
    """The command that is written, and what is written behind it."""
    command, rest = main, list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        word = rest.pop(0)
        found = below(command).get(word)
        assert found is not None, f"sydentish {shlex.join(words)}: there is no {word}"
        command = found
    return command, rest


def must_be_accepted(words):
    command, rest = found_in_tree(words)
    try:
        command.make_context(command.name, rest)
    except click.exceptions.Exit:
        # It was asked for help.
        return
    except click.UsageError as error:
        # Whether files are there is seen when it is run.
        if not re.search("does not exist|No such file", error.message):
            pytest.fail(f"sydentish {shlex.join(words)}: {error.message}")


@each_page
def test_every_command_that_is_shown_is_accepted(page):
    for block in blocks(page, "sh"):
        for words in commands(block.text, "sydentish"):
            must_be_accepted(words[1:])


@each_page
def test_commands_stand_in_blocks_that_are_run(page):
    for block in blocks(page, ""):
        assert commands(block.text, "sydentish") == [], f"{block} says not that it is sh"


@each_page
def test_every_command_that_is_named_is_there_with_its_options(page):
    for span in spans(page):
        if not re.match(r"sydentish (?!COMMAND|…)", span):
            continue
        command, rest = found_in_tree(word for word in span.split()[1:] if word != "…")
        known = {spelt for param in command.params for spelt in (*param.opts, *param.secondary_opts)}
        named = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
        assert named <= known | {"--help", "-h"}, span


@pytest.mark.parametrize(("written", "command"), tree().items(), ids=tree())
def test_the_help_of_every_command_ends_with_an_example_that_is_accepted(written, command):
    *_, last = re.split(r"\n\s*\n", command.help.strip().replace("\b\n", ""))
    example = " ".join(last.replace("\\\n", " ").split())
    assert example.startswith(f"Example: sydentish {written}"), command.help
    must_be_accepted(shlex.split(example.removeprefix("Example: sydentish ")))


def test_the_page_of_commands_has_a_row_for_each_that_leads_to_more():
    told = {}
    for cells in rows(COMMANDS):
        match = re.match(r"\[?`([a-z -]+?)(?: [A-Z\[].*)?`", cells[0])
        if match and (match[1] in tree() or match[1].split()[0] in below(main)):
            assert match[1] not in told, match[1]
            told[match[1]] = "](" in "".join(cells)
    assert told == dict.fromkeys(tree(), True)


# --- configurations ----------------------------------------------------------------------------------------


def configurations():
    return [
        block
        for page in PAGES
        for block in blocks(page, "ini")
        if not any(mark in block.text for mark in OTHER_CONFIGURATIONS)
    ]


def completed(text):
    """The same, with what must be set."""
    missing = "".join(
        f"{key} = {value}\n"
        for key, value in NEEDED.items()
        if not re.search(rf"^{key} *=", text, re.MULTILINE)
    )
    if "[peer " in text and "[replication]" not in text:
        text = PAIR + text
    if "[general]\n" in text:
        return text.replace("[general]\n", f"[general]\n{missing}")
    return f"[general]\n{missing}{text}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The directories of a machine, with the files that the pages name in them."""
    folder = tmp_path_factory.mktemp("root")
    authority = Authority()
    pair = authority.issue("id.example.org")
    for path in FILE.findall("".join(completed(block.text) for block in configurations())):
        file = folder / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/templates"):
            file.mkdir(exist_ok=True)
        elif path.endswith("-ca.pem"):
            authority.write_ca(file)
        else:
            file.touch(0o600)
            file.write_text("secret\n")
            if file.suffix in {".pem", ".key"}:
                pair.write(file)
    return folder


@pytest.mark.parametrize("block", configurations(), ids=str)
def test_every_configuration_that_is_shown_is_accepted(block, root, tmp_path):
    file = tmp_path / "sydentish.conf"
    file.write_text(FILE.sub(lambda found: f"{root}{found[0]}", completed(block.text)))
    (tmp_path / "keys").mkdir()
    for credential in re.findall(r"^\w+_file *= *credential:(\S+)", block.text, re.MULTILINE):
        (tmp_path / credential).write_text("secret\n")
    load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_what_is_no_configuration_of_ours_is_shown():
    shown = "".join(block.text for page in PAGES for block in blocks(page, "ini"))
    assert [mark for mark in OTHER_CONFIGURATIONS if mark not in shown] == []


# --- endpoints ---------------------------------------------------------------------------------------------

ASKS_FOR = {
    Auth.NONE: "nothing",
    Auth.SOURCE: "nothing; counted by source",
    Auth.TRUSTED_SOURCE: "a trusted source",
    Auth.OPERATOR: "the operator's token, if one is set",
    Auth.PEER: "a peer's certificate",
    Auth.TOKEN: "a token",
    Auth.TOKEN_AND_TERMS: "a token, terms accepted",
}


class Anything:
    """Handlers of everything."""

    def __getattr__(self, _name):
        return self


def endpoint(route: Route, word: str = "") -> tuple[str, str, str]:
    """What the row of a route says: method and path, what is asked of the caller, and the word that switches it on."""
    asked = ASKS_FOR[route.auth] + (", or a homeserver's signature" if route.signed else "")
    return re.sub(r"\{\w+\}", "{…}", f"{route.method} {route.path}"), asked, word


def all_endpoints():
    to = Anything()
    others = [*public_routes(to, ()), *internal_routes(to), *replication_routes(to), *metrics_routes(to, to)]
    return [*map(endpoint, others), *(endpoint(route, word) for word, route in v1_routes(to))]


def test_the_page_of_the_api_has_a_row_for_each_endpoint_that_says_what_is_asked_of_callers():
    told = []
    for cells in rows(API):
        match = re.fullmatch(r"`((?:GET|HEAD|POST|PUT) [^`]+)`", cells[0])
        if match:
            word = re.fullmatch(r"`([\w/-]+)`", cells[2]) if "api/v1" in match[1] else None
            told.append((re.sub(r"\{\w+\}", "{…}", match[1]), cells[1], word[1] if word else ""))
    assert sorted(told) == sorted(all_endpoints())


def test_the_page_of_the_api_says_which_words_are_on_at_first():
    (default,) = [
        each.default for section, key, each in options() if (section, key) == ("http", "v1_endpoints")
    ]
    assert dict(_words()) == {
        word: word in default.replace(",", " ").split() for word, _ in v1_routes(Anything())
    }


def _words():
    for cells in rows(API):
        if re.match(r"`\w+ api/v1", cells[0]):
            yield cells[2].strip("`"), cells[3] == "yes"


# --- what is stored ----------------------------------------------------------------------------------------


def test_the_page_of_privacy_names_each_table_and_no_other(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    tables = {name for (name,) in stored(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", PRIVACY.read_text()))

    assert tables - named == set()
    # A table that is gone has a row no more.
    (index,) = [cells.index("Where (table)") for cells in rows(PRIVACY) if "Where (table)" in cells]
    assert {name for cells in rows(PRIVACY) for name in re.findall(r"`(\w+)`", cells[index])} <= tables
