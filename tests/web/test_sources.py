"""Where requests come from: nobody can choose that by what they send."""

import ipaddress

import pytest
from fixtures import networks
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from sydentish.web.sources import Source, Sources

LOOPBACK = ["127.0.0.0/8", "::1/128"]
CLIENT = "203.0.113.9"


def sources(proxies=(), trusted=LOOPBACK):
    return Sources(networks(proxies), networks(trusted))


def find(found, peer, *headers):
    return found.find(peer, [header.encode() for header in headers])


# --- without proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "key", "trusted"),
    [
        ("203.0.113.9", "203.0.113.9", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.255.255.254", "127.255.255.254", True),
        ("::1", "::/64", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::ffff:203.0.113.9", "203.0.113.9", False),
        ("2001:db8::1", "2001:db8::/64", False),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64", False),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64", False),
        ("fe80::1%eth0", "fe80::/64", False),
        (None, "unix", False),
    ],
)
def test_the_peer_is_the_source(peer, key, trusted):
    assert find(sources(), peer) == Source(key, trusted)


def test_unix_sockets_can_be_trusted():
    assert find(sources(trusted=["unix"]), None) == Source("unix", trusted=True)
    assert find(sources(trusted=["unix"]), "127.0.0.1") == Source("127.0.0.1", trusted=False)


@pytest.mark.parametrize(
    "header", ["127.0.0.1", "::1", "10.0.0.1", "garbage", "127.0.0.1, 127.0.0.1", ",", "unix"]
)
def test_without_proxies_the_header_chooses_nothing(header):
    assert find(sources(), CLIENT, header) == Source(CLIENT, trusted=False)


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", None])
@pytest.mark.parametrize("header", ["127.0.0.1", CLIENT, "garbage", "a, b"])
def test_a_peer_that_forwards_and_is_no_proxy_of_ours_is_never_trusted(peer, header):
    assert not find(sources(trusted=[*LOOPBACK, "unix"]), peer, header).trusted


@pytest.mark.parametrize("peer", ["127.0.0.1", None])
@pytest.mark.parametrize("proxies", [[], ["127.0.0.1", "unix"]])
def test_a_proxy_that_does_not_say_for_whom_is_never_trusted(peer, proxies):
    found = sources(proxies, trusted=[*LOOPBACK, "unix"])

    assert not found.find(peer, [], by_proxy=True).trusted
    assert found.find(peer, [], by_proxy=False).trusted


def test_one_that_says_it_is_believed():
    found = sources(["127.0.0.1"], trusted=["192.0.2.0/24"])

    assert found.find("127.0.0.1", [b"192.0.2.7"], by_proxy=True) == Source("192.0.2.7", trusted=True)


def test_of_such_a_peer_the_operator_hears_once():
    found = sources()
    with capturedLogs() as events:
        for number in range(5):
            find(found, "127.0.0.1", f"203.0.113.{number}")

    (line,) = map(formatEvent, events)
    assert "trusted_proxies" in line
    assert "203.0.113" not in line


def test_of_strangers_who_send_the_header_the_operator_hears_nothing():
    with capturedLogs() as events:
        find(sources(), CLIENT, "127.0.0.1")

    assert events == []


# --- behind proxies ------------------------------------------------------------------------------------


PROXIES = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("peer", "headers", "key"),
    [
        ("127.0.0.1", [CLIENT], CLIENT),
        ("::ffff:127.0.0.1", [CLIENT], CLIENT),
        ("127.0.0.1", [f"10.1.1.1, {CLIENT}"], CLIENT),
        ("127.0.0.1", [f"127.0.0.1, {CLIENT}"], CLIENT),
        ("127.0.0.1", [f"{CLIENT}, 10.1.1.1"], CLIENT),
        ("127.0.0.1", [f"192.0.2.1,{CLIENT} ,fd00::1,\t10.1.1.1"], CLIENT),
        ("127.0.0.1", ["192.0.2.1", CLIENT, "10.1.1.1"], CLIENT),
        ("127.0.0.1", [f"garbage, {CLIENT}"], CLIENT),
        ("127.0.0.1", [f"{CLIENT}:1234"], CLIENT),
        ("127.0.0.1", [f"::ffff:{CLIENT}"], CLIENT),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::/64"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::/64"),
        ("127.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::/64"),
        ("127.0.0.1", ["2001:db8::1%eth0"], "2001:db8::/64"),
        ("127.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        (CLIENT, ["192.0.2.1"], CLIENT),
        ("127.0.0.2", [CLIENT], "127.0.0.2"),
    ],
)
def test_the_header_is_read_from_the_right_as_long_as_proxies_wrote_it(peer, headers, key):
    assert find(sources(PROXIES, trusted=[]), peer, *headers) == Source(key, trusted=False)


@pytest.mark.parametrize(
    "garbage",
    ["", " ", "unknown", "_hidden", "203.0.113", "203.0.113.256", "1.2.3.4:5:6", "é", "\x00", "127.1",
     "0x7f.0.0.1", "127.0.0.1/8", "localhost", "unix"],
)  # fmt: skip
def test_garbage_is_one_source_that_is_never_trusted(garbage):
    found = find(
        sources(["127.0.0.1"], trusted=["0.0.0.0/0", "::/0", "unix"]), "127.0.0.1", f"{CLIENT}, {garbage}"
    )

    assert found == Source("unknown", trusted=False)


def test_a_trusted_client_behind_a_proxy_is_trusted_and_another_is_not():
    found = sources(["127.0.0.1"], trusted=["192.0.2.0/24"])

    assert find(found, "127.0.0.1", "192.0.2.7") == Source("192.0.2.7", trusted=True)
    assert find(found, "127.0.0.1", CLIENT) == Source(CLIENT, trusted=False)
    assert find(found, "127.0.0.1", f"192.0.2.7, {CLIENT}") == Source(CLIENT, trusted=False)


def test_a_client_that_comes_through_a_proxy_is_not_trusted_for_the_proxys_sake():
    found = sources(["127.0.0.1"], trusted=LOOPBACK)

    assert find(found, "127.0.0.1", CLIENT) == Source(CLIENT, trusted=False)
    assert find(found, "127.0.0.1") == Source("127.0.0.1", trusted=True)


def test_a_proxy_on_a_unix_socket():
    found = sources(["unix"], trusted=["unix", *LOOPBACK])

    assert find(found, None, CLIENT) == Source(CLIENT, trusted=False)
    assert find(found, None, f"127.0.0.1, {CLIENT}") == Source(CLIENT, trusted=False)
    assert find(found, None) == Source("unix", trusted=True)
    assert find(found, None, "unix") == Source("unknown", trusted=False)


# --- whatever is sent ----------------------------------------------------------------------------------

addresses = st.ip_addresses().map(str)
strangers = st.ip_addresses(v=4, network="203.0.113.0/24").map(str)
hops = st.one_of(
    addresses, st.sampled_from([*PROXIES[:1], "10.1.1.1", "", "x", "127.0.0.1"]), st.text(max_size=20)
)
spoofed = st.lists(hops, max_size=6).map(", ".join)


@given(strangers, st.lists(spoofed, max_size=3))
def test_a_stranger_changes_nothing_whatever_they_send(peer, headers):
    found = sources(PROXIES, trusted=[*LOOPBACK, "10.0.0.0/8", "unix"])

    assert find(found, peer, *headers) == Source(peer, trusted=False)


@given(
    strangers, st.lists(spoofed, max_size=3), st.lists(st.sampled_from(["10.1.1.1", "fd00::1"]), max_size=3)
)
def test_behind_proxies_what_stands_further_left_changes_nothing(client, headers, between):
    found = sources(PROXIES, trusted=[*LOOPBACK, "10.0.0.0/8", "unix"])

    assert find(found, "127.0.0.1", *headers, client, *between) == Source(client, trusted=False)


@given(addresses, st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_is_sent_there_is_a_source(peer, headers):
    found = sources(PROXIES).find(peer, headers)

    if found.key != "unknown":
        ipaddress.ip_network(found.key)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_an_ipv6_network_are_one_source(address, host):
    neighbour = ipaddress.IPv6Address(int(address) >> 64 << 64 | host)
    if address.ipv4_mapped is None and neighbour.ipv4_mapped is None:
        assert find(sources(), str(address)).key == find(sources(), str(neighbour)).key


def test_an_endless_header_is_read_from_its_end():
    header = ",".join(["127.0.0.1"] * 100_000)

    assert find(sources(["127.0.0.1"], trusted=[]), "127.0.0.1", header, CLIENT) == Source(
        CLIENT, trusted=False
    )
