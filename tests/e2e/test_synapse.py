"""The main job with a real homeserver: accounts, associations, and what becomes of them."""

import hashlib

import pytest
import pytest_twisted
from e2e.real_town import identity_server
from standins.certificates import Authority
from unpaddedbase64 import encode_base64

pytestmark = pytest.mark.synapse


@pytest_twisted.ensureDeferred
async def test_a_user_registers_with_a_token_of_the_homeserver(real_town):
    alice = await real_town.settle("alice")
    real_town.daemon.token = alice.identity["id_access_token"]
    assert await real_town.daemon.ask("GET", "/v2/account") == (200, {"user_id": alice.mxid})


@pytest_twisted.ensureDeferred
async def test_a_token_that_the_homeserver_does_not_know_is_refused(real_town):
    alma = await real_town.synapse.sign_up("alma")
    token = {**await alma.openid_token(), "access_token": "unknown"}
    status, error = await real_town.daemon.ask("POST", "/v2/account/register", token)
    assert (status, error["errcode"]) == (401, "M_UNAUTHORIZED")


@pytest_twisted.ensureDeferred
async def test_an_address_that_is_bound_through_the_homeserver_is_found(real_town):
    ben = await real_town.settle("ben")
    await real_town.bind(ben, "Ben@Example.ORG")
    _, details = await real_town.daemon.ask("GET", "/v2/hash_details")
    pepper = details["lookup_pepper"]
    digest = hashlib.sha256(f"ben@example.org email {pepper}".encode()).digest()
    asked = encode_base64(digest, urlsafe=True)
    body = {"algorithm": "sha256", "pepper": pepper, "addresses": [asked]}
    assert await real_town.daemon.ask("POST", "/v2/lookup", body) == (200, {"mappings": {asked: ben.mxid}})


@pytest_twisted.ensureDeferred
async def test_a_session_that_proved_nothing_binds_nothing(real_town):
    bert = await real_town.settle("bert")
    real_town.daemon.token = bert.identity["id_access_token"]
    session = {"client_secret": "s3cret", "email": "bert@example.org", "send_attempt": 1}
    _, started = await real_town.daemon.ask("POST", "/v2/validate/email/requestToken", session)
    body = {"client_secret": "s3cret", "sid": started["sid"], **bert.identity}
    status, error = await bert.user.ask("POST", "/account/3pid/bind", body)
    assert (status, error["errcode"]) == (400, "M_SESSION_NOT_VALIDATED")
    assert await real_town.found_by(bert, "bert@example.org") is None


@pytest_twisted.ensureDeferred
async def test_an_invited_address_that_is_bound_already_is_invited_by_its_user_id(real_town):
    """The homeserver looks addresses up by itself, with the access token in the query."""
    carla, carl = await real_town.settle("carla"), await real_town.settle("carl")
    await real_town.bind(carl, "carl@example.org")
    room = await carla.user.does("POST", "/createRoom", {"preset": "private_chat"})
    await real_town.invite(carla, room["room_id"], "carl@example.org")
    await carl.user.invited_to(room["room_id"])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["id_server", "alias"])
@pytest.mark.parametrize("path", ["/account/3pid/unbind", "/account/3pid/delete"])
async def test_what_the_homeserver_unbinds_is_not_found_any_more(real_town, path, name):
    """It signs for the name that its user knows the identity server by."""
    localpart = f"dora-{name}-{path.rpartition('/')[2]}"
    address = f"{localpart}@example.org"
    dora = await real_town.settle(localpart)
    await real_town.bind(dora, address)
    assert await real_town.found_by(dora, address) == dora.mxid
    body = {"medium": "email", "address": address, "id_server": getattr(real_town, name)}
    answer = await dora.user.does("POST", path, body)
    assert answer == {"id_server_unbind_result": "success"}
    assert await real_town.found_by(dora, address) is None


@pytest_twisted.ensureDeferred
async def test_what_somebody_else_has_bound_stays_bound(real_town):
    """The homeserver vouches for who asks, and not for what they ask."""
    dirk, dean = await real_town.settle("dirk"), await real_town.settle("dean")
    await real_town.bind(dirk, "dirk@example.org")
    body = {"medium": "email", "address": "dirk@example.org", "id_server": real_town.id_server}
    answer = await dean.user.does("POST", "/account/3pid/unbind", body)
    assert answer == {"id_server_unbind_result": "success"}
    assert await real_town.found_by(dean, "dirk@example.org") == dirk.mxid


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_deactivated_takes_its_addresses_with_it(real_town):
    addresses = ["emil@example.org", "emil@example.com"]
    emil, eva = await real_town.settle("emil"), await real_town.settle("eva")
    for address in addresses:
        await real_town.bind(emil, address)
    answer = await emil.user.does_with_password("/account/deactivate", {"erase": True})
    assert answer == {"id_server_unbind_result": "success"}
    assert [await real_town.found_by(eva, address) for address in addresses] == [None, None]


@pytest_twisted.ensureDeferred
async def test_what_nobody_has_bound_is_unbound_with_success(real_town):
    """An error would make the homeserver forget the binding, or keep people from leaving."""
    fay = await real_town.synapse.sign_up("fay")
    body = {"medium": "email", "address": "nobody@example.org", "id_server": real_town.id_server}
    answer = await fay.does("POST", "/account/3pid/unbind", body)
    assert answer == {"id_server_unbind_result": "success"}


@pytest_twisted.async_yield_fixture
async def stranger(real_town, tmp_path):
    """Another identity server, whose certificate is of an authority that the homeserver does not know."""
    daemon, tls_port = identity_server(
        tmp_path, Authority(), smtp_port=real_town.mailbox.port, sms_port=real_town.gateway.port
    )
    await daemon.start()
    yield daemon, f"localhost:{tls_port}"
    await daemon.clean_up()


@pytest_twisted.ensureDeferred
async def test_neither_side_talks_to_one_whose_certificate_nobody_vouches_for(real_town, stranger):
    daemon, id_server = stranger
    gus = await real_town.synapse.sign_up("gus")
    status, error = await daemon.ask("POST", "/v2/account/register", await gus.openid_token())
    assert status == 502
    assert error["error"].startswith("The homeserver")
    body = {"medium": "email", "address": "gus@example.org", "id_server": id_server}
    status, error = await gus.ask("POST", "/account/3pid/unbind", body)
    assert status == 500
    assert "3pid/unbind" not in daemon.process.output
