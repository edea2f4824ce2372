import pytest
import pytest_twisted
from nameserver import Reply, a, a_moment, aaaa, by_tcp, failing, open_sockets, silent
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.task import Clock
from twisted.names import dns
from zope.interface.verify import verifyObject

from sydentish.federation.addresses import AddressPolicy, FilteredResolver
from sydentish.federation.agent import Https, Request
from sydentish.federation.discovery import Route, Target
from sydentish.federation.names import HostNames
from sydentish.federation.nameservers import NameServers
from sydentish.federation.tls import tls_options

NAME = "hs.example.org"
LIMIT = 5.0
GRACE = 2.0
HOSTS = """\
127.0.0.1 localhost
192.0.2.7 listed.example.org Alias # 192.0.2.8 no.example.org
2001:db8::7 listed.example.org
192.0.2.9 single only4.example.org
no-address broken.example.org
"""


class Receiver:
    """Collects what a resolution yields."""

    def __init__(self):
        self.seen = []
        self.resolution = None
        self.complete = Deferred()

    def resolutionBegan(self, resolution):
        self.resolution = resolution

    def addressResolved(self, address):
        self.seen.append(address)

    def resolutionComplete(self):
        self.complete.callback(None)


@pytest.fixture
def server(start_name_server):
    return start_name_server()


@pytest.fixture
def hosts_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text(HOSTS)
    return path


@pytest.fixture
def make(server, hosts_file):
    def make(clock=reactor, hosts_file=hosts_file):
        # Queries are sent over real sockets, and again, also where the limits are by the clock of a test.
        asking = NameServers(reactor=reactor, servers=[server.address])
        return HostNames(clock=clock, resolver=asking, hosts_file=hosts_file, limit=LIMIT)

    return make


def begin(names, name=NAME, **options):
    receiver = Receiver()
    names.resolveHostName(receiver, name, **options)
    return receiver


async def resolved(names, name=NAME, **options):
    receiver = begin(names, name, **options)
    await receiver.complete
    return [address.host for address in receiver.seen]


def test_it_is_what_it_says(make):
    names = make()
    assert verifyObject(IHostnameResolver, names)
    assert verifyObject(IHostResolution, begin(names, "::1").resolution)


@pytest.mark.parametrize(
    ("literal", "kind"),
    [
        ("192.0.2.1", IPv4Address),
        ("::1", IPv6Address),
        ("2001:db8::1", IPv6Address),
        ("fe80::1%lo", IPv6Address),
    ],
)
def test_a_literal_is_itself_at_once(make, server, literal, kind):
    receiver = begin(make(), literal, portNumber=8448)
    assert receiver.complete.called
    assert receiver.seen == [kind("TCP", literal, 8448)]
    assert receiver.resolution.name == literal
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("listed.example.org", ["192.0.2.7", "2001:db8::7"]),
        ("LISTED.example.org.", ["192.0.2.7", "2001:db8::7"]),
        ("alias", ["192.0.2.7"]),
        ("single", ["192.0.2.9"]),
        ("only4.example.org", ["192.0.2.9"]),
        ("localhost", ["127.0.0.1"]),
        # RFC 6761: in no file, and never asked for.
        ("inner.localhost", ["127.0.0.1", "::1"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_known_here_is_not_asked_for(make, server, name, addresses):
    assert await resolved(make(), name) == addresses
    assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_localhost_without_a_hosts_file(make, server, tmp_path):
    names = make(hosts_file=tmp_path / "absent")
    assert await resolved(names, "localhost") == ["127.0.0.1", "::1"]
    assert await resolved(names, "localhost.") == ["127.0.0.1", "::1"]
    assert await resolved(names, "localhost", addressTypes=[IPv6Address]) == ["::1"]
    assert server.asked == []


@pytest.mark.parametrize(
    "name", [NAME, NAME + ".", NAME.upper(), "single-label", "no.example.org", "broken.example.org"]
)
@pytest_twisted.ensureDeferred
async def test_both_kinds_of_addresses_take_turns(make, server, name):
    asked = name.lower().removesuffix(".")
    server.zone = {
        (asked, dns.A): a("192.0.2.1", "192.0.2.2", "192.0.2.3"),
        (asked, dns.AAAA): aaaa("2001:db8::1", "2001:db8::2"),
    }
    assert await resolved(make(), name) == [
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.2",
        "2001:db8::2",
        "192.0.2.3",
    ]
    assert sorted(server.asked) == [(asked, dns.A), (asked, dns.AAAA)]


@pytest.mark.parametrize(
    ("kind", "type_", "address"), [(IPv4Address, dns.A, "192.0.2.1"), (IPv6Address, dns.AAAA, "2001:db8::1")]
)
@pytest_twisted.ensureDeferred
async def test_only_the_kinds_that_are_wanted(make, server, kind, type_, address):
    server.zone = {(NAME, dns.A): a("192.0.2.1"), (NAME, dns.AAAA): aaaa("2001:db8::1")}
    receiver = begin(make(), addressTypes=[kind], portNumber=53, transportSemantics="UDP")
    await receiver.complete
    assert receiver.seen == [kind("UDP", address, 53)]
    assert server.asked == [(NAME, type_)]
    assert await resolved(make(), addressTypes=[]) == []


@pytest.mark.parametrize(
    "other",
    [Reply(), failing(dns.ENAME), failing(dns.ESERVER), failing(dns.EREFUSED), failing(dns.ENOTIMP)],
    ids=["none", "NXDOMAIN", "SERVFAIL", "REFUSED", "NOTIMP"],
)
@pytest_twisted.ensureDeferred
async def test_the_trouble_of_one_kind_is_not_the_others(make, server, other):
    server.zone = {(NAME, dns.A): a("192.0.2.1"), (NAME, dns.AAAA): other}
    assert await resolved(make()) == ["192.0.2.1"]
    server.zone = {(NAME, dns.A): other, (NAME, dns.AAAA): aaaa("2001:db8::1")}
    assert await resolved(make()) == ["2001:db8::1"]
    server.zone = {(NAME, dns.A): other, (NAME, dns.AAAA): other}
    assert await resolved(make()) == []


@pytest_twisted.ensureDeferred
async def test_aliases_are_followed_as_the_server_gives_them(make, server):
    chain = [
        (None, dns.Record_CNAME("one.example.org")),
        ("one.example.org", dns.Record_CNAME("two.example.org")),
    ]
    last = "two.example.org"
    server.zone = {
        (NAME, dns.A): Reply([*chain, (last, dns.Record_A("192.0.2.1"))]),
        (NAME, dns.AAAA): Reply([*chain, (last, dns.Record_AAAA("2001:db8::1"))]),
    }
    assert await resolved(make()) == ["192.0.2.1", "2001:db8::1"]
    server.zone[NAME, dns.AAAA] = Reply(chain)
    assert await resolved(make()) == ["192.0.2.1"]


@pytest_twisted.ensureDeferred
async def test_the_number_of_addresses_is_bounded(make, server):
    server.zone = {
        (NAME, dns.A): by_tcp(a(*(f"192.0.2.{i}" for i in range(100)))),
        (NAME, dns.AAAA): by_tcp(aaaa(*(f"2001:db8::{i:x}" for i in range(1, 100)))),
    }
    found = await resolved(make())
    assert len(found) == 16
    assert found[:2] == ["192.0.2.0", "2001:db8::1"]


@pytest_twisted.ensureDeferred
async def test_an_address_is_yielded_once_and_of_its_kind_only(make, server):
    mixed = Reply(
        [(None, dns.Record_A("192.0.2.1")), (None, dns.Record_A("192.0.2.1")), (None, dns.Record_AAAA("::2"))]
    )
    server.zone = {(NAME, dns.A): mixed, (NAME, dns.AAAA): mixed}
    assert await resolved(make()) == ["192.0.2.1", "::2"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..org",
        ".example.org",
        "x" * 64 + ".org",
        "x." * 127 + "org",
        "é.example.org",
        "\udcff.org",
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_name_has_no_address(make, server, name):
    server.otherwise = silent()
    server.zone = {("xn--9ca.example.org", kind): Reply() for kind in (dns.A, dns.AAAA)}
    assert await resolved(make(), name) == []


@pytest.mark.parametrize("lost", [dns.A, dns.AAAA])
@pytest_twisted.ensureDeferred
async def test_a_kind_that_is_never_answered_costs_the_other_little(make, server, clock, lost):
    server.zone = {(NAME, dns.A): a("192.0.2.1"), (NAME, dns.AAAA): aaaa("2001:db8::1")}
    server.zone[NAME, lost] = silent()
    receiver = begin(make(clock))
    await answered(server, receiver, clock)
    assert not receiver.complete.called
    clock.advance(GRACE - 0.1)
    assert not receiver.complete.called
    clock.advance(0.2)
    assert receiver.complete.called
    assert [address.host for address in receiver.seen] == ["2001:db8::1" if lost == dns.A else "192.0.2.1"]
    assert clock.getDelayedCalls() == []


async def answered(server, receiver, clock):
    """Waits until one kind of address is known: from then on, little time is left."""
    await server.until_asked(2)
    (end,) = clock.getDelayedCalls()
    while end.getTime() != GRACE:
        await a_moment()


@pytest_twisted.ensureDeferred
async def test_what_comes_late_does_not_make_it_longer(make, server, clock):
    server.zone = {(NAME, dns.A): [silent(), a("192.0.2.1")], (NAME, dns.AAAA): silent()}
    receiver = begin(make(clock))
    await server.until_asked(2)
    (end,) = clock.getDelayedCalls()
    clock.advance(LIMIT - 1)
    # The second try, by the reactor's own clock.
    await server.until_asked(4)
    await a_moment()
    assert end.getTime() == LIMIT
    clock.advance(1)
    assert receiver.complete.called
    assert [address.host for address in receiver.seen] == ["192.0.2.1"]


@pytest_twisted.ensureDeferred
async def test_a_silent_name_is_given_up(make, server, clock):
    server.otherwise = silent()
    receiver = begin(make(clock))
    await server.until_asked(2)
    clock.advance(LIMIT - 0.1)
    assert not receiver.complete.called
    clock.advance(0.1)
    assert receiver.complete.called
    assert receiver.seen == []
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_cancelling_frees_everything(make, server):
    server.otherwise = silent()
    before = open_sockets()
    receivers = [begin(make(), f"{i}.example.org") for i in range(20)]
    await server.until_asked(40)
    assert open_sockets() != before
    for receiver in receivers:
        receiver.resolution.cancel()
    await a_moment()
    assert open_sockets() == before
    assert reactor.getDelayedCalls() == []
    assert not any(receiver.complete.called or receiver.seen for receiver in receivers)
    receivers[0].resolution.cancel()


@pytest_twisted.ensureDeferred
async def test_cancelling_what_is_complete_changes_nothing(make, server):
    server.zone = {(NAME, dns.A): a("192.0.2.1")}
    receiver = begin(make())
    await receiver.complete
    receiver.resolution.cancel()
    assert [address.host for address in receiver.seen] == ["192.0.2.1"]


@pytest_twisted.ensureDeferred
async def test_any_number_of_silent_names_delays_no_other(make, server):
    server.otherwise = silent()
    server.zone = {(NAME, dns.A): a("192.0.2.1"), (NAME, dns.AAAA): Reply()}
    names = make()
    before = len(open_sockets())
    waiting = []
    for number in range(500):
        waiting.append(begin(names, f"silent-{number}.example.net"))
        # More at once than the socket of the server can hold would be lost.
        await server.until_asked(2 * number + 2)
    # Nothing of them has come to an end, by an answer or by time.
    assert await resolved(names) == ["192.0.2.1"]
    assert not any(receiver.complete.called for receiver in waiting)
    assert len(open_sockets()) < before + 20
    for receiver in waiting:
        receiver.resolution.cancel()


@pytest_twisted.ensureDeferred
async def test_who_gives_up_does_not_disturb_who_asks_the_same(make, server):
    server.zone = {(NAME, dns.A): [silent(), a("192.0.2.1")], (NAME, dns.AAAA): Reply()}
    names = make()
    first, second = begin(names), begin(names)
    await server.until_asked(2)
    first.resolution.cancel()
    await second.complete
    assert [address.host for address in second.seen] == ["192.0.2.1"]
    assert not first.complete.called
    assert sorted(server.asked) == [(NAME, dns.A), (NAME, dns.A), (NAME, dns.AAAA)]


def make_https(names, ca_file, clock):
    return Https(
        reactor=ClockedReactor(clock),
        resolver=names,
        policy=AddressPolicy(),
        tls=tls_options(ca_file, verify=True),
        connect_limit=LIMIT,
        user_agent="Sydentish/0",
    )


class ClockedReactor:
    """The reactor, with the time of a test."""

    def __init__(self, clock):
        self.connectTCP = reactor.connectTCP
        self.callLater = clock.callLater
        self.seconds = clock.seconds


@pytest.mark.parametrize("how", ["given up", "out of time"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_ends_takes_its_look_ups_with_it(make, server, ca_file, how):
    server.otherwise = silent()
    before, clock, failed = open_sockets(), Clock(), []
    # By a clock that stands still: the resolution's own limit is not what ends it.
    https = make_https(make(Clock()), ca_file, clock)
    asking = Deferred.fromCoroutine(https(Route((Target(NAME, 443),), NAME, NAME), Request("GET", "/"), 1000))
    asking.addErrback(failed.append)
    await server.until_asked(2)
    if how == "given up":
        asking.cancel()
    else:
        clock.advance(LIMIT)
    await a_moment()
    assert failed
    assert open_sockets() == before
    assert reactor.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_what_leads_inside_is_still_refused(make, server):
    server.zone = {(NAME, dns.A): a("10.0.0.1", "127.0.0.1"), (NAME, dns.AAAA): aaaa("::1")}
    filtered = FilteredResolver(make(), AddressPolicy())
    receiver = begin(filtered)
    await receiver.complete
    assert receiver.seen == []
    assert len(filtered.refused) == 3
    filtered.cancel()


@pytest_twisted.ensureDeferred
async def test_many_names_at_once(make, server):
    server.zone = {(f"{i}.example.org", dns.A): a(f"192.0.2.{i}") for i in range(50)}
    names = make()
    found = await gatherResults(
        [Deferred.fromCoroutine(resolved(names, f"{i}.example.org")) for i in range(50)]
    )
    assert found == [[f"192.0.2.{i}"] for i in range(50)]
