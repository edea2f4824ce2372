import pytest
import pytest_twisted
from standins.behaviours import EndlessBody, Silence, answer, close, error, raw, redirect
from standins.homeserver import USERINFO
from twisted.internet.defer import Deferred

from sydentish.domain.errors import HomeserverError, HomeserverTimeout, OpenIdRefused
from sydentish.federation.openid import OpenId

TOKEN = "canary-token/+ é%&"


@pytest.fixture
def openid(make_client):
    return OpenId(make_client())


@pytest_twisted.ensureDeferred
async def test_the_homeserver_names_its_user(openid, homeserver):
    user_id = homeserver.log_in(TOKEN, "alice")
    assert await openid.user_id_of(homeserver.server_name, TOKEN) == user_id
    (asked,) = homeserver.requests
    assert asked.method == "GET"
    assert asked.path.startswith(f"{USERINFO}?access_token=")
    assert asked.headers["host"] == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_server_names_are_compared_in_their_canonical_form(openid, homeserver):
    user_id = homeserver.log_in(TOKEN, "alice")
    assert await openid.user_id_of(homeserver.server_name.upper(), TOKEN) == user_id


@pytest.mark.parametrize(
    "behaviour",
    [
        None,
        answer(401, b"go away"),
        answer(403, {"sub": "@alice:hs.example.org"}),
        error(400, "M_UNKNOWN_TOKEN"),
        error(404, "M_UNKNOWN_TOKEN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_token_that_is_refused(openid, homeserver, behaviour):
    if behaviour:
        homeserver.behaviours[USERINFO] = behaviour
    with pytest.raises(OpenIdRefused) as raised:
        await openid.user_id_of(homeserver.server_name, TOKEN)
    assert "canary" not in repr(raised.value)


@pytest.mark.parametrize(
    "behaviour",
    [
        error(404, "M_UNRECOGNIZED"),
        error(400, "M_UNKNOWN"),
        error(429, "M_LIMIT_EXCEEDED"),
        error(500, "M_UNKNOWN_TOKEN"),
        answer(503, b"<html>"),
        answer(204, b""),
        redirect("https://hs.example.org/elsewhere"),
        answer(200, b""),
        answer(200, b"<html>"),
        answer(200, b"[]"),
        answer(200, {}),
        answer(200, {"sub": None}),
        answer(200, {"sub": 1}),
        answer(200, {"sub": ["@alice:hs.example.org"]}),
        answer(200, {"sub": "alice"}),
        answer(200, {"sub": "@alice"}),
        answer(200, {"sub": "@al ice:hs.example.org"}),
        answer(200, b'{"sub": "@\\ud800:hs.example.org"}'),
        close,
        raw(b"nothing of use"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"),
        EndlessBody(),
    ],
)
@pytest_twisted.ensureDeferred
async def test_any_other_answer_is_the_homeservers_trouble(openid, homeserver, behaviour):
    homeserver.behaviours[USERINFO] = behaviour
    with pytest.raises(HomeserverError, match=r"^The homeserver ") as raised:
        await openid.user_id_of(homeserver.server_name, TOKEN)
    assert "canary" not in repr(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "{host}",
        "{host}:1",
        "evil-{host}:{port}",
        "evil.{host}:{port}",
        "example.org:{port}",
        "{host}:{port}0",
        "{host}.:{port}",
        "x:{host}:{port}",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_user_of_another_homeserver_is_not_believed(openid, homeserver, name):
    name = name.format(host=homeserver.host, port=homeserver.port)
    homeserver.behaviours[USERINFO] = answer(200, {"sub": f"@alice:{name}"})
    with pytest.raises(HomeserverError, match=r"^The homeserver named a user"):
        await openid.user_id_of(homeserver.server_name, TOKEN)


@pytest_twisted.ensureDeferred
async def test_silence(openid, homeserver, clock):
    silence = homeserver.behaviours[USERINFO] = Silence()
    asking = Deferred.fromCoroutine(openid.user_id_of(homeserver.server_name, TOKEN))
    await silence.asked
    clock.advance(10)
    with pytest.raises(HomeserverTimeout):
        await asking
    await silence.gone
