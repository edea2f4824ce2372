"""What commands print: nothing in it steers the terminal, whoever said it."""

import io
import json
import os
import re
import sqlite3
from contextlib import closing, redirect_stdout

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from store_tools import START_MS

from sydentish.cli import main
from sydentish.cli.doctor.findings import failed, show
from sydentish.cli.printing import print_fields, print_table, shown

# Clears the screen, in both ways to say so; a second line; text that runs backwards.
NASTY = "a\x1b[2J\x9b2J\r\nfailed: \u202e\u2028é"
SHOWN = "a?[2J?2J??failed: ??é"


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_shown_is_one_line_that_steers_nothing(text):
    told = shown(text)
    assert told.isprintable()
    assert len(told) == len(text)
    assert all(ours in (theirs, "?") for ours, theirs in zip(told, text, strict=True))
    assert shown(told) == told


@given(st.text(st.characters(exclude_categories=())).filter(str.isprintable))
def test_what_steers_nothing_is_shown_as_it_is(text):
    assert shown(text) == text


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_tables_and_fields_have_a_line_for_each_row(rows):
    with redirect_stdout(io.StringIO()) as file:
        print_table(rows)
        print_fields(rows)
    out = file.getvalue()
    assert out.count("\n") == 2 * len(rows)
    assert out.replace("\n", "").isprintable()


def steers(written):
    """Whether something steers the terminal that is neither the end of a line nor our own bar of progress."""
    return not re.sub(r"\r\n|\r\x1b\[\?25l|\x1b\[\?25h", "", written).isprintable()


@pytest.fixture
def nasty(command_house):
    """A database in which others have written."""
    with closing(sqlite3.connect(command_house.path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO invitations VALUES ('t', 'email', ?, ?, ?, ?, ?, NULL)",
            (NASTY, NASTY, NASTY, START_MS, 10 * START_MS),
        )
        for number in (1, 2):
            payload = json.dumps({"room_name": NASTY, NASTY: 1, "sender": NASTY})
            connection.execute(
                "INSERT INTO outbox VALUES (?, 'onbind', ?, ?, ?, 'pending', ?, ?, 0, ?, NULL)",
                (number, NASTY, f"k{number}", payload, START_MS, START_MS, NASTY),
            )
        connection.execute(
            "INSERT INTO associations (medium, address, mxid, ts, not_before, not_after, origin_server, origin_id, "
            "signed) VALUES ('email', 'a@example.org', '@a:b', 0, 0, 0, ?, 1, '{}')",
            (NASTY,),
        )
    return command_house


@pytest.mark.parametrize(
    "command",
    [
        "invites list",
        "stats",
        "outbox list",
        "outbox show 1",
        "outbox show 1 --payload",
        "outbox drop 2",
    ],
)
def test_what_others_have_written_steers_no_terminal(nasty, command):
    found, written = nasty.terminal(*command.split())
    assert (found, steers(written)) == (0, False), ascii(written)
    assert "?2J" in written


def test_a_table_with_a_name_that_steers_is_told_without_it(command_house):
    with closing(sqlite3.connect(command_house.path)) as connection:
        connection.execute(f'CREATE TABLE "{NASTY}" (a)')
    found, written = command_house.terminal("verify")
    assert found == 1
    assert SHOWN in written
    assert not steers(written), ascii(written)


def test_what_cannot_be_done_or_used_is_told_without_what_steers(command_house, tmp_path):
    conf = tmp_path / NASTY
    conf.write_text("[general]\nbad\n")
    found, written = command_house.terminal("verify", conf=conf)
    assert (found, steers(written)) == (os.EX_CONFIG, False), ascii(written)
    assert SHOWN in written
    file = tmp_path / f"backup-{NASTY}"
    file.write_text("no database")
    found, written = command_house.terminal("restore", file)
    assert (found, steers(written)) == (1, False), ascii(written)
    assert SHOWN in written


def test_a_finding_of_the_doctor_is_one_line(capfd):
    show(failed("c", NASTY, NASTY))
    assert f"{SHOWN}; {SHOWN}\n" in capfd.readouterr().out


def test_what_is_refused_is_shown():
    done = CliRunner().invoke(main, ["verify", "-c", f"/none/{NASTY}"])
    assert done.exit_code == os.EX_CONFIG
    assert SHOWN in done.output
