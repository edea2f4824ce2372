"""Trying a peer: a real connection, step by step, and what is wrong with each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import orjson
from twisted.internet.interfaces import IReactorTime

from sydentish.domain.certificates import names_in
from sydentish.domain.ids import parse_server_name
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import CHECK_PATH, PUSH_PATH, Accepted, Failed, Peer
from sydentish.replication.handshake import shown_certificate
from sydentish.replication.link import Answer, LinkFailed, PeerLink, is_answer_of_sydent, outcome_of
from sydentish.replication.remedies import remedy
from sydentish.replication.tls import PeerTls

_SYDENTS_KEY = "ed25519:0"
_DAY_MS = 24 * 3600 * 1000
_SOON_DAYS = 14
_LONGEST_TOLD = 200
# `Date` tells no more than seconds.
_HALF_A_SECOND_MS = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step has shown.

    Attributes:
        step: what was tried, in a word or two.
        ok: whether it is as it should be.
        told: what was found.
        remedy: what helps; None where nothing is wrong.
    """

    step: str
    ok: bool
    told: str
    remedy: str | None = None


class Trial:
    """Tries peers; nothing is kept of it, here or there.

    Args:
        link: the way to peers.
        tls: our certificate.
        keys: what we sign with, and in whose name.
        clock: what time is waited by.
        time_limit: seconds for connecting alone; the link has a limit of its own.
        max_future_ms: how far ahead of our clock statements of peers may be dated, in ms.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        link: PeerLink,
        tls: PeerTls,
        keys: KeyRing,
        clock: IReactorTime,
        time_limit: float,
        max_future_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._link = link
        self._tls = tls
        self._keys = keys
        self._clock = clock
        self._time_limit = time_limit
        self._max_future_ms = max_future_ms
        self._now_ms = now_ms

    async def run(self, peer: Peer) -> list[Finding]:
        """Takes one step after the other, up to the first that those behind it cannot do without."""
        findings = [self._our_certificate(), *await self._reach(peer)]
        if all(each.ok for each in findings[1:]):
            findings += await self._talk(peer)
        return findings

    def _our_certificate(self) -> Finding:
        step, names = "our certificate", self._tls.certificate_names
        told = f"our certificate is for {_listed(names)}"
        left_ms = self._tls.not_after_ms - self._now_ms()
        if left_ms <= 0:
            told = f"{told}, and has expired on {_day(self._tls.not_after_ms)}"
            return Finding(step, ok=False, told=told, remedy="renew it, and restart the server")
        us = self._keys.server_name
        if {us, parse_server_name(us).host.removesuffix(".")}.isdisjoint(names):
            told = f"{told}, and not for {us}, so that peers must be told these names"
        return Finding(step, ok=True, told=f"{told}; it is {_validity(self._tls.not_after_ms, left_ms)}")

    async def _reach(self, peer: Peer) -> list[Finding]:
        reached = Finding("connection", ok=True, told=f"it can be reached at {peer.url}")
        try:
            shown = await shown_certificate(self._link.endpoint(peer), self._clock, self._time_limit)
        except LinkFailed as failed:
            if failed.kind == "certificate":
                return [reached, _failed("its certificate", failed)]
            return [_failed("connection", failed, f" at {peer.url}")]
        until_ms = int(shown.not_valid_after_utc.timestamp() * 1000)
        told = (
            f"its certificate is for {_listed(names_in(shown))}, and from an authority that is trusted here; "
            f"it is {_validity(until_ms, until_ms - self._now_ms())}"
        )
        return [reached, Finding("its certificate", ok=True, told=told)]

    async def _talk(self, peer: Peer) -> list[Finding]:
        sent_ms = self._now_ms()
        greeting = {"server_name": self._keys.server_name, "peer": peer.name, "ts": sent_ms}
        try:
            answer = await self._link.ask(peer, CHECK_PATH, orjson.dumps(self._keys.sign(greeting)))
            if is_answer_of_sydent(answer):
                return await self._talk_to_sydent(peer)
        except LinkFailed as failed:
            return [_failed("answer", failed)]
        if answer.status != HTTPStatus.OK or answer.body is None:
            return [self._refusal(outcome_of(answer, self._tls.certificate_names))]
        ours_ms = (sent_ms + self._now_ms()) // 2
        return [
            self._known_as(answer.body.get("peer")),
            self._our_key(answer.body.get("signature"), peer),
            _its_key(peer, answer),
            self._clocks(answer.body.get("ts"), ours_ms, answer.body.get("max_future_ms")),
        ]

    def _refusal(self, outcome: object) -> Finding:
        if isinstance(outcome, Failed) and outcome.kind == "unknown_peer":
            help_ = f"its operator must add us: send them what this prints: sydentish peers show {self._keys.server_name}"
            return Finding("known there", ok=False, told=outcome.reason, remedy=help_)
        told = outcome.reason if isinstance(outcome, Failed) else "it gives no answer to a greeting"
        return Finding("answer", ok=False, told=told, remedy=remedy("answer", told))

    def _known_as(self, name: object) -> Finding:
        us = self._keys.server_name
        if name == us:
            return Finding("known there", ok=True, told=f"it knows us as {us}")
        told = f"it takes us for {_told(name)}, by our certificate"
        help_ = f"its operator must correct the certificate names of that peer, and of {us}"
        return Finding("known there", ok=False, told=told, remedy=help_)

    def _our_key(self, told: object, peer: Peer) -> Finding:
        active = self._keys.active
        if told == "valid":
            return Finding("our key", ok=True, told=f"it has our key {active.key_id}")
        help_ = f"the operator of {peer.name} must have this key of ours: {active.key_id} {active.public_key}"
        return Finding("our key", ok=False, told=f"for it, what we sign {_told(told)}", remedy=help_)

    async def _talk_to_sydent(self, peer: Peer) -> list[Finding]:
        """It takes a push of nothing, which proves our certificate and shows its clock, but no keys."""
        sent_ms = self._now_ms()
        answer = await self._link.ask(peer, PUSH_PATH, b'{"sgAssocs":{}}')
        outcome = outcome_of(answer, self._tls.certificate_names)
        if not isinstance(outcome, Accepted):
            return [self._refusal(outcome)]
        ours_ms = (sent_ms + self._now_ms()) // 2
        date_ms = None if answer.date_ms is None else answer.date_ms + _HALF_A_SECOND_MS
        return [
            Finding("program", ok=True, told="it is probably a Sydent: keys cannot be tried with it"),
            Finding("known there", ok=True, told="it knows us by our certificate"),
            self._key_for_sydent(),
            self._clocks(date_ms, ours_ms, None),
        ]

    def _key_for_sydent(self) -> Finding:
        active = self._keys.active
        if active.key_id == _SYDENTS_KEY:
            told = f"we sign with {_SYDENTS_KEY}, as a Sydent needs it; its operator must have {active.public_key}"
            return Finding("our key", ok=True, told=told)
        told = f"a Sydent knows our key as {_SYDENTS_KEY} only, but we sign with {active.key_id}"
        return Finding(
            "our key", ok=False, told=told, remedy=f"it takes nothing before {_SYDENTS_KEY} is active"
        )

    def _clocks(self, theirs_ms: object, ours_ms: int, their_limit_ms: object) -> Finding:
        theirs = _number(theirs_ms)
        if theirs is None:
            return Finding(
                "clock", ok=False, told="it does not tell its time", remedy="compare the clocks yourself"
            )
        ahead_ms = theirs - ours_ms
        their_limit = _number(their_limit_ms)
        # Without a limit of theirs, ours is as good as any.
        limit_ms = self._max_future_ms if ahead_ms > 0 or their_limit is None else their_limit
        seconds = f"{round(abs(ahead_ms) / 1000)} s {'ahead of' if ahead_ms > 0 else 'behind'} ours"
        if abs(ahead_ms) <= limit_ms:
            return Finding("clock", ok=True, told=f"its clock is {seconds}")
        refused = "what it states is refused here" if ahead_ms > 0 else "what we state is refused there"
        told = f"its clock is {seconds}: beyond {limit_ms // 1000} s, {refused}"
        return Finding("clock", ok=False, told=told, remedy="set the clocks of both servers by NTP")


def _its_key(peer: Peer, answer: Answer) -> Finding:
    body = answer.body or {}
    try:
        peer.check_signature(body)
    except ValueError as error:
        other = body.get("server_name")
        says = "" if other == peer.name else f", and calls itself {_told(other)}"
        help_ = "ask its operator for its name and its public keys, and put those into the configuration or peers add"
        return Finding("its key", ok=False, told=f"what it answers {error}{says}", remedy=help_)
    return Finding("its key", ok=True, told="it signs with a key that is known here")


def _failed(step: str, failed: LinkFailed, where: str = "") -> Finding:
    return Finding(step, ok=False, told=f"{failed.reason}{where}", remedy=remedy(failed.kind, failed.reason))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _validity(until_ms: int, left_ms: int) -> str:
    days = left_ms // _DAY_MS
    soon = f" ({days} days left: renew it)" if days < _SOON_DAYS else ""
    return f"valid until {_day(until_ms)}{soon}"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_told, names)) or "nobody"


def _told(value: object) -> str:
    """What a peer says, fit to be shown."""
    text = value if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_TOLD]) or "(it does not say)"
