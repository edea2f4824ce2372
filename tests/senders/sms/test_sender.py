"""Codes go to the first gateway that takes them, within one limit."""

import pytest
import pytest_twisted
from log_tools import logged as as_logged
from senders.relays import templates_directory
from standins.behaviours import Silence, answer, close, raw
from standins.gateways import Message
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from sydentish.actions.ports import Style
from sydentish.domain.errors import DestinationRejected, SendError
from sydentish.domain.threepids import PhoneNumber, parse_phone_number
from sydentish.senders.render import Templates
from sydentish.senders.sms.gateway import GatewayError
from sydentish.senders.sms.log import LogGateway
from sydentish.senders.sms.sender import SmsSender

GB = parse_phone_number("GB", "07700 900001")
FR = parse_phone_number("FR", "0639980001")
NOWHERE = PhoneNumber(msisdn="999123456789", intl_fmt="+999 123456789", region=None)
CODE = "271828"
PLAIN = Style()
SECRETS = [CODE, "7700", "correct-horse", "AC01234567", "k3y"]
AGAIN = GatewayError("it answered 503", temporary=True, refused=True)
NEVER = GatewayError("it answered 400", temporary=False, refused=True)
BROKEN = GatewayError("it cannot be connected to", temporary=True)


class Scripted:
    """A provider that does what it is told, once for each time that it is asked."""

    def __init__(self, name, *script):
        self.name = name
        self.script = list(script)
        self.asked = []

    async def send(self, sms, time_limit):
        self.asked.append((sms, time_limit))
        what = self.script.pop(0) if self.script else None
        if isinstance(what, Deferred):
            what = await what
        if what is not None:
            raise what


@pytest.fixture
def results():
    return []


@pytest.fixture
def sender(templates, clock, results):
    def make(*providers, **options):
        options = {"templates": templates, "time_limit": 12.0, "clock": clock} | options
        return SmsSender(
            gateways=providers,
            on_result=lambda name, outcome: results.append((name, outcome)),
            server_name="id.example.org",
            **options,
        )

    yield make
    assert clock.getDelayedCalls() == []


def start(sender, number=GB, style=PLAIN):
    return Deferred.fromCoroutine(sender.send_code(number, CODE, style))


async def fails(sending):
    with pytest.raises(SendError, match=r"^The SMS could not be handed over to a gateway$"):
        await sending


# --- what is sent -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_code_goes_to_the_first_gateway(sender, results):
    first, second = Scripted("first"), Scripted("second")
    await start(sender(first, second))
    ((sms, time_limit),) = first.asked
    assert (sms.destination, sms.originator, time_limit) == (GB, "", 6.0)
    assert CODE in sms.text
    assert "id.example.org" in sms.text
    assert (second.asked, results) == ([], [("first", "sent")])
    assert not any(secret in repr(sms) for secret in SECRETS)


@pytest_twisted.ensureDeferred
async def test_the_text_is_in_the_language_and_the_brand_of_who_reads_it(sender, tmp_path):
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "sms.txt").write_text("Acme {{ code }}")
    provider = Scripted("first")
    sending = sender(provider, templates=Templates(templates_directory(), tmp_path))
    for style in (Style(languages=("de-AT",)), Style("acme", ("de",)), Style("unknown", ("fr", "de"))):
        await start(sending, style=style)
    german, acme, french = (sms.text for sms, _ in provider.asked)
    assert german.startswith("Ihr Code f\u00fcr id.example.org: 271828.")
    assert acme == "Acme 271828"
    assert french.startswith("Votre code pour id.example.org : 271828.")


@pytest_twisted.ensureDeferred
async def test_each_country_can_have_its_originator(sender):
    provider = Scripted("first")
    sending = sender(provider, originators={"FR": "36000"})
    for number in (GB, FR, NOWHERE):
        await start(sending, number)
    assert [sms.originator for sms, _ in provider.asked] == ["", "36000", ""]


def test_an_originator_that_cannot_be_one(sender):
    with pytest.raises(ValueError, match=r"^originator: "):
        sender(originators={"FR": "far too long a name"})


# --- where nothing is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "rejected", "number", "accepted"),
    [
        (None, [], GB, True),
        (None, [], NOWHERE, True),
        (["GB", "FR"], [], GB, True),
        (["FR"], [], GB, False),
        (["FR"], [], NOWHERE, False),
        ([], [], GB, False),
        (None, ["GB"], GB, False),
        (None, ["FR"], GB, True),
        (["GB"], ["GB"], GB, False),
        (None, ["GB"], NOWHERE, False),
        (["GB"], ["FR"], NOWHERE, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_countries(allowed, rejected, number, accepted, sender):
    provider = Scripted("first")
    countries = None if allowed is None else frozenset(allowed)
    sending = sender(provider, allowed_countries=countries, rejected_countries=frozenset(rejected))
    if accepted:
        sending.check(number)
        await start(sending, number)
    else:
        with pytest.raises(DestinationRejected, match=r"^phone_number: "):
            sending.check(number)
        with pytest.raises(DestinationRejected):
            await start(sending, number)
    assert len(provider.asked) == accepted


@pytest_twisted.ensureDeferred
async def test_without_gateways_there_are_no_sms(sender):
    with pytest.raises(SendError, match="sends no SMS"):
        sender().check(GB)
    with pytest.raises(SendError, match="sends no SMS"):
        await start(sender())


# --- fail-over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [AGAIN, NEVER, BROKEN])
@pytest_twisted.ensureDeferred
async def test_the_next_gateway_takes_it(error, sender, results):
    first, second, third = Scripted("first", error), Scripted("second"), Scripted("third")
    await start(sender(first, second, third))
    assert results == [("first", "refused" if error.refused else "failed"), ("second", "sent")]
    assert first.asked[0][0] == second.asked[0][0]
    assert third.asked == []


@pytest_twisted.ensureDeferred
async def test_each_gateway_has_its_share_of_what_is_left(sender, clock, results):
    slow, quick = Deferred(), Deferred()
    first, second, third = Scripted("first", slow), Scripted("second", quick), Scripted("third", NEVER)
    sending = start(sender(first, second, third))
    clock.advance(4)
    slow.callback(GatewayError("late", temporary=False, timed_out=True))
    clock.advance(1)
    quick.callback(NEVER)
    await fails(sending)
    assert [provider.asked[0][1] for provider in (first, second, third)] == [4, 4, 7]
    assert results == [("first", "timeout"), ("second", "refused"), ("third", "refused")]


@pytest_twisted.ensureDeferred
async def test_a_gateway_that_may_do_better_soon_is_asked_once_more_at_last(sender, clock, results):
    first, second, third = Scripted("first", NEVER), Scripted("second", AGAIN), Scripted("third", AGAIN)
    sending = start(sender(first, second, third))
    clock.advance(0.4)
    assert not sending.called
    clock.advance(0.2)
    await sending
    assert [name for name, _ in results] == ["first", "second", "third", "second"]
    assert second.asked[1][1] == pytest.approx(11.4)


@pytest_twisted.ensureDeferred
async def test_once_more_is_not_twice(sender, clock):
    only = Scripted("first", AGAIN, AGAIN, AGAIN)
    sending = start(sender(only))
    clock.advance(1)
    await fails(sending)
    assert len(only.asked) == 2


@pytest_twisted.ensureDeferred
async def test_not_once_more_where_it_would_not_help(sender):
    first, second = Scripted("first", NEVER), Scripted("second", NEVER)
    await fails(start(sender(first, second)))
    assert (len(first.asked), len(second.asked)) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_not_once_more_where_no_time_is_left(sender, clock):
    slow = Deferred()
    only = Scripted("first", slow)
    sending = start(sender(only))
    clock.advance(11)
    slow.callback(AGAIN)
    await fails(sending)
    assert len(only.asked) == 1


@pytest_twisted.ensureDeferred
async def test_a_process_that_was_held_up_gives_no_gateway_less_than_nothing(sender, clock):
    slow = Deferred()
    first, second = Scripted("first", slow), Scripted("second", NEVER)
    sending = start(sender(first, second))
    clock.advance(60)
    slow.callback(AGAIN)
    await fails(sending)
    assert second.asked[0][1] == 0.0


@pytest_twisted.ensureDeferred
async def test_who_waits_can_give_up(sender, clock, results):
    first, second = Scripted("first", Deferred()), Scripted("second")
    sending = start(sender(first, second))
    sending.cancel()
    with pytest.raises(CancelledError):
        await sending
    assert (second.asked, results) == ([], [])
    pausing = start(sender(Scripted("third", AGAIN)))
    pausing.cancel()
    with pytest.raises(CancelledError):
        await pausing


@pytest_twisted.ensureDeferred
async def test_an_error_of_our_own_is_not_taken_for_one_of_a_gateway(sender):
    second = Scripted("second")
    with pytest.raises(ZeroDivisionError):
        await start(sender(Scripted("first", ZeroDivisionError()), second))
    assert second.asked == []


# --- with real connections --------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_from_one_kind_of_gateway_to_the_next(start_chain, sender, results, logged):
    gateways, providers = start_chain(500, close, None)
    await start(sender(*providers))
    assert gateways[2].messages == [Message("", "447700900001", gateways[2].messages[0].text)]
    assert results == [("http", "refused"), ("twilio", "failed"), ("openmarket", "sent")]
    assert not any(secret in logged() for secret in SECRETS)
    warnings = logged()
    assert "SMS not handed over to http, refused: it answered 500" in warnings
    assert "SMS not handed over to twilio, failed: no usable answer" in warnings
    # Redaction is the last resort: it finds nothing to take out.
    assert "[redacted]" not in as_logged("{text}", text=warnings)


@pytest_twisted.ensureDeferred
async def test_a_silent_gateway_leaves_the_next_its_time(start_chain, sender, results, clock):
    silence = Silence()
    gateways, providers = start_chain(silence, None, None)
    sending = start(sender(*providers))
    await silence.asked
    clock.advance(4.1)
    await sending
    assert results == [("http", "timeout"), ("twilio", "sent")]
    assert len(gateways[1].messages) == 1
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_when_all_gateways_fail(start_chain, sender, results, logged):
    _, providers = start_chain(400, raw(b"rubbish\r\n\r\n"), 401)
    await fails(start(sender(*providers, clock=reactor)))
    assert [name for name, _ in results] == ["http", "twilio", "openmarket", "twilio"]
    assert not any(secret in logged() for secret in SECRETS)


@pytest.fixture
def start_chain(start, provider):
    def make(*troubles):
        kinds = ["http", "twilio", "openmarket"]
        gateways = [start(kind) for kind in kinds]
        for gateway, trouble in zip(gateways, troubles, strict=True):
            gateway.always = answer(trouble, b"{}") if isinstance(trouble, int) else trouble
        return gateways, [
            provider(kind, gateway, kind) for kind, gateway in zip(kinds, gateways, strict=True)
        ]

    return make


# --- for development --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_log_as_a_gateway(sender, results, logged):
    for style in (PLAIN, Style(languages=("de",)), Style(languages=("fr",))):
        await start(sender(LogGateway(name="here")), style=style)
    said = logged()
    assert said.count("here is for development only") >= 3
    # What a developer needs survives the redaction of the log; the number is nobody's business.
    assert as_logged("{text}", text=said).count(CODE) >= 3
    assert "7700" not in said
    assert results == [("here", "sent")] * 3
