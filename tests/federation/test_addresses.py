import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address

from sydentish.federation.addresses import AddressPolicy, FilteredResolver

IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)


def networks(*texts):
    return tuple(ipaddress.ip_network(text) for text in texts)


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:10.1.2.3",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, client 127.0.0.1
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_what_is_not_public_is_refused(ip):
    assert not AddressPolicy().permits(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "1.2.3.4",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1",
        "::ffff:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "2002:102:304::1",
    ],
)
def test_what_is_public_is_permitted(ip):
    assert AddressPolicy().permits(ip)


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f.0.0.1", "1.2.3.4:80", "[::1]", "1.2.3.4\n", "é"]
)
def test_what_is_no_address_is_refused(text):
    assert not AddressPolicy(allowed=networks("0.0.0.0/0", "::/0")).permits(text)


def test_allowed_wins_over_blocked():
    policy = AddressPolicy(allowed=networks("127.0.0.0/8", "::1/128"))
    assert policy.permits("127.0.0.1")
    assert policy.permits("::1")
    assert policy.permits("::ffff:127.0.0.1")
    assert not policy.permits("10.0.0.1")


def test_allowing_a_translation_prefix_does_not_allow_what_is_behind_it():
    policy = AddressPolicy(allowed=networks("64:ff9b::/96"))
    assert policy.permits("64:ff9b::1.2.3.4")
    assert not policy.permits("64:ff9b::10.0.0.1")


@given(IPV4)
def test_a_mapped_address_is_never_permitted_where_the_plain_one_is_not(address):
    policy = AddressPolicy()
    for prefix in ("::ffff:", "64:ff9b::"):
        assert policy.permits(f"{prefix}{address}") == policy.permits(str(address))


@given(st.one_of(IPV4, IPV6))
def test_nothing_is_permitted_when_everything_is_blocked(address):
    assert not AddressPolicy(blocked=networks("0.0.0.0/0", "::/0")).permits(str(address))


@given(st.one_of(IPV4, IPV6))
def test_everything_is_permitted_when_everything_is_allowed(address):
    assert AddressPolicy(allowed=networks("0.0.0.0/0", "::/0")).permits(str(address))


@given(st.one_of(IPV4, IPV6))
def test_what_python_calls_loopback_private_link_local_or_multicast_is_refused(address):
    special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    if special or any(
        address in ipaddress.ip_network(n) for n in ("10.0.0.0/8", "192.168.0.0/16", "fc00::/7")
    ):
        assert not AddressPolicy().permits(str(address))


@given(st.text())
def test_any_text_is_judged_without_an_error(text):
    assert AddressPolicy().permits(text) in (True, False)


class Receiver:
    def __init__(self):
        self.seen = []

    def resolutionBegan(self, resolution):
        self.seen.append("began")

    def addressResolved(self, address):
        self.seen.append(address.host)

    def resolutionComplete(self):
        self.seen.append("complete")


def test_the_resolver_passes_on_only_what_is_permitted(internet):
    internet.names["mixed.example.org"] = ["127.0.0.1", "1.2.3.4", "::ffff:10.0.0.1", "2606:4700::1"]
    resolver, receiver = FilteredResolver(internet, AddressPolicy()), Receiver()
    resolver.resolveHostName(receiver, "mixed.example.org", 443, [IPv4Address, IPv6Address])
    assert receiver.seen == ["began", "1.2.3.4", "2606:4700::1", "complete"]
    assert len(resolver.refused) == 2
