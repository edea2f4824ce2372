"""What is no HTTP request is answered all the same."""

import pytest
import pytest_twisted
from web.wire import PREFIX, request

REGISTER = PREFIX + "v2/account/register"


def _head(*lines):
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


GET = f"GET {PREFIX}v2 HTTP/1.1"
POST = f"POST {REGISTER} HTTP/1.1"
GARBAGE = {
    "words": b"hello there\r\n\r\n",
    "one word": b"GET\r\n\r\n",
    "no version": _head(f"GET {PREFIX}v2"),
    "version": _head(f"GET {PREFIX}v2 HTTP/2.0"),
    "method": _head(f"G{{T {PREFIX}v2 HTTP/1.1"),
    "blank in path": _head(f"GET {PREFIX} v2 HTTP/1.1"),
    "control in path": _head(f"GET {PREFIX}\x01 HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "header without colon": _head(GET, "Host"),
    "header name": _head(GET, "Ho st: a"),
    "blank before colon": _head(GET, "Host : a"),
    "NUL in header": _head(GET, "Host: a\0b"),
    "line feed in header": _head(GET, "Host: a\nb: c"),
    "length": _head(POST, "Content-Length: ten"),
    "negative length": _head(POST, "Content-Length: -1"),
    "signed length": _head(POST, "Content-Length: +1"),
    "endless length": _head(POST, "Content-Length: " + "9" * 5000),
    "endless length, not last": _head(POST, "Content-Length: " + "9" * 5000, "Host: a"),
    "two lengths": _head(POST, "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": _head(POST, "Content-Length: 1", "Transfer-Encoding: chunked"),
    "unknown encoding": _head(POST, "Transfer-Encoding: gzip, chunked"),
    "chunk size": _head(POST, "Transfer-Encoding: chunked") + b"xyz\r\n",
    "chunk end": _head(POST, "Transfer-Encoding: chunked") + b"1\r\nab\r\n",
    "endless chunk line": _head(POST, "Transfer-Encoding: chunked") + b"1" * 2000,
    "long line": f"GET {PREFIX}{'a' * 20_000} HTTP/1.1\r\n\r\n".encode(),
    "endless line": b"GET /" + b"a" * 20_000,
    "long header": _head(GET, "A: " + "b" * 20_000),
    "many headers": _head(GET, *(f"A{n}: b" for n in range(501))),
    "large headers": _head(GET, *(f"A{n}: {'b' * 1000}" for n in range(20))),
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
@pytest_twisted.ensureDeferred
async def test_garbage_is_answered_with_400_and_the_end(server, sent):
    wire = await server.connect()
    wire.send(sent)
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (400, "M_UNKNOWN")
    assert answer.headers["connection"] == "close"
    assert await wire.ended() == b""
    assert [line["status"] for line in server.house.requests.lines] == [400]


@pytest_twisted.ensureDeferred
async def test_garbage_in_a_refused_body_is_not_answered_again(server):
    wire = await server.connect()
    wire.send(request("POST", PREFIX + "v2/lookup", headers=["Transfer-Encoding: chunked"]), b"xyz\r\n")

    assert (await wire.answer()).status == 401
    assert await wire.ended() == b""
    assert [line["status"] for line in server.house.requests.lines] == [401]


@pytest_twisted.ensureDeferred
async def test_the_limit_of_headers_is_an_option(serve):
    server = await serve(connection={"header_bytes": 65536})
    answer = await server.ask("GET", "v2", headers=["A: " + "b" * 40_000])

    assert answer.status == 200
