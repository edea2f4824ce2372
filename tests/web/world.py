"""What a request can be about: two users, sessions in every state, an association and an invitation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fixtures import DAY_MS, INVITES
from web.rows import ALICE

from sydentish.actions.accounts import Caller
from sydentish.actions.invites import InviteRequest
from sydentish.actions.messages import TokenRequest
from sydentish.actions.validation import Credentials
from sydentish.domain.errors import HomeserverError, HomeserverTimeout, IdentityError
from sydentish.domain.invites import InviteDetails, InviteMail
from sydentish.domain.lookup import hash_address
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, parse_phone_number

SECRET = "monkeys_are_GREAT"
BOUND = "bound@example.org"
PROVED = "proved@example.org"
INVITED = "invited@example.org"
PHONE = "447700900123"
ROOM = "!room:hs.example.org"


@dataclass
class World:
    """What a case can talk about.

    Attributes:
        token: alice's access token.
        sessions: sessions by their state; those of telephone numbers begin with `sms`.
        mail_token: the newest of the pending session.
        code: that of the pending SMS session.
        invitation: its `token`, `private_key` and `public_key`, and what store-invite answered.
    """

    server: Any
    token: str
    sessions: dict[str, Credentials] = field(default_factory=dict)
    mail_token: str = ""
    code: str = ""
    pepper: str = ""
    invitation: dict[str, Any] = field(default_factory=dict)

    def session(self, state):
        found = self.sessions[state]
        return {"sid": found.sid, "client_secret": found.client_secret}

    def address_hash(self, address):
        return hash_address(Threepid(EMAIL, address), self.pepper)

    async def ask_for_mail(self, caller, address):
        request = TokenRequest(Threepid(EMAIL, address), SECRET, 1, None)
        return Credentials(await self.server.house.validation.request_token(caller, request), SECRET)

    async def ask_for_code(self, caller, number):
        number = parse_phone_number("GB", number)
        request = TokenRequest(Threepid(MSISDN, number.msisdn), SECRET, 1, None, number=number)
        return Credentials(await self.server.house.validation.request_token(caller, request), SECRET)


async def make_world(serve, **options):
    server = await serve(**options)
    house = server.house
    caller = Caller(await house.token(ALICE), needs_terms=False)
    world = World(server, caller.token)
    world.sessions["expired"] = await house.prove(caller, "old@example.org", SECRET)
    world.sessions["sms expired"] = await world.ask_for_code(caller, "07700900001")
    house.advance(DAY_MS + 1)
    world.sessions["bound"] = await house.prove(caller, BOUND, SECRET)
    await house.associations.bind(caller, world.sessions["bound"], ALICE)
    world.sessions["proved"] = await house.prove(caller, PROVED, SECRET)
    world.sessions["pending"] = await world.ask_for_mail(caller, "pending@example.org")
    world.mail_token = house.sender.last_token()
    await _add_telephones(world, caller)
    known = world.sessions["proved"]
    world.sessions["unknown"] = Credentials("unknown", SECRET)
    world.sessions["other secret"] = Credentials(known.sid, "wrong")
    world.pepper = (await house.lookup.hash_details(caller))["lookup_pepper"]
    if options.get("invites", INVITES).enabled:
        world.invitation = await _invite(house, caller)
    house.verifier.tokens |= {
        "good": ALICE,
        "down": HomeserverError("The homeserver cannot be reached"),
        "slow": HomeserverTimeout("The homeserver did not answer in time"),
    }
    return world


async def _add_telephones(world, caller):
    house = world.server.house
    world.sessions["sms proved"] = await world.ask_for_code(caller, "07700900123")
    await house.validation.submit_token(caller, world.sessions["sms proved"], house.codes.last_code())
    world.sessions["sms guessed"] = await world.ask_for_code(caller, "07700900002")
    for _ in range(10):
        await _wrong_guess(house, caller, world.sessions["sms guessed"])
    world.sessions["sms pending"] = await world.ask_for_code(caller, "07700900003")
    world.code = house.codes.last_code()
    world.sessions["sms other secret"] = Credentials(world.sessions["sms pending"].sid, "wrong")


async def _wrong_guess(house, caller, credentials):
    try:
        await house.validation.submit_token(caller, credentials, "wrong")
    except IdentityError:
        return
    raise AssertionError("a wrong code was right")


async def _invite(house, caller):
    request = InviteRequest(Threepid(EMAIL, INVITED), ROOM, ALICE, InviteDetails(), None, None)
    answer = await house.invites.store(caller, request)
    ((payload,),) = await house.db.read(
        lambda tx: tx.rows("SELECT payload FROM outbox WHERE kind = 'invite'", ())
    )
    fragment = urlsplit(InviteMail.from_json(payload).link).fragment
    (sign_url,) = parse_qs(urlsplit(fragment).query)["signurl"]
    query = parse_qs(urlsplit(sign_url).query)
    return {
        "token": query["token"][0],
        "private_key": query["private_key"][0],
        "public_key": answer["public_keys"][1]["public_key"],
        "sign_url": sign_url,
        "answer": answer,
    }


@dataclass(frozen=True)
class Case:
    """One request and its answer.

    Attributes:
        params: makes the parameters from the world.
        token: whether alice's token is sent, or another one.
        answer: the body of a good answer, or a function that checks it.
        prepare: what happens to the house before.
        options: how the house is made.
    """

    name: str
    method: str
    path: str
    status: int = 200
    errcode: str | None = None
    params: Callable[[World], dict] | None = None
    token: bool | str = True
    answer: Any = None
    prepare: Callable[[Any], None] = lambda _house: None
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        return f"{self.method} {self.path}: {self.name}"

    async def ask(self, world):
        self.prepare(world.server.house)
        params = self.params(world) if self.params else None
        where = {"query": params} if self.method == "GET" else {"params": params}
        token = world.token if self.token is True else self.token or None
        return await world.server.ask(self.method, self.path, token=token, **where)
