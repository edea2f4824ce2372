"""Parsers of what belongs to telephone numbers."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from phonenumbers import SUPPORTED_REGIONS

from sydentish.config import phones


def refused(parser, text):
    with pytest.raises(ValueError, match="must ") as caught:
        parser(text)
    return str(caught.value)


@given(st.sampled_from(sorted(SUPPORTED_REGIONS)), st.booleans())
def test_countries(code, lower):
    assert phones.country(code.lower() if lower else code) == code


@pytest.mark.parametrize("text", ["", "G", "GBR", "XX", "44", "001", "\u00df", "\uff27\uff22"])
def test_no_countries(text):
    assert refused(phones.country, text) == "must be a two-letter country code of ISO 3166-1, such as GB"


@pytest.mark.parametrize("text", ["UK", "uk"])
def test_what_many_take_for_the_code_of_great_britain(text):
    with pytest.raises(ValueError, match=r"^is no country code of ISO 3166-1: did you mean GB\?$"):
        phones.country(text)
    with pytest.raises(ValueError, match=r"^`UK:x` begins with what is no country code .*did you mean GB\?$"):
        phones.originators("UK:x")


@pytest.mark.parametrize(
    "text",
    [
        "447700900001",
        "+447700900001",
        "12345",
        "123",
        "Matrix",
        "Example-Org",
        "R&D Dept.",
        "1a",
        "1" * 15,
        "x" * 11,
    ],
)
def test_originators(text):
    assert phones.originator(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "+", "12", "+123", "1" * 16, "x" * 12, "B\u00fcro", "a/b", "44 7700 900001", "a\nb", "++4477009000"],
)
def test_no_originators(text):
    assert refused(phones.originator, text).startswith("must be a telephone number with its country code, ")


@pytest.mark.parametrize("text", ["acme", "acme-2.eu_west", "a" * 100])
def test_names_of_gateways(text):
    assert phones.gateway(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a/b", "\u00e4", "a" * 101])
def test_no_names_of_gateways(text):
    assert refused(phones.gateway, text) == "must be a name of letters, digits, _, - and ."


def test_originators_by_country():
    assert phones.originators("") == {}
    assert phones.originators("gb:447700900001, DE : Example\nFR:38000") == {
        "GB": "447700900001",
        "DE": "Example",
        "FR": "38000",
    }


def test_originators_by_country_cannot_be_changed():
    with pytest.raises(TypeError):
        phones.originators("GB:Example")["DE"] = "Other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GB", "`GB` must be a country and an originator such as GB:447700900001"),
        (
            "XX:Example",
            "`XX:Example` begins with what must be a two-letter country code of ISO 3166-1, such as GB",
        ),
        ("GB:Example, gb:Other", "must have each country once"),
    ],
)
def test_no_originators_by_country(text, message):
    assert refused(phones.originators, text) == message


def test_what_is_no_originator_of_a_country_is_named():
    assert refused(phones.originators, "DE:Example, GB:").startswith("`GB:` must be a telephone number ")


@given(st.text(st.sampled_from("GBDE:, +0123456789ab\n")) | st.text())
def test_any_text_is_parsed_or_refused(text):
    for parser in (phones.country, phones.originator, phones.originators, phones.gateway):
        try:
            parser(text)
        except ValueError as error:
            assert "must " in str(error)  # noqa: PT017 - either outcome is right
