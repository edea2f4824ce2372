"""Who answers: this server, somebody else, or nobody."""

from dataclasses import dataclass

from sydentish.cli.doctor.asking import Answer, Asker, NoAnswer, quoted
from sydentish.domain.keys import KeyRing

API = "/_matrix/identity"

_ROUTE = (
    "have the proxy pass /_matrix/identity on to one of [http] listeners, before any other rule for /_matrix"
)
_REDIRECTS = range(300, 400)
_GATEWAY_ERRORS = (502, 503, 504)
_LOG_IN = (401, 407)
_OK = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who answers.

    Attributes:
        told: why it is not this server; None where it is.
        remedy: what helps.
        silent: whether nobody has answered, or a proxy for nobody.
        answer: the first answer, if there was one.
    """

    told: str | None = None
    remedy: str | None = None
    silent: bool = False
    answer: Answer | None = None

    @property
    def is_us(self) -> bool:
        """Whether it is this server."""
        return self.told is None


async def who_answers(asker: Asker, keys: KeyRing) -> Verdict:
    """Asks for a sign of life, and then for the public key.

    Args:
        asker: asks, from `/_matrix/identity` on.
        keys: ours.
    """
    try:
        answer = await asker.ask("GET", "/v2")
        if answer.status != _OK or answer.json != {}:
            return _not_an_identity_server(answer)
        return _compared(keys, answer, await asker.ask("GET", f"/v2/pubkey/{keys.active.key_id}"))
    except NoAnswer as no:
        remedy = "check its name in the DNS, its port, the proxy and the firewalls"
        return Verdict(f"cannot be reached: {no.reason}", remedy, silent=True)


def _not_an_identity_server(answer: Answer) -> Verdict:
    if answer.status in _REDIRECTS:
        where = quoted("".join(answer.all("Location"))) or "nowhere"
        remedy = "set public_base_url to where it leads to, or have the proxy pass requests on: not all clients follow"
        return Verdict(f"redirects to {where}", remedy, answer=answer)
    if answer.status in _GATEWAY_ERRORS:
        told = f"a proxy answers, but gets nothing from this server: {answer.told}"
        return Verdict(
            told, "have it pass requests on to one of [http] listeners", silent=True, answer=answer
        )
    if answer.status in _LOG_IN and answer.all("WWW-Authenticate"):
        told = f"asks for a log-in of its own: {answer.told}"
        return Verdict(told, "let everybody reach it: clients log in to the server itself", answer=answer)
    if answer.is_error(404, "M_UNRECOGNIZED"):
        return Verdict(
            "a Matrix server answers that is no identity server: a homeserver?", _ROUTE, answer=answer
        )
    return Verdict(f"something else answers: {answer.told}", _ROUTE, answer=answer)


def _compared(keys: KeyRing, answer: Answer, about_key: Answer) -> Verdict:
    ours, key_id = keys.active.public_key, keys.active.key_id
    theirs = (about_key.json or {}).get("public_key")
    if theirs == ours:
        return Verdict(answer=answer)
    if isinstance(theirs, str):
        told = f"another identity server answers: its key {key_id} is {quoted(theirs)}, ours is {ours}"
        remedy = (
            "have DNS and proxy lead to this server; or does the running one have another [general] key_dir?"
        )
    elif about_key.is_error(404, "M_NOT_FOUND"):
        told = f"an identity server answers that does not have our key {key_id}"
        remedy = "is it this one? Then it has not read its keys again: systemctl reload sydentish"
    else:
        told, remedy = (
            f"an identity server answers, but does not tell our key {key_id}: {about_key.told}",
            _ROUTE,
        )
    return Verdict(told, remedy, answer=answer)
