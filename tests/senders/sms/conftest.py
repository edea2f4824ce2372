import pytest
import pytest_twisted
from senders.relays import templates_directory
from standins.certificates import ServerCertificate
from standins.gateway import Gateway
from twisted.internet import reactor

from sydentish.domain.threepids import parse_phone_number
from sydentish.senders.render import Templates
from sydentish.senders.sms.gateway import Sms
from sydentish.senders.sms.http import HttpGateway, HttpRules
from sydentish.senders.sms.openmarket import OpenMarket
from sydentish.senders.sms.twilio import Twilio

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
PASSWORD = "correct-horse"
NUMBER = parse_phone_number("GB", "07700 900001")
JSON = '{"to": "{destination}", "from": "{originator}", "text": "{text}"}'


@pytest.fixture(scope="session")
def templates():
    return Templates(templates_directory())


@pytest.fixture
def sms():
    def make(text="Your code: 271828", originator="", number=NUMBER):
        return Sms(originator=originator, destination=number, text=text)

    return make


@pytest_twisted.async_yield_fixture
async def start(authority, logged):
    """Starts stand-in gateways; in the end, whoever connected must have gone by itself, and left no error."""
    gateways = []

    def begin(kind="http", names=None, **options):
        options = {"username": ACCOUNT, "password": PASSWORD} | options
        certificate = None
        if names is not None:
            certificate = ServerCertificate(
                authority.issue_cert(*names).private_key_and_cert_chain_pem.bytes()
            )
        gateways.append(Gateway(kind, certificate, **options))
        gateways[-1].start(reactor)
        return gateways[-1]

    yield begin
    for gateway in gateways:
        await gateway.no_connections()
        await gateway.stop()


@pytest.fixture
def provider(clock):
    """Makes the provider for a stand-in gateway, or for any URL; its limits are on `clock`."""

    def make(kind, at, name="first", **options):
        url = at if isinstance(at, str) else at.url
        parts = {"name": name, "reactor": reactor, "clock": clock}
        if kind == "openmarket":
            return OpenMarket(
                **parts | {"base_url": url, "username": ACCOUNT, "password": PASSWORD} | options
            )
        if kind == "twilio":
            options = {"originator": "+15005550006"} | options
            return Twilio(
                **parts | {"base_url": url, "account_sid": ACCOUNT, "auth_token": PASSWORD} | options
            )
        login = {key: options.pop(key) for key in ("username", "password", "ca_file") if key in options}
        rules = HttpRules(**{"url": f"{url}/send", "body": JSON, "originator": "Acme"} | options)
        return HttpGateway(**parts | {"rules": rules, "username": ACCOUNT, "password": PASSWORD} | login)

    yield make
    assert clock.getDelayedCalls() == []
