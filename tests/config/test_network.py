"""Parsers of names and places, and the addresses that are blocked at first."""

import ipaddress

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sydentish.config import network
from sydentish.config.sections import Homeservers


def refused(parser, text):
    with pytest.raises(ValueError, match="must ") as caught:
        parser(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("Example.ORG", "example.org"), ("localhost:8448", "localhost:8448"), ("[::0:1]:80", "[::1]:80")],
)
def test_server_names(text, canonical):
    assert network.server_name(text) == canonical


@pytest.mark.parametrize("text", ["", "https://example.org", "example.org/", "a b", "example.org:0", "::1"])
def test_no_server_names(text):
    assert refused(network.server_name, text).startswith("must be a server name such as example.org: ")


def test_server_patterns():
    assert network.server_pattern("*.Example.org") == "*.example.org"
    assert network.server_pattern("example.org:8448") == "example.org:8448"
    for text in ("*", "*.", "a.*.b", "*example.org", "**.example.org"):
        refused(network.server_pattern, text)


@pytest.mark.parametrize("text", ["localhost", "mail_relay", "mx.example.org", "192.0.2.1", "2001:db8::1"])
def test_hosts(text):
    assert network.host(text) == text


@pytest.mark.parametrize("text", ["", "a b", "host:25", "[::1]", "-x", "ö.example"])
def test_no_hosts(text):
    refused(network.host, text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://ID.example.org", "https://id.example.org"),
        ("https://id.example.org/", "https://id.example.org"),
        ("HTTP://localhost:8090/", "http://localhost:8090"),
        ("https://example.org/Id/x//", "https://example.org/Id/x"),
        ("https://[::1]:443/a%20b", "https://[::1]:443/a%20b"),
    ],
)
def test_base_urls(text, canonical):
    assert network.base_url(text) == canonical
    assert network.base_url(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id.example.org",
        "//id.example.org",
        "ftp://id.example.org",
        "https://",
        "https:///path",
        "https://u@id.example.org",
        "https://u:p@id.example.org",
        "https://id.example.org?",
        "https://id.example.org/#",
        "https://id.example.org/?a=b",
        "https://id.example.org/a b",
        "https://id.example.org/%zz",
        "https://id.example.org\\@evil.example",
        "https://id.example.org:99999",
        "https://id.ex\nample.org",
        "https://[::1",
        "https://ö.example",
    ],
)
def test_no_base_urls(text):
    refused(network.base_url, text)


def test_page_urls():
    url = "https://example.org/terms?lang=en#top"
    assert network.page_url(url) == url
    for text in ("javascript:alert(1)", "https://u:p@example.org/", "/terms", "https://example.org/a b"):
        refused(network.page_url, text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("*", "*"),
        ("https://App.example.org/", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://app.example.org:443", "http://app.example.org:443"),
        ("http://localhost:80", "http://localhost"),
        ("https://[::1]:443", "https://[::1]"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_origins(text, canonical):
    assert network.origin(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "app.example.org",
        "https://app.example.org/x",
        "https://a@app.example.org",
        "https://*.example.org",
        "**",
    ],
)
def test_no_origins(text):
    refused(network.origin, text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://ID.example.net:4434/", "https://id.example.net:4434"),
        ("HTTPS://id.example.net", "https://id.example.net"),
        ("https://id.example.net:443", "https://id.example.net"),
        ("https://[0:0::1]:4434", "https://[::1]:4434"),
        ("https://192.0.2.1:4434", "https://192.0.2.1:4434"),
    ],
)
def test_urls_of_peers(text, canonical):
    assert network.peer_url(text) == canonical
    assert network.peer_url(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *(
            "http://id.example.net:4434",
            "id.example.net:4434",
            "https://",
            "https://id.example.net:0",
            "*",
            "",
        ),
        *("https://id.example.net/_matrix", "https://id.example.net//", "https://a@id.example.net"),
        *("https://id.example.net?", "https://id.example.net/#", "https://id.example.net /"),
    ],
)
def test_no_urls_of_peers(text):
    assert refused(network.peer_url, text) == (
        "must be an https URL such as https://id.example.net:4434, without user, path, query and fragment: "
        "whoever uses it adds the path"
    )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("ID.Example.net.", "id.example.net"), ("2001:DB8:0::1", "2001:db8::1"), ("192.0.2.1", "192.0.2.1")],
)
def test_names_in_certificates(text, canonical):
    assert network.certificate_name(text) == canonical


@pytest.mark.parametrize("text", ["", "*.example.net", "[::1]", "example.net:1", "."])
def test_no_names_in_certificates(text):
    assert refused(network.certificate_name, text) == "must be a host name or an IP address"


def test_networks():
    assert network.network("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert network.network("fd00::1") == ipaddress.ip_network("fd00::1/128")
    for text in ("", "10.0.0.1/8", "10.0.0.0/33", "example.org", "10.*"):
        refused(network.network, text)


def test_sources():
    assert network.source("unix") == "unix"
    assert network.source("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert network.source("::1") == ipaddress.ip_network("::1/128")
    for text in ("", "Unix", "unix:/run/a.sock", "10.0.0.1/8", "localhost"):
        assert refused(network.source, text).endswith("; or the word unix")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://App.Element.io/", "https://app.element.io"),
        ("https://example.org/Chat/", "https://example.org/Chat"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_web_clients(text, canonical):
    assert network.web_client(text) == canonical
    assert network.web_client_or_any(text) == canonical
    assert network.web_client_or_any("*") == "*"


@pytest.mark.parametrize(
    "text",
    ["", "*", "app.element.io", "https://app.element.io/#/", "https://a/?x", "https://me@a", "element:a"],
)
def test_no_web_clients(text):
    message = "must be an absolute URL such as https://app.element.io, without user, query and fragment"
    assert refused(network.web_client, text) == message


def test_the_endpoints_of_v1_are_words_of_which_the_needed_ones_come_first():
    assert network.V1_ENDPOINTS[: len(network.V1_NEEDED)] == network.V1_NEEDED
    assert len(set(network.V1_ENDPOINTS)) == len(network.V1_ENDPOINTS) == 12


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_dns_servers(text, server):
    assert network.dns_server(text) == server


@pytest.mark.parametrize("text", ["", "dns.example.org", "192.0.2.1:0", "192.0.2.1:x", "192.0.2.256"])
def test_no_dns_servers(text):
    refused(network.dns_server, text)


def addresses():
    notable = [net for text in ("::/3", "2000::/3", "2001::/16") for net in [ipaddress.ip_network(text)]]
    return st.ip_addresses() | st.one_of([st.ip_addresses(network=net) for net in notable])


def blocked(address):
    networks = Homeservers().blocked_addresses
    return any(address in net for net in networks)


@given(addresses())
def test_every_address_that_is_not_global_is_blocked(address):
    odd = (
        not address.is_global
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    if odd:
        assert blocked(address)


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "192.0.1.1", "172.32.0.1", "2606:4700::1111", "2a01:4f8::1"]
)
def test_public_addresses_are_not_blocked(text):
    assert not blocked(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "2001:db8::1",
        "2001::1",
        "fec0::1",
        "::10.0.0.1",
        "100::1",
        "5f00::1",
        "4000::1",
    ],
)
def test_these_are_blocked(text):
    assert blocked(ipaddress.ip_address(text))


@given(st.text(st.characters(codec="utf-8")) | st.from_regex(r"(https?|tcp6?|unix):[a-z:/@?#\\=\[\].0-9]*"))
def test_any_text_is_parsed_or_refused(text):
    for parser in (
        network.server_name,
        network.server_pattern,
        network.host,
        network.base_url,
        network.page_url,
        network.origin,
        network.peer_url,
        network.certificate_name,
        network.network,
        network.dns_server,
        network.source,
        network.web_client,
        network.web_client_or_any,
    ):
        try:
            parser(text)
        except ValueError as error:
            assert "must " in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("text", "without"),
    [("https://example.org", "https://"), ("HTTP://example.org/x", "http://"), ("matrix://a", "a scheme")],
)
@pytest.mark.parametrize("parser", [network.server_name, network.server_pattern])
def test_a_url_is_no_server_name_and_is_told_apart(parser, text, without):
    assert refused(parser, text) == f"must be a server name such as example.org: write it without {without}"


@pytest.mark.parametrize(
    "path",
    ["/_matrix", "/_matrix/identity", "/_matrix/identity/v2/", "/id/_matrix", "/%5fmatrix", "/_MATRIX/x"],
)
def test_a_base_url_has_none_of_the_paths_that_are_added_to_it(path):
    assert "without /_matrix" in refused(network.base_url, f"https://id.example.org{path}")


def test_a_base_url_may_have_matrix_in_its_name():
    for url in ("https://id.example.org/a_matrix", "https://matrix.example.org/matrix"):
        assert network.base_url(url) == url
