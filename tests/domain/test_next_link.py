"""`NextLinkPolicy`: where a browser may be sent after a validation."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sydentish.domain.errors import InvalidParam
from sydentish.domain.validation import NextLinkPolicy

ANYWHERE = NextLinkPolicy()
APP = NextLinkPolicy(frozenset({"https://app.example.org"}))
# What the URLs of attacks are made of.
LINK_LIKE = st.text(
    alphabet=st.one_of(
        st.sampled_from("htpsHTPS:/\\?#@[]%.aA1-_ \t\r\n\0<>\"'jv"), st.characters(exclude_categories=())
    ),
    max_size=40,
)
PREFIXES = st.sampled_from(["", "http://", "https://", "HTTPS://", "//", "https:", "http:/\\", "javascript:"])
TAILS = st.text(alphabet="abc/?#@:&=%.-_~!$'()*+,;\\[]", max_size=20)


def refused(policy, link):
    with pytest.raises(InvalidParam) as caught:
        policy.check("next_link", link)
    assert caught.value.name == "next_link"
    assert len(link) < 4 or link not in caught.value.message
    return caught.value.problem


@pytest.mark.parametrize(
    "link",
    [
        "https://app.example.org",
        "https://app.example.org/",
        "https://app.example.org/#/room/!r:example.org?via=x",
        "https://app.example.org/path?query=%20%0d%0a#fragment",
        "http://localhost:8080/x",
        "HTTPS://APP.example.ORG/",
        "https://app.example.org:443/",
        "https://app.example.org:/",
        "https://user:password@app.example.org/",
        "https://[::1]/",
        "https://[2001:db8::1]:8443/x",
        "https://192.0.2.1/",
        "https://my_host/",
        "https://xn--bcher-kva.example/",
        "https://app.example.org/a@b:c",
        "https://app.example.org/[brackets]",
        "https://example.org/" + "x" * (2048 - 20),
    ],
)
def test_absolute_http_and_https_urls_are_taken_as_they_are(link):
    assert ANYWHERE.check("next_link", link) is link


@pytest.mark.parametrize(
    "link",
    [
        "",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "javascript://app.example.org/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://app.example.org/",
        "mailto:alice@example.org",
        "blob:https://app.example.org/x",
        "view-source:https://app.example.org/",
        "matrix:u/alice:example.org",
        "element://vector/",
        "//app.example.org/",
        "///app.example.org/",
        "\\\\app.example.org/",
        "/\\app.example.org/",
        "/path",
        "path",
        "?query",
        "#fragment",
        "app.example.org",
        "app.example.org:443/",
        "http:",
        "http://",
        "https:///path",
        "https:////app.example.org/",
        "https:app.example.org",
        "https:/app.example.org",
        "https:\\\\app.example.org",
        "https:/\\app.example.org",
        "https://\\app.example.org",
        "https://app.example.org\\@evil.org/",
        "https://app.example.org/\\evil",
        "https://?x",
        "https://#x",
        "https://@/",
        "https://user@/",
        "https://:443/",
        "https://user:pw@:443/",
        "https://app.example.org:x/",
        "https://app.example.org:-1/",
        "https://app.example.org:+443/",
        "https://app.example.org:65536/",
        "https://app.example.org:443:443/",
        "https://[::1/",
        "https://::1]/",
        "https://[]/",
        "https://[evil.org]/",
        "https://[v1.evil]/",
        "https://[::1%25eth0]/",
        "https://evil.org[::1]/",
        "https://[::1]evil.org/",
        "https://[::1]evil.org:443/",
        "https://[[::1]]/",
        " https://app.example.org/",
        "https://app.example.org/ ",
        "https://app.example.org/a b",
        "https://app.example.org/\r\nSet-Cookie: a=b",
        "https://app.example.org/\n",
        "https://app.example.org\n.evil.org/",
        "\nhttps://app.example.org/",
        "java\nscript:alert(1)",
        "ht\ttps://app.example.org/",
        "https://app.example.org/\0",
        "\x00https://app.example.org/",
        "\x1bhttps://app.example.org/",
        "https://app.example.org/\x7f",
        "https://app.example.org/\x85",
        "https://app.example.org/ä",
        "https://ä.example.org/",
        "https://app.example.org\u2044evil.org/",
        "https://app.example.org\uff0fevil.org/",
        "https://app。example。org/",
        "https://app.example.org/\ud800",
        "https://example.org/" + "x" * (2048 - 19),
        "x" * 100_000,
    ],
)
def test_everything_else_is_refused_whatever_is_allowed(link):
    refused(ANYWHERE, link)
    refused(APP, link)


@pytest.mark.parametrize(
    "link",
    [
        "https://app.example.org",
        "https://app.example.org/x?y#z",
        "https://app.example.org:443/",
        "https://app.example.org:0443/",
        "https://app.example.org:/",
        "HTTPS://App.Example.Org/",
        "https://evil.org@app.example.org/",
        "https://evil.org:443@app.example.org:443/",
    ],
)
def test_an_allowed_origin_is_known_in_all_its_spellings(link):
    assert APP.check("next_link", link) is link


@pytest.mark.parametrize(
    "link",
    [
        "http://app.example.org/",
        "https://app.example.org:80/",
        "https://app.example.org:8443/",
        "https://app.example.org:0/",
        "https://app.example.org./",
        "https://app.example.org.evil.org/",
        "https://evil.org/app.example.org",
        "https://evil.org?https://app.example.org",
        "https://evil.org#@app.example.org/",
        "https://evil.org?@app.example.org/",
        "https://evil.org/@app.example.org/",
        "https://app.example.org@evil.org/",
        "https://app.example.org:443@evil.org/",
        "https://app.example.org%40evil.org/",
        "https://app.example.org%2eevil.org/",
        "https://app.example.org%00.evil.org/",
        "https://app.example.org%2fevil.org/",
        "https://app.example.org;evil.org/",
        "https://app.example.org&evil.org/",
        "https://xapp.example.org/",
        "https://example.org/",
        "https://app_example.org/",
    ],
)
def test_any_other_origin_is_refused_however_it_looks(link):
    assert ANYWHERE.check("next_link", link) is link
    assert "does not send people" in refused(APP, link)


@pytest.mark.parametrize(
    ("origin", "link"),
    [
        ("http://app.example.org", "http://app.example.org:80/"),
        ("https://app.example.org:80", "https://app.example.org:80/"),
        ("http://app.example.org:443", "http://app.example.org:443/"),
        ("https://[::1]", "https://[::1]:443/x"),
        ("https://[2001:db8::1]:8443", "https://[2001:DB8::1]:8443/x"),
    ],
)
def test_ports_and_ip_literals_are_part_of_an_origin(origin, link):
    assert NextLinkPolicy(frozenset({origin})).check("next_link", link) is link


def test_an_ip_literal_on_another_port_is_another_origin():
    refused(NextLinkPolicy(frozenset({"https://[::1]"})), "https://[::1]:8443/")
    refused(NextLinkPolicy(frozenset({"https://[::1]:8443"})), "https://[::1]/")


def test_with_no_origin_allowed_every_link_is_refused():
    assert "does not send people" in refused(NextLinkPolicy(frozenset()), "https://app.example.org/")


@given(
    st.one_of(LINK_LIKE, st.builds(str.__add__, PREFIXES, LINK_LIKE), st.builds(str.__add__, PREFIXES, TAILS))
)
@example("https://[::1]:1/")
def test_whatever_passes_is_one_line_and_leads_to_a_host_by_http(link):
    try:
        passed = ANYWHERE.check("next_link", link)
    except InvalidParam:
        return
    assert passed is link
    assert re.fullmatch(r"[!-\[\]-~]+", link), "visible ASCII without a backslash"
    parts = urlsplit(link)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert link.lower().startswith(f"{parts.scheme}://")
    passed.encode("ascii")


@given(TAILS, TAILS)
def test_whatever_passes_to_an_allowed_origin_has_its_host_behind_the_last_at(before, after):
    link = f"https://{before}app.example.org{after}"
    try:
        APP.check("next_link", link)
    except InvalidParam:
        return
    authority = re.split(r"[/?#]", link.removeprefix("https://"), maxsplit=1)[0]
    assert re.fullmatch(r"(.*@)?app\.example\.org(:0*(443)?)?", authority)
