"""The reader: sections, keys, continuation lines, comments, and what breaks their grammar."""

import hypothesis.strategies as st
from hypothesis import given

from sydentish.config.ini import parse

NAMES = st.text("abcxyz_", min_size=1, max_size=6)
VALUES = st.lists(st.text("abc=:,[]%$ ", max_size=10).map(str.strip), min_size=1, max_size=3)


def entries(text):
    return {(entry.section, entry.key): entry.value for entry in parse("f", text).entries}


def problems(text):
    return [str(problem) for problem in parse("f", text).problems]


def test_a_document():
    document = parse(
        "f",
        "# head\n"
        "[general]\n"
        "server_name = example.org\n"
        "server_name_aliases =\n"
        "   a.example\n"
        "\n"
        "   # a comment between, indented\n"
        "; and one that is not\n"
        "\tb.example\r\n"
        "empty =\n"
        "[policy  tos]\n"
        "en.url=https://example.org/?a=b;c#d\n",
    )
    assert document.problems == ()
    assert dict(document.sections) == {"general": 2, "policy tos": 11}
    assert [(e.line, e.section, e.key, e.value) for e in document.entries] == [
        (3, "general", "server_name", "example.org"),
        (4, "general", "server_name_aliases", "a.example\nb.example"),
        (10, "general", "empty", ""),
        (12, "policy tos", "en.url", "https://example.org/?a=b;c#d"),
    ]


def test_nothing_is_interpolated():
    assert entries("[a]\nb = %(c)s $d ${e} \\n") == {("a", "b"): "%(c)s $d ${e} \\n"}


def test_a_byte_order_mark_is_no_text():
    assert entries("\ufeff[a]\nb=c") == {("a", "b"): "c"}


def test_sections_merge():
    document = parse("f", "[a]\nx=1\n[b]\nx=2\n[a]\ny=3\n")
    assert document.problems == ()
    assert {(e.section, e.key): e.value for e in document.entries} == {
        ("a", "x"): "1",
        ("b", "x"): "2",
        ("a", "y"): "3",
    }
    assert document.sections["a"] == 1


def test_a_key_twice_names_both_lines_and_the_first_counts():
    text = "[a]\nx = 1\n[b]\n[a]\nx = 2\n  more\ny = 3\n"
    assert problems(text) == ["f:5: [a] x: is set twice, in line 2 and in line 5: keep one of them"]
    assert entries(text) == {("a", "x"): "1", ("a", "y"): "3"}


def test_everything_broken_is_told_with_its_line():
    text = (
        "early = 1\n"
        "noise\n"
        "  indented\n"
        "[a]\n"
        "  x = 1\n"
        "secret-without-a-key\n"
        "= value\n"
        "two words = 1\n"
        "y = a\x00b\n"
        "[b\n"
        "[c] # comment\n"
        "[]\n"
    )
    assert problems(text) == [
        "f:1: early: stands before the first [section]",
        "f:2: must be [section], key = value, or a comment that begins with #",
        "f:5: [a]: is indented, but there is no option above that it could continue",
        "f:6: [a]: must be [section], key = value, or a comment that begins with #",
        "f:7: [a]: must be [section], key = value, or a comment that begins with #",
        "f:8: [a]: must be [section], key = value, or a comment that begins with #",
        "f:9: [a]: has a control character: only text is allowed",
        "f:10: [b]: must be [section] and nothing else on its line",
        "f:11: [c]: must be [section] and nothing else on its line",
        "f:12: []: must be [section] and nothing else on its line",
    ]
    assert "secret" not in "".join(problems(text))


def test_what_continues_a_broken_line_is_not_added_to_the_option_before():
    assert entries("[a]\nx = 1\nbroken\n  rest\n") == {("a", "x"): "1"}


def test_a_broken_header_still_begins_its_section():
    assert entries("[a]\nx=1\n[b\nx=2\n") == {("a", "x"): "1", ("b", "x"): "2"}


def test_a_section_may_have_brackets_in_its_name_in_pairs():
    document = parse("f", "[peer [::1]:8448]\nx=1\n[ peer  [2001:db8::1] ]\n[[a]]\n")
    assert list(document.sections) == ["peer [::1]:8448", "peer [2001:db8::1]", "[a]"]
    assert document.problems == ()
    assert problems("[a [b]\n[a] b]\n[a [[b]]]\n") == [
        f"f:{line}: [{name}]: must be [section] and nothing else on its line"
        for line, name in ((1, "a [b]"), (2, "a"), (3, "a"))
    ]


def test_values_are_not_in_the_repr():
    assert "hunter2" not in repr(parse("f", "[email]\nsmtp_password = hunter2\n"))


@given(st.text())
def test_any_text_is_read(text):
    document = parse("f", text)
    lines = text.count("\n") + 1
    assert all(problem.line is not None and 1 <= problem.line <= lines for problem in document.problems)
    assert all(entry.line is not None and 1 <= entry.line <= lines for entry in document.entries)


@given(st.dictionaries(st.tuples(NAMES, NAMES), VALUES), st.randoms())
def test_what_is_written_is_read_whatever_the_order_of_merged_sections(wanted, random):
    items = list(wanted.items())
    random.shuffle(items)
    text = "".join(f"[{section}]\n{key} = " + "\n  ".join(value) + "\n" for (section, key), value in items)
    assert parse("f", text).problems == ()
    # A line that is empty says nothing, whatever it continues.
    expected = {at: "\n".join([value[0], *filter(None, value[1:])]).strip() for at, value in wanted.items()}
    assert entries(text) == expected
