"""Look-ups: which Matrix users have published an address, asked by hash."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.ports import SignsOfLife
from sydentish.domain.accounts import Account
from sydentish.domain.associations import Association
from sydentish.domain.errors import Busy, InvalidParam
from sydentish.domain.ids import canonical_server_name, server_name_of
from sydentish.domain.keys import KeyRing
from sydentish.domain.lookup import NONE, Peppers, algorithms, check_algorithm, plain_address
from sydentish.domain.threepids import Threepid, normalise
from sydentish.store import associations as association_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store.database import Tx
from sydentish.store.lookup import Found


class Lookup:
    """What a user looks up (Identity Service API, "Association lookup").

    Args:
        gate: the way to the database.
        keys: what associations are signed with, where they are given out whole.
        allow_none: whether addresses may be asked for in the clear.
        max_addresses: how many may be asked for at a time; None for any number.
        pepper_grace_ms: how long a pepper is accepted after its replacement, in ms.
        signs_of_life: hears of the homeservers whose users ask.
        on_lookup: hears of each look-up: the algorithm, how many addresses were asked for, and how many are bound.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        keys: KeyRing,
        allow_none: bool,
        max_addresses: int | None,
        pepper_grace_ms: int,
        signs_of_life: SignsOfLife,
        on_lookup: Callable[[str, int, int], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._gate = gate
        self._keys = keys
        self._allow_none = allow_none
        self._max_addresses = max_addresses
        self._pepper_grace_ms = pepper_grace_ms
        self._signs_of_life = signs_of_life
        self._on_lookup = on_lookup
        self._now_ms = now_ms

    async def hash_details(self, caller: Caller) -> dict[str, object]:
        """How addresses must be hashed."""
        peppers = await self._gate.read(caller, lambda tx, _account: self._peppers(tx))
        return {
            "algorithms": algorithms(allow_none=self._allow_none),
            "lookup_pepper": peppers.current.pepper,
        }

    async def lookup(self, caller: Caller, algorithm: str, pepper: str, addresses: Sequence[str]) -> str:
        """Maps those of the addresses that are bound to their users.

        Args:
            caller: who asks.
            algorithm: how `addresses` are encoded.
            pepper: the pepper they were hashed with; checked for every algorithm.
            addresses: hashes, or `address medium` for the algorithm `none`.

        Returns:
            A JSON object as text: it comes whole out of the database, and goes whole to the client.

        Raises:
            InvalidParam: the algorithm is not offered, or there are too many addresses.
            InvalidPepper: the pepper is not valid any more.
        """
        user_id, found = await self._gate.read(caller, self._lookup, algorithm, pepper, addresses)
        self._on_lookup(algorithm, len(addresses), found.number)
        self._signs_of_life.heard_from(canonical_server_name(server_name_of(user_id)))
        return found.mappings

    async def association(self, caller: Caller, threepid: Threepid) -> dict[str, object]:
        """The signed association of an address, or an empty object (v1, `GET /lookup`).

        Args:
            caller: who asks.
            threepid: the address, as it was typed; the answer has it in the form that is stored. What another server
                has stated is as that has signed it, with our signature beside its own.
        """
        found = await self._gate.read_for_anybody(caller, lambda tx, _account: _stated(tx, threepid))
        self._on_lookup(NONE, 1, int(found is not None))
        return {} if found is None else self._keys.sign(found)

    async def associations(self, caller: Caller, threepids: Sequence[Threepid]) -> list[tuple[str, str, str]]:
        """Medium, address as it was asked for, and user of those addresses that are bound (v1, `POST /bulk_lookup`).

        Raises:
            InvalidParam: there are too many addresses.
        """
        self._check_number("threepids", threepids)
        found = await self._gate.read_for_anybody(
            caller, lambda tx, _account: [(asked, _association(tx, asked)) for asked in threepids]
        )
        bound = [(asked.medium, asked.address, known.mxid) for asked, known in found if known is not None]
        self._on_lookup(NONE, len(threepids), len(bound))
        return bound

    def _lookup(
        self, tx: Tx, account: Account, algorithm: str, pepper: str, addresses: Sequence[str]
    ) -> tuple[str, Found]:
        check_algorithm(algorithm, allow_none=self._allow_none)
        self._check_number("addresses", addresses)
        found = self._peppers(tx).find(algorithm, pepper, self._now_ms())
        addresses = _askable(addresses)
        if algorithm == NONE:
            return account.user_id, lookup_rows.find_plain(tx, _plain_entries(addresses))
        return account.user_id, lookup_rows.find_hashes(tx, found.pepper_id, orjson.dumps(addresses).decode())

    def _check_number(self, name: str, asked: Sequence[object]) -> None:
        if self._max_addresses is not None and len(asked) > self._max_addresses:
            raise InvalidParam(name, f"must be at most {self._max_addresses}")

    def _peppers(self, tx: Tx) -> Peppers:
        peppers = lookup_rows.peppers(tx, self._pepper_grace_ms)
        if peppers is None:
            raise Busy("The server is still starting")
        return peppers


def _association(tx: Tx, asked: Threepid) -> Association | None:
    threepid = normalise(asked.medium, asked.address)
    return None if threepid is None else association_rows.association(tx, threepid)


def _stated(tx: Tx, asked: Threepid) -> dict[str, Any] | None:
    known = _association(tx, asked)
    if known is None:
        return None
    signed = association_rows.signed_elsewhere(tx, known.threepid)
    return known.to_json() if signed is None else orjson.loads(signed)


def _askable(addresses: Sequence[str]) -> list[str]:
    """Each address once, since each becomes a key of the answer; none that SQLite's JSON would cut at a NUL."""
    return [address for address in dict.fromkeys(addresses) if "\0" not in address]


def _plain_entries(addresses: Sequence[str]) -> str:
    plain = ((entry, plain_address(entry)) for entry in addresses)
    return orjson.dumps([[entry, found.medium, found.address] for entry, found in plain if found]).decode()
