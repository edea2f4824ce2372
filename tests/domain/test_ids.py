import ipaddress
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sydentish.domain.errors import InvalidParam
from sydentish.domain.ids import (
    ServerName,
    is_server_name,
    opaque,
    parse_server_name,
    server_name_of,
    user_id,
)

ANY_CHARACTER = st.characters(exclude_categories=())
# Strings that look like names, since random ones are hardly ever on the edge.
NAME_LIKE = st.text(alphabet="aZ09.-_:[]%@/\\ \r\nf\0ß", max_size=30)
LABELS = st.from_regex(r"[a-zA-Z]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?", fullmatch=True)
DNS_NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
HOSTS = st.one_of(
    DNS_NAMES,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded.upper()}]"),
)
PORTS = st.one_of(st.none(), st.integers(min_value=1, max_value=65535))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", ServerName("example.org", None, is_ip=False)),
        ("EXAMPLE.Org", ServerName("example.org", None, is_ip=False)),
        ("matrix.org:8888", ServerName("matrix.org", 8888, is_ip=False)),
        ("localhost:8448", ServerName("localhost", 8448, is_ip=False)),
        ("example.org.", ServerName("example.org.", None, is_ip=False)),
        ("xn--bcher-kva.example", ServerName("xn--bcher-kva.example", None, is_ip=False)),
        ("1a.2b", ServerName("1a.2b", None, is_ip=False)),
        ("a:1", ServerName("a", 1, is_ip=False)),
        ("a:65535", ServerName("a", 65535, is_ip=False)),
        ("a:00080", ServerName("a", 80, is_ip=False)),
        ("1.2.3.4", ServerName("1.2.3.4", None, is_ip=True)),
        ("1.2.3.4:1234", ServerName("1.2.3.4", 1234, is_ip=True)),
        ("[1234:5678::abcd]", ServerName("1234:5678::abcd", None, is_ip=True)),
        ("[1234:5678::ABCD]:5678", ServerName("1234:5678::abcd", 5678, is_ip=True)),
        ("[0:0:0:0:0:0:0:1]", ServerName("::1", None, is_ip=True)),
        ("[::ffff:1.2.3.4]", ServerName("::ffff:102:304", None, is_ip=True)),
    ],
)
def test_server_names_are_taken_apart(text, expected):
    assert parse_server_name(text) == expected
    assert is_server_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\r\nHost: b",
        "a\0",
        "a_b",
        "ä.example",
        "example。org",
        "a@b",
        "user@example.org:80",
        "https://example.org",
        "example.org/",
        "example.org?x",
        "example.org#x",
        "a%2eb",
        "a\\b",
        ".",
        ".example.org",
        "example..org",
        "-example.org",
        "a:",
        ":80",
        "a:0",
        "a:65536",
        "a:100000",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:1 ",
        "a:1\n",
        "a:x",
        "a:1:2",
        "a:\u0661",
        "a:²",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4.",
        "1.2.3.256",
        "01.2.3.4",
        "1234",
        "\u0661.2.3.4",
        "::1",
        "::1:80",
        "[]",
        "[",
        "]",
        "[::1",
        "[::1]]",
        "[::1]8448",
        "[::1]:",
        "[::1]:0",
        "[::1]x:1",
        "x[::1]",
        "[1.2.3.4]",
        "[example.org]",
        "[::1::]",
        "[::12345]",
        "[::1]\n",
        "[ ::1]",
        "a" * 254,
        f"{'a' * 252}:8448",
    ],
)
def test_what_is_no_server_name_is_refused(text):
    assert not is_server_name(text)
    with pytest.raises(ValueError, match="server name"):
        parse_server_name(text)


@pytest.mark.parametrize(
    "text", ["[fe80::1%eth0]", "[fe80::1%25eth0]:8448", "[fe80::1%\r\nX-Evil: 1]", "[::1% ]", "[::1%a@b]:80"]
)
def test_an_ip_literal_has_no_zone_which_could_hold_any_characters(text):
    assert not is_server_name(text)


@pytest.mark.parametrize("text", ["a" * 253, f"{'a' * 250}:443", f"{'a' * 249}:8448"])
def test_the_longest_server_names_are_accepted(text):
    assert is_server_name(text)


@given(HOSTS, PORTS)
def test_what_the_grammar_makes_is_accepted_with_its_parts(host, port):
    text = host if port is None else f"{host}:{port}"
    assume(len(host) <= 253)
    name = parse_server_name(text)
    assert name.port == port
    if name.is_ip:
        assert ipaddress.ip_address(name.host) == ipaddress.ip_address(host.strip("[]"))
    else:
        assert name.host == host.lower()


@given(HOSTS, PORTS)
def test_a_name_written_out_is_the_same_name(host, port):
    name = parse_server_name(host if port is None else f"{host}:{port}")
    assert parse_server_name(str(name)) == name
    assert str(parse_server_name(str(name))) == str(name)


@given(st.one_of(NAME_LIKE, st.text(alphabet=ANY_CHARACTER, max_size=300)))
def test_whatever_is_accepted_is_safe_in_a_header_a_url_and_a_look_up(text):
    try:
        name = parse_server_name(text)
    except ValueError:
        assert not is_server_name(text)
        return
    assert re.fullmatch(r"[0-9a-z.-]+(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?", str(name))
    assert parse_server_name(str(name)) == name
    assert len(text) <= 255


@pytest.mark.parametrize(
    ("mxid", "server_name"),
    [
        ("@alice:example.org", "example.org"),
        ("@alice:Example.ORG", "Example.ORG"),
        ("@alice:example.org:8448", "example.org:8448"),
        ("@alice:[::1]", "[::1]"),
        ("@alice:[::1]:8448", "[::1]:8448"),
        ("@alice:192.0.2.1:80", "192.0.2.1:80"),
        ("@a.b_c=d-e/f+g:example.org", "example.org"),
        ("@Alice!#$%&'()*,;<>?[]^`{|}~\":example.org", "example.org"),
        ("@alice@home:example.org", "example.org"),
        ("@ælfred:example.org", "example.org"),
        ("@爱丽丝:example.org", "example.org"),
        ("@:example.org", "example.org"),
        (f"@{'a' * 242}:example.org", "example.org"),
        (f"@{'ä' * 121}:example.org", "example.org"),
    ],
)
def test_user_ids_also_historical_ones_name_their_server_as_written(mxid, server_name):
    assert server_name_of(mxid) == server_name
    assert user_id("mxid", mxid) == mxid


@pytest.mark.parametrize(
    "mxid",
    [
        "",
        "@",
        "@alice",
        "alice:example.org",
        " @alice:example.org",
        "#alice:example.org",
        "@@:",
        "@alice:",
        "@alice: example.org",
        "@alice:example.org ",
        "@alice:example.org\n",
        "@alice:example.org/",
        "@alice:exa_mple.org",
        "@alice:example.org:",
        "@alice:example.org:0",
        "@alice:example.org:99999",
        "@alice:bob:example.org",
        "@alice:[fe80::1%eth0]",
        "@ali ce:example.org",
        "@alice\n:example.org",
        "@ali\0ce:example.org",
        "@ali\tce:example.org",
        "@ali\x7fce:example.org",
        "@ali\x85ce:example.org",
        "@ali\xa0ce:example.org",
        "@ali\u2028ce:example.org",
        "@ali\u202ece:example.org",
        "@ali\u200bce:example.org",
        "@ali\ud800ce:example.org",
        f"@{'a' * 243}:example.org",
        f"@{'ä' * 122}:example.org",
        f"@{'爱' * 81}:example.org",
    ],
)
def test_what_is_no_user_id_is_refused_by_name(mxid):
    with pytest.raises(ValueError, match=r"server name|user ID"):
        server_name_of(mxid)
    with pytest.raises(InvalidParam) as caught:
        user_id("mxid", mxid)
    assert caught.value.name == "mxid"
    assert len(mxid) < 3 or mxid not in caught.value.message


@given(st.text(alphabet=ANY_CHARACTER, max_size=20), st.one_of(HOSTS, NAME_LIKE))
def test_an_accepted_user_id_is_its_local_part_and_a_server_name(localpart, server):
    mxid = f"@{localpart}:{server}"
    try:
        found = server_name_of(mxid)
    except ValueError:
        return
    assert is_server_name(found)
    assert mxid.endswith(f":{found}")
    assert mxid.partition(":")[2] == found, "the first colon ends the local part"
    assert len(mxid.encode()) <= 255
    assert not any(c.isspace() or ord(c) < 0x20 for c in mxid)


@pytest.mark.parametrize("value", ["a", "0", "A-Z_a.z=09", "x" * 255, "....", "==="])
def test_opaque_strings_are_taken_as_they_are(value):
    assert opaque("client_secret", value) == value


@pytest.mark.parametrize(
    "value",
    ["", "x" * 256, "a b", "a\n", "\na", "a+b", "a/b", "ä", "a\0", "٣", "a~", "a%20", "a&b", "\ud800"],
)
def test_what_is_no_opaque_string_is_refused_by_name_without_being_shown(value):
    with pytest.raises(InvalidParam) as caught:
        opaque("client_secret", value)
    assert caught.value.message == "client_secret: must be 1 to 255 characters of 0-9 a-z A-Z . = _ -"


@given(st.text(alphabet=st.one_of(ANY_CHARACTER, st.sampled_from(".=_-az09")), max_size=260))
def test_the_opaque_grammar_is_that_of_the_specification(value):
    allowed = set(string.ascii_letters + string.digits + ".=_-")
    try:
        opaque("sid", value)
        accepted = True
    except InvalidParam:
        accepted = False
    assert accepted == (1 <= len(value) <= 255 and set(value) <= allowed)
