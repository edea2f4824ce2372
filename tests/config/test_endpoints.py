"""Listeners: what Twisted takes, and what only this machine can reach."""

import hypothesis.strategies as st
import pytest
import trustme
from hypothesis import given
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from sydentish.config import endpoints


def refused(parser, text):
    with pytest.raises(ValueError, match="must ") as caught:
        parser(text)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "tcp:8090",
        "tcp:0:interface=127.0.0.1",
        "tcp:port=8090:backlog=100",
        "tcp:8090:127.0.0.1:50",
        r"tcp6:8090:interface=\:\:1",
        "unix:/run/sydentish/http.sock:mode=660",
        "unix:/run/sydentish/http.sock:mode=0660:backlog=9:lockfile=0",
        "unix:/run/sydentish/http.sock:666",
    ],
)
def test_listeners_are_those_of_twisted(text):
    assert endpoints.listener(text) == text
    serverFromString(MemoryReactor(), text)


@pytest.mark.parametrize("text", [r"unix:/run/a\:b,c.sock", "unix:address=/run/a:backlog=9"])
def test_a_unix_socket_without_a_mode_is_for_its_owner_and_group(text):
    assert endpoints.listener(text) == f"{text}:mode=660"
    serverFromString(MemoryReactor(), endpoints.listener(text))


def test_a_tls_listener_needs_a_key_and_a_certificate_that_can_be_read(tmp_path):
    pair = tmp_path / "pair.pem"
    certificate = trustme.CA().issue_cert("id.example.org")
    pair.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    text = f"ssl:443:privateKey={pair}:certKey={pair}"
    assert endpoints.listener(text) == text
    assert endpoints.listener(f"ssl:443:privateKey={pair}") == f"ssl:443:privateKey={pair}"
    with pytest.raises(ValueError, match="must name readable files"):
        endpoints.listener(f"ssl:443:privateKey={tmp_path / 'none.pem'}:certKey={pair}")
    pair.write_text("-----BEGIN RUBBISH-----")
    with pytest.raises(ValueError, match="must name PEM files"):
        endpoints.listener(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with one of tcp"),
        ("8090", "must begin with one of tcp"),
        ("udp:53", "must begin with one of tcp"),
        ("tcp:8090\\", "must begin with one of tcp"),
        ("tcp", "must have arguments out of port, interface, backlog"),
        ("tcp:8090:interace=127.0.0.1", "must have arguments out of port, interface, backlog"),
        ("tcp6:8090:interface=::1", "must have arguments out of"),
        ("tcp::", "must have arguments out of"),
        ("tcp:1:port=2", "must have arguments out of"),
        ("tcp:1:a:2:3", "must have arguments out of"),
        ("tcp:interface=127.0.0.1", "must have a port from 0 to 65535"),
        ("tcp:65536", "must have a port from 0 to 65535"),
        ("tcp:http", "must have a port from 0 to 65535"),
        ("ssl:privateKey=/k.pem", "must have a port from 0 to 65535"),
        ("unix:mode=660", "must have the path of a socket"),
        ("unix:/run/a:mode=rw", "must have an octal mode"),
        ("unix:/run/a:mode=668", "must have an octal mode"),
        ("unix:/run/a:mode=+66", "must have an octal mode"),
        ("unix:/run/a:lockfile=yes", "must have 0 or 1 as its lockfile"),
        ("unix:/run/a:backlog=x", "must have a whole number as its backlog"),
        ("tcp:8090:backlog=-1", "must have a whole number as its backlog"),
    ],
)
def test_no_listeners(text, message):
    assert message in refused(endpoints.listener, text)


@given(
    st.text(st.characters(codec="utf-8"))
    | st.from_regex(r"(ssl|tcp6?|unix):[a-z:/@?#\\=\[\].0-9]*")
    | st.from_regex(r"tcp6?:(port=)?[0-9]{1,5}:(interface=)?[\\:0-9.]{0,12}(:backlog=9)?", fullmatch=True)
)
def test_any_text_is_parsed_or_refused(text):
    for parser in (endpoints.listener, endpoints.internal_listener, endpoints.plain_listener):
        try:
            parser(text)
        except ValueError as error:
            assert "must " in str(error)  # noqa: PT017 - either outcome is right


LOOPBACK = [
    "tcp:8091:interface=127.0.0.1",
    "tcp:8091:127.9.9.9:50",
    "tcp:port=0:interface=127.0.0.1:backlog=9",
    r"tcp6:8091:interface=\:\:1",
    r"tcp6:8091:9:\:\:1",
]


@pytest.mark.parametrize("text", LOOPBACK)
def test_an_internal_listener_may_be_on_a_loopback_address(text):
    assert endpoints.internal_listener(text) == text
    assert not endpoints.is_unix(text)
    reactor = MemoryReactor()
    serverFromString(reactor, text).listen(object())
    (server,) = reactor.tcpServers
    assert server[3] in ("127.0.0.1", "127.9.9.9", "::1")


def test_an_internal_listener_may_be_a_unix_socket():
    listener = endpoints.internal_listener("unix:/run/internal.sock")
    assert listener == "unix:/run/internal.sock:mode=660"
    assert endpoints.is_unix(listener)
    assert endpoints.socket_mode(listener) == 0o660
    assert endpoints.socket_mode(endpoints.internal_listener("unix:/run/a:mode=0606")) == 0o606
    assert endpoints.socket_mode(endpoints.internal_listener("unix:/run/a:666")) == 0o666


def test_an_internal_listener_may_speak_tls(tmp_path):
    pair = tmp_path / "pair.pem"
    pair.write_bytes(trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    text = f"ssl:8091:interface=127.0.0.1:privateKey={pair}"
    assert endpoints.internal_listener(text) == text
    assert "loopback" in refused(endpoints.internal_listener, f"ssl:8091:privateKey={pair}")


@pytest.mark.parametrize(
    "text",
    [
        "tcp:8091",
        "tcp:8091:interface=0.0.0.0",
        "tcp:8091:interface=192.0.2.1",
        "tcp:8091:interface=localhost",
        "tcp:8091:interface=1270.0.1",
        r"tcp:8091:interface=\:\:1x",
        "tcp6:8091",
        r"tcp6:8091:interface=\:\:",
        r"tcp6:8091:interface=fe80\:\:1",
        "tcp6:8091:50",
    ],
)
def test_what_others_could_reach_is_no_internal_listener(text):
    assert endpoints.listener(text) == text
    message = refused(endpoints.internal_listener, text)
    assert message.startswith(
        "must be a unix socket or have a loopback interface as an address, 127.0.0.1 or ::1, such as "
    )


def test_what_is_no_listener_is_no_internal_one():
    assert refused(endpoints.internal_listener, "tcp").startswith("must have arguments out of ")


@pytest.mark.parametrize("text", ["tcp:4434", "tcp6:4434", "unix:/run/replication.sock:mode=600"])
def test_a_plain_listener_is_as_any_other(text):
    assert endpoints.plain_listener(text) == text
    assert refused(endpoints.plain_listener, text.split(":")[0]) == refused(
        endpoints.listener, text.split(":")[0]
    )


@pytest.mark.parametrize("text", ["ssl:4434", "ssl:4434:privateKey=/a.pem", "ssl"])
def test_a_plain_listener_has_no_tls_of_its_own(text):
    assert refused(endpoints.plain_listener, text) == (
        "must begin with one of tcp, tcp6, unix, systemd and a colon: TLS is always added, with certificate_file"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:8090", "tcp:port=8090:backlog=9"),
        ("tcp:8090", "tcp:8090:interface=127.0.0.1"),
        ("tcp:8090:interface=0.0.0.0", "tcp:8090:interface=127.0.0.1"),
        ("tcp:8090:interface=localhost", "tcp:8090:127.0.0.1"),
        (r"tcp6:8090:interface=\:\:1", r"tcp6:8090:interface=0\:0\:\:1"),
        ("tcp6:8090", r"tcp:8090:interface=\:\:1"),
        ("unix:/run/a.sock", "unix:address=/run/a.sock:mode=600"),
        (r"unix:/run/a\:b", r"unix:/run/a\:b:mode=666"),
    ],
)
def test_listeners_that_are_in_each_others_way(one, other):
    assert endpoints.collide(one, other)
    assert endpoints.collide(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:8090", "tcp:8091"),
        ("tcp:0", "tcp:0"),
        ("tcp:8090:interface=127.0.0.1", "tcp:8090:interface=127.0.0.2"),
        ("tcp:8090", "tcp6:8090"),
        ("unix:/run/a.sock", "unix:/run/b.sock"),
        ("unix:/run/8090", "tcp:8090"),
    ],
)
def test_listeners_that_are_not(one, other):
    assert not endpoints.collide(one, other)
    assert not endpoints.collide(other, one)


def test_the_path_of_a_unix_socket():
    assert str(endpoints.socket_path(r"unix:/run/a\:b:mode=660")) == "/run/a:b"
    assert str(endpoints.socket_path("unix:backlog=9:address=/run/a")) == "/run/a"


# --- sockets that systemd has made ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("systemd:name=public", ("public", None)),
        ("systemd:public", ("public", None)),
        ("systemd:name=sydentish.socket", ("sydentish.socket", None)),
        ("systemd:index=0", (None, 0)),
        ("systemd:index=12", (None, 12)),
    ],
)
def test_a_socket_of_systemd_is_found_by_its_name_or_its_number(text, meant):
    for parser in (endpoints.listener, endpoints.internal_listener, endpoints.plain_listener):
        assert parser(text) == text
    assert endpoints.inherited(text) == meant
    assert endpoints.is_local_and_plain(text)
    assert not endpoints.is_unix(text)


@pytest.mark.parametrize(
    "text",
    [
        "systemd",
        "systemd:",
        "systemd:name=",
        "systemd:name=a b",
        "systemd:name=a:index=0",
        "systemd:index=-1",
        "systemd:index=x",
    ],
)
def test_what_is_no_socket_of_systemd_is_refused(text):
    assert "must " in refused(endpoints.listener, text)


def test_a_socket_of_systemd_is_for_one_listener():
    assert endpoints.collide("systemd:name=a", "systemd:a")
    for other in ("systemd:name=b", "systemd:index=0", "tcp:8090", "unix:/a:mode=660"):
        assert not endpoints.collide("systemd:name=a", other)
        assert not endpoints.collide(other, "systemd:name=a")
    assert endpoints.inherited("tcp:8090") is None
