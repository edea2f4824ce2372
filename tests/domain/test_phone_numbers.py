import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from sydentish.domain.errors import InvalidAddress
from sydentish.domain.threepids import (
    EMAIL,
    MSISDN,
    PhoneNumber,
    Threepid,
    check_numbering_plan,
    normalise,
    parse_phone_number,
)

COUNTRIES = sorted(phonenumbers.SUPPORTED_REGIONS)
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=70)
NEAR_NUMBERS = st.text("0123456789+-() .٣٦ext;=abc\n", max_size=24)
DIGITS = st.text("0123456789", min_size=3, max_size=14)
BRITISH = PhoneNumber("447700900001", "+44 7700 900001", "GB")


@pytest.mark.parametrize(
    ("country", "number"),
    [
        ("GB", "07700900001"),
        ("gb", "07700 900001"),
        ("GB", "7700900001"),
        ("GB", "+447700900001"),
        ("US", "+44 7700 900001"),
        ("GB", "+44 (0)7700 900001"),
        ("GB", "00447700900001"),
        ("US", "011447700900001"),
        ("GB", "tel:+447700900001"),
        ("GB", " 07700-900-001\n"),
        ("GB", "٠٧٧٠٠٩٠٠٠٠١"),
    ],
)
def test_many_ways_to_write_one_number(country, number):
    assert parse_phone_number(country, number) == BRITISH


@pytest.mark.parametrize(
    ("country", "number", "expected"),
    [
        ("DE", "030 901820", PhoneNumber("4930901820", "+49 30 901820", "DE")),
        ("IT", "02 3661 8300", PhoneNumber("390236618300", "+39 02 3661 8300", "IT")),
        ("AR", "011 15-3456-7890", PhoneNumber("5491134567890", "+54 9 11 3456-7890", "AR")),
        ("JE", "07797 712345", PhoneNumber("447797712345", "+44 7797 712345", "JE")),
        ("US", "(264) 235-1234", PhoneNumber("12642351234", "+1 264-235-1234", "AI")),
        ("US", "1-800-FLOWERS", PhoneNumber("18003569377", "+1 800-356-9377", "US")),
    ],
)
def test_numbers_of_many_countries(country, number, expected):
    assert parse_phone_number(country, number) == expected


@pytest.mark.parametrize("number", ["+800 1234 5678", "+870 773 111 632", "+882 13 300 655"])
def test_a_number_of_no_country(number):
    assert parse_phone_number("US", number).region is None


@pytest.mark.parametrize(
    "country", ["", "G", "GBR", "XX", "ZZ", "001", "44", "ß", "G ", "GB\n", "İT", "g\ud800"]
)
def test_what_is_no_country(country):
    with pytest.raises(InvalidAddress) as raised:
        parse_phone_number(country, "+447700900001")
    assert raised.value.message.startswith("country: ")


@pytest.mark.parametrize(
    "number",
    [
        "",
        "+",
        "0",
        "999",
        "alice",
        "+999 12345678",
        "07700900001 ext 5",
        "07700900001;ext=5",
        "077009000010000",
        "0" * 64,
        "07700900001" + " " * 54,
        "7" * 10_000,
        "\ud800",
    ],
)
def test_what_is_no_number(number):
    with pytest.raises(InvalidAddress) as raised:
        parse_phone_number("GB", number)
    assert raised.value.message.startswith("phone_number: ")
    assert not number or number not in raised.value.message or number in "+0"


@given(ANYTHING, ANYTHING | NEAR_NUMBERS)
@example("GB", "+" * 64)
@example("GB", "(" * 64)
def test_nothing_else_goes_wrong_with_any_country(country, number):
    with pytest.raises(InvalidAddress):
        parse_phone_number(country if country.upper() not in COUNTRIES else "XX", number)


@given(st.sampled_from(COUNTRIES), ANYTHING | NEAR_NUMBERS | DIGITS | DIGITS.map("+".__add__))
@example("IM", "0323322517")
@example("BY", "08874908866")
@example("GB", "+6300642687842")
@example("KR", "+8208808704305")
@example("AR", "+54 11 15 3456 7890")
@example("MX", "+52 1 55 1234 5678")
def test_what_is_stored_is_digits_that_mean_the_same_number_everywhere(country, number):
    """Else one telephone would have several forms, each with a session, a budget and a user of its own."""
    try:
        parsed = parse_phone_number(country, number)
    except InvalidAddress:
        return
    assert normalise(MSISDN, parsed.msisdn) == Threepid(MSISDN, parsed.msisdn)
    assert "".join(filter(str.isdigit, parsed.intl_fmt)) == parsed.msisdn
    assert parse_phone_number("GB", f"+{parsed.msisdn}") == parsed
    assert parse_phone_number("US", parsed.intl_fmt) == parsed


EXAMPLES = [
    (country, phonenumbers.format_number(found, style))
    for country in COUNTRIES
    for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE)
    if (found := phonenumbers.example_number_for_type(country, kind))
    for style in (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.RFC3966)
]


@given(st.sampled_from(EXAMPLES))
def test_numbers_of_the_known_plans_are_accepted(example):
    parsed = parse_phone_number(*example)
    assert check_numbering_plan(parsed) is None
    expected = phonenumbers.parse(example[1], example[0])
    assert parsed.msisdn == phonenumbers.format_number(expected, PhoneNumberFormat.E164)[1:]


@pytest.mark.parametrize(("country", "number"), [("GB", "0323322517"), ("US", "+1 555 100 1000")])
def test_a_number_outside_the_known_plan_is_accepted_unless_that_is_checked(country, number):
    parsed = parse_phone_number(country, number)
    with pytest.raises(InvalidAddress, match="phone_number: "):
        check_numbering_plan(parsed)


# --- addresses of either medium ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("medium", "address", "expected"),
    [
        (MSISDN, "447700900001", Threepid(MSISDN, "447700900001")),
        (MSISDN, "+447700900001", Threepid(MSISDN, "447700900001")),
        (EMAIL, "Alice@Example.org", Threepid(EMAIL, "alice@example.org")),
        (MSISDN, "++447700900001", None),
        (MSISDN, "07700900001", None),
        (MSISDN, "447", None),
        (MSISDN, "4" * 15, Threepid(MSISDN, "4" * 15)),
        (MSISDN, "4" * 16, None),
        (MSISDN, "44 7700 900001", None),
        (MSISDN, "447700900001\n", None),
        (MSISDN, "٤٤٧٧٠٠٩٠٠٠٠١", None),
        (MSISDN, "", None),
        (MSISDN, "alice@example.org", None),
        (EMAIL, "447700900001", None),
        (EMAIL, "", None),
        ("phone", "447700900001", None),
        ("", "alice@example.org", None),
        ("EMAIL", "alice@example.org", None),
    ],
)
def test_addresses_in_the_form_that_is_stored(medium, address, expected):
    assert normalise(medium, address) == expected


@given(st.sampled_from([EMAIL, MSISDN]), ANYTHING | NEAR_NUMBERS)
def test_what_is_stored_stays_as_it_is(medium, address):
    threepid = normalise(medium, address)
    assert threepid is None or normalise(threepid.medium, threepid.address) == threepid
