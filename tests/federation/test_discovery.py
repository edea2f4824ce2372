import itertools
from collections import Counter
from random import Random

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError, DNSQueryTimeoutError, DNSServerError
from twisted.names.server import DNSServerFactory

from sydentish.domain.ids import parse_server_name
from sydentish.federation.discovery import Discovery, NoRoute, Route, Target, ordered

FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."


class Delegated:
    def __init__(self, **names):
        self.names = names
        self.asked = []

    async def delegated(self, host):
        self.asked.append(host)
        name = self.names.get(host.partition(".")[0])
        return None if name is None else parse_server_name(name)


@pytest.fixture
def make(clock, srv):
    def make(**delegations):
        well_known = Delegated(**delegations)
        return Discovery(clock=clock, resolver=srv, well_known=well_known, random=Random(1), dns_limit=3)

    return make


def record(target, port=443, priority=10, weight=0):
    return dns.Record_SRV(priority, weight, port, target.encode())


def route(tls_name, host_header, *targets):
    return Route(tuple(Target(*target) for target in targets), tls_name, host_header)


# Server-Server API, "Resolving server names": each step, with the Host header and the certificate's name.
@pytest.mark.parametrize(
    ("name", "delegation", "records", "expected"),
    [
        pytest.param("1.2.3.4", None, {}, route("1.2.3.4", "1.2.3.4", ("1.2.3.4", 8448)), id="1 IPv4"),
        pytest.param("1.2.3.4:5", None, {}, route("1.2.3.4", "1.2.3.4:5", ("1.2.3.4", 5)), id="1 IPv4 with port"),
        pytest.param("[2606::1]", None, {}, route("2606::1", "[2606::1]", ("2606::1", 8448)), id="1 IPv6"),
        pytest.param("[2606::1]:5", None, {}, route("2606::1", "[2606::1]:5", ("2606::1", 5)), id="1 IPv6 with port"),
        pytest.param("a.org:80", "b.org", {FED + "a.org": [record("t")]}, route("a.org", "a.org:80", ("a.org", 80)), id="2"),
        pytest.param("A.Org", None, {}, route("a.org", "a.org", ("a.org", 8448)), id="6 in lower case"),
        pytest.param("a.org", "5.6.7.8", {}, route("5.6.7.8", "5.6.7.8", ("5.6.7.8", 8448)), id="3.1"),
        pytest.param("a.org", "5.6.7.8:9", {}, route("5.6.7.8", "5.6.7.8:9", ("5.6.7.8", 9)), id="3.1 with port"),
        pytest.param("a.org", "[2606::1]:9", {}, route("2606::1", "[2606::1]:9", ("2606::1", 9)), id="3.1 IPv6"),
        pytest.param("a.org", "b.org:9", {FED + "b.org": [record("t")]}, route("b.org", "b.org:9", ("b.org", 9)), id="3.2"),
        pytest.param("a.org", "b.org", {FED + "b.org": [record("t")], OLD + "b.org": [record("u")], FED + "a.org": [record("v")]}, route("b.org", "b.org", ("t", 443)), id="3.3"),
        pytest.param("a.org", "b.org", {OLD + "b.org": [record("u", 7)], FED + "a.org": [record("v")]}, route("b.org", "b.org", ("u", 7)), id="3.4"),
        pytest.param("a.org", "b.org", {FED + "a.org": [record("v")]}, route("b.org", "b.org", ("b.org", 8448)), id="3.5"),
        pytest.param("a.org", None, {FED + "a.org": [record("t")], OLD + "a.org": [record("u")]}, route("a.org", "a.org", ("t", 443)), id="4"),
        pytest.param("a.org", None, {OLD + "a.org": [record("u", 7)]}, route("a.org", "a.org", ("u", 7)), id="5"),
        pytest.param("a.org", None, {FED + "a.org": [], OLD + "a.org": []}, route("a.org", "a.org", ("a.org", 8448)), id="6 no records"),
        pytest.param("a.org", None, {FED + "a.org": [dns.Record_CNAME("x.org"), record("t")]}, route("a.org", "a.org", ("t", 443)), id="4 by CNAME"),
        pytest.param("a.org", None, {FED + "a.org": DNSServerError(), OLD + "a.org": [record("u")]}, route("a.org", "a.org", ("u", 443)), id="5 after a DNS failure"),
        pytest.param("a.org", None, {FED + "a.org": DNSQueryTimeoutError(1), OLD + "a.org": ValueError()}, route("a.org", "a.org", ("a.org", 8448)), id="6 without DNS"),
        pytest.param("a.org", None, {FED + "a.org": [record("1.9.9.9")]}, route("a.org", "a.org", ("1.9.9.9", 443)), id="4 with an address"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_each_step_of_the_specification(make, srv, *, name, delegation, records, expected):
    srv.records = records
    discovery = make(a=delegation) if delegation else make()
    assert await discovery.route(name) == expected


@pytest_twisted.ensureDeferred
async def test_names_that_say_it_all_ask_nobody(clock, srv):
    well_known = Delegated()
    discovery = Discovery(clock=clock, resolver=srv, well_known=well_known, random=Random(1), dns_limit=3)
    for name in ("1.2.3.4", "a.org:443", "[::1]"):
        await discovery.route(name)
    assert (well_known.asked, srv.asked) == ([], [])


@pytest.mark.parametrize("name", ["", "a b", "a.org:0", "a.org:99999", "user@a.org", "a/b", "[::1", "é.org"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_server_name_is_an_error(make, name):
    with pytest.raises(NoRoute, match="name"):
        await make().route(name)


@pytest.mark.parametrize("root", [".", ""])
@pytest_twisted.ensureDeferred
async def test_a_service_that_is_decidedly_not_available(make, srv, root):
    srv.records = {FED + "a.org": [record(root)], OLD + "a.org": [record("u")]}
    with pytest.raises(NoRoute, match="SRV record"):
        await make().route("a.org")


@pytest_twisted.ensureDeferred
async def test_silent_dns_is_given_up(make, srv, clock):
    silent = srv.records[FED + "a.org"] = Deferred()
    result = Deferred.fromCoroutine(make().route("a.org"))
    clock.advance(2.9)
    assert not result.called
    clock.advance(0.2)
    assert (await result).targets == (Target("a.org", 8448),)
    assert silent.called
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_giving_up_is_not_taken_for_an_answer_of_dns(make, srv):
    srv.records[FED + "a.org"] = Deferred(lambda d: d.errback(DNSServerError()))
    result = Deferred.fromCoroutine(make().route("a.org"))
    result.cancel()
    with pytest.raises(CancelledError):
        await result
    assert srv.asked == [FED + "a.org"]


def test_priorities_come_first():
    records = [
        record("c", priority=30, weight=99),
        record("a", priority=10),
        record("b", priority=20, weight=99),
    ]
    assert [target.host for target in ordered(records, Random(1))] == ["a", "b", "c"]


def test_weights_are_shares():
    records = [record("heavy", weight=90), record("light", weight=10), record("never", weight=0)]
    random = Random(1)
    firsts = Counter(ordered(records, random)[0].host for _ in range(2000))
    assert 1650 < firsts["heavy"] < 1900
    assert 100 < firsts["light"] < 300
    # RFC 2782: a weight of 0 is drawn, but seldom.
    assert firsts["never"] < 60


RECORDS = st.lists(
    st.builds(
        record,
        st.sampled_from(["a", "b", "c", "."]),
        st.integers(0, 65535),
        st.integers(0, 3),
        st.integers(0, 65535),
    ),
    max_size=8,
)


@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_holds_every_usable_target_once_and_priorities_rise(records, random):
    usable = [r for r in records if r.target.name != b"." and r.port]
    targets = ordered(records, random)
    assert sorted((t.host, t.port) for t in targets) == sorted(
        (r.target.name.decode(), r.port) for r in usable
    )
    priorities = [
        {r.priority for r in usable if (r.target.name.decode(), r.port) == (t.host, t.port)} for t in targets
    ]
    assert all(min(earlier) <= max(later) for earlier, later in itertools.pairwise(priorities))


def test_the_number_of_targets_is_bounded():
    assert len(ordered([record(f"t{i}") for i in range(200)], Random(1))) == 8


class Zone(ResolverBase):
    """The records of a name server."""

    def _lookup(self, name, cls, type, timeout):  # noqa: A002 - as its base class
        text = name.decode()
        records = {
            FED + "a.org": [record("t.org", 7)],
            FED + "away.org": [record("")],
            FED + "cname.org": [dns.Record_CNAME(FED + "a.org"), record("t.org", 7)],
        }
        if text not in records:
            return fail(DNSNameError())
        return succeed(([dns.RRHeader(name, r.TYPE, payload=r) for r in records[text]], [], []))


@pytest_twisted.async_yield_fixture
async def over_udp(clock):
    """A discovery that asks a name server over a real socket."""
    protocol = dns.DNSDatagramProtocol(DNSServerFactory(clients=[Zone()]))
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    resolver = Resolver(servers=[("127.0.0.1", port.getHost().port)], reactor=reactor)
    yield Discovery(clock=clock, resolver=resolver, well_known=Delegated(), random=Random(1), dns_limit=3)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_with_a_real_name_server(over_udp):
    assert (await over_udp.route("a.org")).targets == (Target("t.org", 7),)
    assert (await over_udp.route("cname.org")).targets == (Target("t.org", 7),)
    assert (await over_udp.route("absent.org")).targets == (Target("absent.org", 8448),)
    assert (await over_udp.route("x" * 64 + ".org")).targets == (Target("x" * 64 + ".org", 8448),)
    with pytest.raises(NoRoute, match="SRV record"):
        await over_udp.route("away.org")
