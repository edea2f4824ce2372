"""What becomes of requests on their way to this server, and of its answers."""

import os
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import orjson
from unpaddedbase64 import encode_base64

from sydentish.cli.doctor.asking import ORIGIN, Answer, Asker, NoAnswer
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.cli.doctor.together import side_by_side
from sydentish.cli.printing import size
from sydentish.domain.keys import KeyRing
from sydentish.domain.signatures import PUBLIC_KEY_BYTES

_AS_IT_CAME = "have the proxy pass the path on as it came (nginx: proxy_pass without a path of its own)"
_HEADERS = (
    "have the proxy add no Access-Control headers, and take none away: the server sends what the clients need"
)
_LARGEST = 4 * 1024 * 1024
_LOOKUP = "/v2/lookup"
_NEEDED = ("authorization", "content-type")
# Everything but the name of the server is as it should be, so that this is what the answer is about.
_REGISTRATION = orjson.dumps(
    {
        "access_token": "doctor",
        "token_type": "Bearer",
        "matrix_server_name": "no server name",
        "expires_in": 60,
    }
)


class Proxy:
    """Looks at what is between clients and this server.

    Args:
        asker: asks by the public URL, from `/_matrix/identity` on.
        keys: ours.
        body_limit: how large a look-up may be, in bytes; None for any size.
    """

    def __init__(self, asker: Asker, keys: KeyRing, body_limit: int | None) -> None:
        self._ask = asker.ask
        self._keys = keys
        self._size = min(body_limit or _LARGEST, _LARGEST)
        # Nobody's.
        self._token = {"Authorization": f"Bearer doctor-{os.urandom(8).hex()}"}

    async def findings(self) -> list[Finding]:
        """All that is found."""
        checks: tuple[tuple[str, Callable[[], Awaitable[Finding]]], ...] = (
            ("path", self._path),
            ("key validity", self._validity),
            ("request body", self._body),
            ("access token", self._authorization),
            ("body limit", self._large_body),
            ("CORS", self._cors),
        )
        return await side_by_side([_found(check, look) for check, look in checks])

    async def _path(self) -> Finding:
        key_id, public_key = self._keys.active.key_id, self._keys.active.public_key
        encoded = await self._ask("GET", f"/v2/pubkey/{quote(key_id, safe='')}")
        if (encoded.json or {}).get("public_key") != public_key:
            return failed("path", f"encoded characters in it do not arrive: {encoded.told}", _AS_IT_CAME)
        # The server itself takes an encoded slash for a part of a name.
        slash = await self._ask("GET", f"/v2/pubkey%2Fisvalid?public_key={quote(public_key, safe='')}")
        if slash.json is not None and "valid" in slash.json:
            return warning("path", "arrives decoded, which spoils what homeservers sign", _AS_IT_CAME)
        return ok("path", "arrives as it was sent")

    async def _validity(self) -> Finding:
        check, url = "key validity", "/v2/pubkey/isvalid?public_key="
        ours = await self._ask("GET", f"{url}{quote(self._keys.active.public_key, safe='')}")
        if ours.json != {"valid": True}:
            told = f"homeservers that ask whether our key is valid hear: {_heard(ours)}"
            return failed(check, told, "have the proxy pass the query of a URL on as it came")
        other = quote(encode_base64(os.urandom(PUBLIC_KEY_BYTES)), safe="")
        ephemeral = await self._ask("GET", f"/v2/pubkey/ephemeral/isvalid?public_key={other}")
        if ephemeral.json != {"valid": False}:
            told = f"a key of nobody's is not said to be invalid: {_heard(ephemeral)}"
            return failed(
                check, told, "have the proxy pass every path below /_matrix/identity on, and cache nothing"
            )
        return ok(check, "homeservers that ask for it hear that our key is valid, and one of nobody's is not")

    async def _body(self) -> Finding:
        answer = await self._ask("POST", "/v2/account/register", body=_REGISTRATION)
        if answer.is_error(400, "M_INVALID_PARAM"):
            return ok("request body", "arrives as it was sent")
        told = f"does not arrive: {answer.told}"
        return failed(
            "request body", told, "have the proxy let POST through, with body and Content-Type as they came"
        )

    async def _authorization(self) -> Finding:
        check = "access token"
        with_token = await self._ask("POST", _LOOKUP, self._token, b"{}")
        without = await self._ask("POST", _LOOKUP, None, b"{}")
        for answer in (with_token, without):
            if not answer.is_error(401, "M_UNAUTHORIZED"):
                told = f"instead of this server something else judges it: {answer.told}"
                return failed(
                    check, told, "have the proxy ask for no log-in of its own below /_matrix/identity"
                )
        if with_token.body == without.body:
            told = "the header Authorization does not arrive, so that nobody is logged in"
            return failed(check, told, "have the proxy pass it on, and use no log-in of its own")
        return ok(check, "arrives, and is judged by this server")

    async def _large_body(self) -> Finding:
        told = size(self._size)
        remedy = "allow as much as [http] lookup_body_limit (nginx: client_max_body_size; Caddy: request_body max_size)"
        try:
            answer = await self._ask("POST", _LOOKUP, self._token, b" " * self._size)
        except NoAnswer as no:
            return failed("body limit", f"with a body of {told} there is no answer: {no.reason}", remedy)
        if not answer.is_error(401, "M_UNAUTHORIZED"):
            return failed("body limit", f"a body of {told} does not arrive: {answer.told}", remedy)
        return ok("body limit", f"look-ups of {told} arrive")

    async def _cors(self) -> Finding:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ", ".join(_NEEDED),
        }
        preflight = await self._ask("OPTIONS", _LOOKUP, asked)
        trouble = _preflight_trouble(preflight)
        answers = {
            "an answer": await self._ask("GET", "/v2"),
            "an error": await self._ask("POST", _LOOKUP, self._token, b"{}"),
            "the answer to OPTIONS": preflight,
        }
        troubles = [f"{what} {why}" for what, answer in answers.items() if (why := _origin_trouble(answer))]
        if trouble is not None or troubles:
            told = f"web clients cannot use this server: {trouble or troubles[0]}"
            return failed("CORS", told, _HEADERS)
        return ok("CORS", "the headers that web clients need are there, once each")


async def _found(check: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await look()
    except NoAnswer as no:
        return failed(check, f"no answer: {no.reason}", "look into the log of the proxy")


def _heard(answer: Answer) -> str:
    valid = (answer.json or {}).get("valid")
    return answer.told if valid is None else f"{'valid' if valid is True else 'not valid'}"


def _preflight_trouble(answer: Answer) -> str | None:
    if answer.status not in (200, 204):
        return f"OPTIONS is answered with {answer.told}"
    headers = _words(answer, "Access-Control-Allow-Headers")
    missing = [name for name in _NEEDED if name not in headers]
    if missing:
        return f"OPTIONS does not allow the header {missing[0]}"
    methods = _words(answer, "Access-Control-Allow-Methods")
    return None if {"post", "*"} & methods else "OPTIONS does not allow POST"


def _words(answer: Answer, name: str) -> set[str]:
    return {word.strip().lower() for value in answer.all(name) for word in value.split(",")}


def _origin_trouble(answer: Answer) -> str | None:
    name = "Access-Control-Allow-Origin"
    values = [value.strip() for each in answer.all(name) for value in each.split(",")]
    if not values:
        return f"has no {name}"
    if len(values) > 1:
        return f"has {name} {len(values)} times"
    return None if values[0] in ("*", ORIGIN) else f"has an {name} for others only"
