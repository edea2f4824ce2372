import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unpaddedbase64 import encode_base64

from sydentish.domain.errors import ProofRefused
from sydentish.federation.xmatrix import XMatrix, parse_authorizations

SIGNATURE = bytes(range(64))
SIG = encode_base64(SIGNATURE)
PLAIN = XMatrix("hs.example.org", "ed25519:a_1", SIGNATURE, "id.example.org")
SYNAPSE = f'X-Matrix origin="hs.example.org",key="ed25519:a_1",sig="{SIG}",destination="id.example.org"'

TCHARS = "!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits
LENIENT = TCHARS + ":[]"
QUOTABLE = "\t" + "".join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))
BLANKS = st.text(" \t", max_size=2)
VALUES = st.text(QUOTABLE, max_size=20)
ORIGINS = st.sampled_from(["hs.example.org", "hs.example.org:8448", "1.2.3.4", "[::1]:8448", "[2001:db8::1]"])
SIGNATURES = st.binary(min_size=64, max_size=64)


def parse(*values):
    return parse_authorizations([value.encode("latin-1") for value in values])


@st.composite
def headers(draw):
    """Any spelling of a header, and what it says."""
    origin, key, signature = draw(ORIGINS), draw(VALUES), draw(SIGNATURES)
    destination = draw(st.none() | VALUES)
    unknown = draw(st.dictionaries(st.sampled_from(["x", "algorithm", "!", "Destination2"]), VALUES))
    named = {"origin": origin, "key": key, "sig": encode_base64(signature), **unknown}
    if destination is not None:
        named["destination"] = destination
    parts = [
        draw(cased(name)) + draw(BLANKS) + "=" + draw(BLANKS) + draw(written(value))
        for name, value in draw(st.permutations(list(named.items())))
    ]
    gaps = st.text(" \t,", max_size=3)
    separators = [draw(gaps) + "," + draw(gaps) for _ in parts]
    separators[-1] = draw(gaps)
    text = draw(BLANKS) + draw(cased("X-Matrix")) + " " + draw(gaps)
    return text + "".join(map(str.__add__, parts, separators)), XMatrix(origin, key, signature, destination)


def cased(name):
    return st.sampled_from([name, name.upper(), name.lower(), name.title()])


@st.composite
def written(draw, value):
    if value and set(value) <= set(LENIENT) and draw(st.booleans()):
        return value
    escaped = [c if c not in '"\\' and draw(st.integers(0, 5)) != 0 else "\\" + c for c in value]
    return '"' + "".join(escaped) + '"'


@given(headers())
def test_every_spelling_of_a_header_says_the_same(header):
    text, expected = header
    assert parse(text) == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        SYNAPSE,
        f'X-Matrix origin=hs.example.org,key=ed25519:a_1,sig="{SIG}",destination=id.example.org',
        f'x-matrix SIG="{SIG}" , Key = "ed25519:a_1",\tdestination="id.example.org",origin="hs.example.org"',
        (
            f'X-MATRIX   ,, origin="hs.example.org",,key="ed25519\\:a_1", sig="{SIG}",'
            'destination="\\i\\d.example.org",'
        ),
        f'X-Matrix origin="hs.example.org",key="ed25519:a_1",sig="{SIG}==",destination="id.example.org"',
        SYNAPSE + ',more="a, \\"b\\" = c \xe9",empty=""',
    ],
)
def test_one_header_in_many_spellings(text):
    assert parse(text) == (PLAIN,)


def test_the_destination_may_be_missing():
    (parsed,) = parse(f'X-Matrix origin=hs.example.org,key="ed25519:a_1",sig="{SIG}"')
    assert parsed.destination is None


def test_an_ipv6_literal_may_stand_unquoted():
    (parsed,) = parse(f'X-Matrix origin=[::1]:8448,key=ed25519:a_1,sig="{SIG}"')
    assert parsed.canonical_origin == "[::1]:8448"


def test_the_origin_is_kept_as_it_was_signed():
    (parsed,) = parse(SYNAPSE.replace("hs.example.org", "HS.example.org"))
    assert (parsed.origin, parsed.canonical_origin) == ("HS.example.org", "hs.example.org")


def test_several_headers_of_one_origin():
    second = SYNAPSE.replace("a_1", "b_2").replace("hs.example.org", "HS.EXAMPLE.org")
    assert [each.key_id for each in parse(SYNAPSE, "Bearer x", second)] == ["ed25519:a_1", "ed25519:b_2"]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer abc"],
        ["Bearer"],
        ["X-Matrix"],
        ["X-Matrix "],
        ["X-Matrix ,"],
        ["X-Matrix\t" + SYNAPSE.partition(" ")[2]],
        ["X-MatrixX " + SYNAPSE.partition(" ")[2]],
        [SYNAPSE.partition(" ")[2]],
        [SYNAPSE.replace(",", ";")],
        [SYNAPSE.replace(",", " ")],
        [SYNAPSE.removesuffix('"')],
        [SYNAPSE + "x"],
        [SYNAPSE + ",x"],
        [SYNAPSE + ",x="],
        [SYNAPSE + ',="x"'],
        [SYNAPSE + ',x="\\'],
        [SYNAPSE + ',x="\n"'],
        [SYNAPSE + ',x="\\\n"'],
        [SYNAPSE + "\n"],
        [SYNAPSE + '\n,x="y"'],
        [SYNAPSE + ",x=\xe9"],
        [SYNAPSE + ',ORIGIN="hs.example.org"'],
        [SYNAPSE + ",x=1,x=1"],
        [SYNAPSE + f',x="{"a" * 4096}"'],
        [SYNAPSE.replace('origin="hs.example.org",', "")],
        [SYNAPSE.replace('key="ed25519:a_1",', "")],
        [SYNAPSE.replace(f'sig="{SIG}",', "")],
        [SYNAPSE.replace("hs.example.org", "")],
        [SYNAPSE.replace("hs.example.org", "hs.example.org/")],
        [SYNAPSE.replace("hs.example.org", "hs.example.org:0")],
        [SYNAPSE.replace("hs.example.org", "a@hs.example.org")],
        [SYNAPSE.replace("hs.example.org", "h\xe9.example.org")],
        [SYNAPSE.replace(SIG, SIG[:-1])],
        [SYNAPSE.replace(SIG, SIG + "?")],
        [SYNAPSE.replace(SIG, SIG[:10] + " " + SIG[10:])],
        [SYNAPSE, SYNAPSE.replace("hs.example", "other.example")],
        [SYNAPSE, SYNAPSE.replace("hs.example.org", "hs.example.org:8448")],
        [SYNAPSE, "X-Matrix x"],
        [SYNAPSE] * 9,
    ],
)
def test_what_is_malformed_is_refused(values):
    with pytest.raises(ProofRefused) as raised:
        parse(*values)
    assert raised.value.message.startswith(("Authorization must ", "X-Matrix: "))
    assert SIG not in raised.value.message


NEAR = st.text('X-Matrixoginkeysdt=",:;\\ \t[]()\r\n\0\xe9', max_size=60).map(
    lambda text: text.encode("latin-1")
)


@st.composite
def damaged(draw):
    text = draw(headers())[0].encode("latin-1")
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


@given(st.lists(st.binary(max_size=60) | NEAR | NEAR.map(b"X-Matrix ".__add__) | damaged(), max_size=3))
@example([b"X-Matrix " + b"a" * 4000])
@example([b"X-Matrix " + b"\t," * 2000 + b"a"])
@example([b'X-Matrix a="' + b"\\" * 4000])
@example([b"X-Matrix a=" + b"a" * 2000 + b" " * 2000 + b"x"])
def test_nothing_else_goes_wrong(values):
    try:
        parsed = parse_authorizations(values)
    except ProofRefused:
        return
    assert len({each.canonical_origin for each in parsed}) == 1
