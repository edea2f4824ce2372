"""Parsers of plain values."""

from email.headerregistry import HeaderRegistry

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sydentish.config import values
from sydentish.domain.ratelimit import Granted, Rate, withdraw

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def refused(parser, text):
    with pytest.raises(ValueError, match="must ") as caught:
        parser(text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["yes", "true", "on", "1", "Yes", "TRUE"])
def test_true(text):
    assert values.boolean(text) is True


@pytest.mark.parametrize("text", ["no", "false", "off", "0", "No"])
def test_false(text):
    assert values.boolean(text) is False


@pytest.mark.parametrize("text", ["", "y", "2", "yes no", "ja"])
def test_neither_true_nor_false(text):
    assert refused(values.boolean, text) == "must be yes or no"


@given(st.integers(-100, 100))
def test_integers_within_bounds(number):
    parser = values.integer(-5, 64)
    if -5 <= number <= 64:
        assert parser(str(number)) == number
    else:
        assert refused(parser, str(number)) == "must be a whole number from -5 to 64"


@pytest.mark.parametrize("text", ["", "1.5", "1e3", "0x10", "1_000", "\u0663", "9" * 5000, "1 2"])
def test_no_integers(text):
    refused(values.integer(0, 10**20), text)


@given(st.integers(1, 10**9), st.sampled_from(["", "K", "M"]))
def test_sizes(number, unit):
    assert values.size(f"{number}{unit}") == number * {"": 1, "K": 1024, "M": 1024**2}[unit]


@pytest.mark.parametrize("text", ["", "0", "0K", "-1", "64k", "64 K", "1G", "K", "1.5M", "9" * 5000])
def test_no_sizes(text):
    assert refused(values.size, text) == "must be a size such as 65536 or 64K"


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS)))
def test_durations(number, unit):
    assert values.duration()(f"{number}{unit}") == number * UNITS[unit]


@pytest.mark.parametrize(
    "text", ["", "0s", "30", "-1s", "1.5h", "30 s", "1w", "s", "9" * 12 + "d", "9" * 5000 + "s"]
)
def test_no_durations(text):
    assert refused(values.duration(), text) == "must be a duration such as 500ms, 30s, 5m, 24h or 14d"


def test_a_duration_with_a_maximum():
    assert values.duration(maximum="10s")("10s") == 10_000
    assert refused(values.duration(maximum="10s"), "10001ms").endswith(", at most 10s")


@pytest.mark.parametrize("text", ["off", "0", "0s", "0K", "00"])
def test_limits_are_switched_off(text):
    assert values.limit(values.size)(text) is None
    assert values.limit(values.duration())(text) is None


def test_limits_that_are_on():
    assert values.limit(values.size)("64K") == 65536
    assert refused(values.limit(values.size), "much") == "must be a size such as 65536 or 64K, or off"
    refused(values.limit(values.size), "")


def test_optional():
    assert values.optional(values.size)("") is None
    assert values.optional(values.size)("1K") == 1024


def test_choice():
    parser = values.choice("starttls", "tls", "plain")
    assert parser("tls") == "tls"
    assert refused(parser, "ssl") == "must be one of starttls, tls, plain"


@given(st.lists(st.integers(0, 9).map(str)), st.sampled_from([",", "\n", ", ", " ,\n", "\n\n"]))
def test_lists_by_line_or_comma(numbers, separator):
    assert values.items(values.integer(0, 9))(separator.join(numbers)) == tuple(map(int, numbers))


def test_lists_name_the_wrong_item():
    assert refused(values.items(values.integer(0, 9)), "1, 22").startswith("`22` must be")
    assert refused(values.items(values.integer(0, 9)), "x" * 500).startswith("`" + "x" * 60 + "...` must be")


def test_lists_do_not_repeat_what_could_be_an_address_or_a_password():
    assert "hunter2" not in refused(values.items(values.integer(0, 9)), "https://u:hunter2@example.org")


def test_lines_keep_commas():
    assert values.lines(values.text)("a,b\n c") == ("a,b", "c")
    assert values.lines(values.text)("") == ()
    assert (
        refused(values.lines(values.text, at_least=1), "\n") == "must have at least 1 item, one on each line"
    )


@pytest.mark.parametrize("value", ["a\nb", "a\tb", "\u2028", "\ud800"])
def test_text_is_one_printable_line(value):
    refused(values.text, value)


@pytest.mark.parametrize("name", ["default", "my-brand", "_x", "a.b", "2"])
def test_folder_names(name):
    assert values.folder_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "-x", "a b", "é", "a\n", "x" * 101])
def test_no_folder_names(name):
    refused(values.folder_name, name)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("noreply@example.org", "noreply@example.org"),
        ("noreply@localhost", "noreply@localhost"),
        ("Sydentish <noreply@example.org>", "Sydentish <noreply@example.org>"),
        ("Example Inc. <id@example.org>", '"Example Inc." <id@example.org>'),
        ('"Id, please" <id@example.org>', '"Id, please" <id@example.org>'),
        ("Bücher <id@example.org>", "Bücher <id@example.org>"),
    ],
)
def test_mailboxes(text, canonical):
    assert values.mailbox(text) == canonical
    assert values.mailbox(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sydentish",
        "<",
        '"',
        "a@",
        "@b",
        "<>",
        "a@b@c",
        "a@b, c@d",
        "group: a@b;",
        "a@b\r\nBcc: c@d",
        "a@b c",
        "ö@b",
        "a@ö.example",
        "=?utf-8?q?a=0d=0ab?= <a@b>",
        "=?utf-8?q?a=00b?= <a@b>",
    ],
)
def test_no_mailboxes(text):
    assert "@b" not in refused(values.mailbox, text)


@given(st.text(st.sampled_from('ab@.<>"(),:;[]\\ =?ö\n\x00'), max_size=20) | st.text())
def test_a_mailbox_is_one_address_and_nothing_else(text):
    try:
        mailbox = values.mailbox(text)
    except ValueError:
        return
    header = HeaderRegistry()("From", mailbox)
    assert len(header.addresses) == 1
    assert header.addresses[0].addr_spec.isascii()
    assert mailbox.isprintable()


@given(st.text())
def test_any_text_is_parsed_or_refused(text):
    for parser in (
        values.text,
        values.boolean,
        values.integer(0, 5),
        values.size,
        values.limit(values.duration()),
        values.items(values.size),
        values.lines(values.folder_name),
        values.distinct(values.items(values.text)),
        values.words("a", "b"),
        values.limit(values.rate),
        values.daily_rate(50),
        values.room_id,
        values.bearer_token,
    ):
        try:
            parser(text)
        except ValueError as error:
            assert "must " in str(error)  # noqa: PT017 - either outcome is right


def test_words():
    parser = values.words("lookup", "validate/email", "bind")
    assert parser("bind, lookup") == {"bind", "lookup"}
    assert parser("bind\nvalidate/email,bind") == {"bind", "validate/email"}
    assert parser("all") == {"lookup", "validate/email", "bind"}
    assert parser("none") == parser("") == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("look", "`look` must be one of lookup, bind, all, none"),
        ("Bind", "`Bind` must be one of lookup, bind, all, none"),
        ("all, bind", "must be all alone, none alone, or a list without them"),
        ("bind, none", "must be all alone, none alone, or a list without them"),
        ("all, none", "must be all alone, none alone, or a list without them"),
    ],
)
def test_no_words(text, message):
    assert refused(values.words("lookup", "bind"), text) == message


def test_every_item_that_is_wrong_is_named_the_same_mistake_once():
    for parser, text in (
        (values.items(values.boolean), "yes, a, no, b, a"),
        (values.lines(values.boolean), "a\nyes\n b\n"),
    ):
        assert refused(parser, text) == "`a`, `b` must be yes or no"
    said = refused(values.items(values.mailbox), "a, Me <a@example.org> x, b@")
    assert said.startswith("`a`, an item must be one mailbox ")


def test_items_that_are_wrong_in_different_ways_are_told_one_after_the_other():
    def parser(item):
        raise ValueError(f"must be {item}{item}")

    assert refused(values.items(parser), "a, b") == "`a` must be aa; `b` must be bb"


def test_distinct_items():
    parser = values.distinct(values.items(values.text))
    assert parser("b, a") == ("b", "a")
    assert refused(parser, "a, b, a") == "must have each item once"


@given(st.integers(1, 1_000_000), st.integers(1, 10_000), st.sampled_from(sorted(UNITS)))
def test_rates(count, number, unit):
    text = f"{count}/{number}{unit}"
    if count <= number * UNITS[unit]:
        assert values.rate(text) == Rate(count, number * UNITS[unit])
    else:
        assert "at most one in each millisecond" in refused(values.rate, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "/1h",
        "30/",
        "30/h",
        "0/1h",
        "-1/1h",
        "1.5/1h",
        "30 / 1h",
        "30/1h/1d",
        "30/0s",
        "30/1w",
        "1000001/1d",
        "30/36501d",
        "\u0663/1h",
        "off",
        f"{'9' * 5000}/1d",
    ],
)
def test_no_rates(text):
    message = "must be a rate such as 30/1h: 1 to 1000000 in a duration, at most one in each millisecond"
    assert refused(values.rate, text) == message


def test_a_rate_that_may_be_off():
    parser = values.limit(values.rate)
    assert parser("off") is None
    assert parser("0") is None
    assert parser("30/1h") == Rate(30, 3_600_000)
    assert refused(parser, "much").endswith("at most one in each millisecond, or off")


@given(st.integers(1, 1000), st.integers(1, 100), st.sampled_from(["m", "h", "d"]))
def test_a_daily_rate_always_grants_its_least_number_at_once(count, number, unit):
    try:
        rate = values.daily_rate(50)(f"{count}/{number}{unit}")
    except ValueError as error:
        assert "must be at least 50/1d" in str(error)  # noqa: PT017 - either outcome is right
        assert count < 50 or count * UNITS["d"] < 50 * number * UNITS[unit]
        return
    now_ms, full_ts = 10**12, None
    # Everything is used up, and a day later there are fifty again.
    for day in range(2):
        for _ in range(count if day == 0 else 50):
            outcome = withdraw(full_ts, rate, now_ms + day * UNITS["d"])
            assert isinstance(outcome, Granted)
            full_ts = outcome.full_ts


@pytest.mark.parametrize("text", ["49/1d", "50/25h", "25/12h", "1/1m", "off", "0", ""])
def test_no_daily_rates(text):
    refused(values.daily_rate(50), text)


@pytest.mark.parametrize("text", ["50/1d", "100/1d", "50/1h", "100/2d"])
def test_daily_rates(text):
    assert values.daily_rate(50)(text) == values.rate(text)


@pytest.mark.parametrize(
    "text", ["!abc:example.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!a:b:8448"]
)
def test_room_ids(text):
    assert values.room_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "!", "#a:example.org", "a:example.org", "!a b:c", f"!{'a' * 255}", "!a\u200b"]
)
def test_no_room_ids(text):
    assert refused(values.room_id, text) == "must be a room ID such as !id:example.org"


@pytest.mark.parametrize("text", ["abc", "aA0-._~+/==", "x="])
def test_bearer_tokens(text):
    assert values.bearer_token(text) == text


@pytest.mark.parametrize("text", ["", "a b", "=", "a=b", "t\u00f6ken", 'a"', "a,b", "a:b"])
def test_no_bearer_tokens(text):
    assert refused(values.bearer_token, text) == "must have only letters, digits and -._~+/, and = at its end"
