"""Somebody with a Matrix client, who asks the daemon; what goes over the wire is shown."""

import json
from typing import Any
from urllib.parse import urlsplit

import treq
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import SignatureVerifyException, verify_signed_json
from unpaddedbase64 import decode_base64

from demonstration.daemon import BASE
from demonstration.showing import Failed, check, pretty, show
from demonstration.surroundings import SECONDS


class Client:
    """Asks as a Matrix client would.

    Attributes:
        base_url: where the daemon is.
        name: the local part of the user ID.
        address: the person's e-mail address, as the person writes it.
        normalised: the same as servers store it.
        openid_token: what the person's homeserver knows the person by.
        mxid: the user ID, once the daemon has been told of it.
        token: the access token, once there is one.
    """

    def __init__(self, base_url: str, name: str, address: str, *, brief: bool = False) -> None:
        """Asks nothing yet; if it is brief, it shows one line for each request."""
        self.name = name
        self.address = address
        self.normalised = address.lower()
        self.openid_token = f"openid-token-of-{name}"
        self.mxid = ""
        self.token: str | None = None
        self.base_url = base_url
        self._brief = brief
        self._keys: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """A request with its answer, which must be a 200."""
        status, answer = await self.try_to(method, path, body)
        if status != 200:  # noqa: PLR2004
            raise Failed(f"{method} {path} was answered with {status}: {answer}")
        return answer

    async def try_to(
        self, method: str, path: str, body: object = None, *, authorization: str | None = None
    ) -> tuple[int, Any]:
        """A request with its answer, whatever the status; `authorization` is shown, and takes the token's place."""
        if not self._brief:
            show("→", f"{method} {BASE}{path}")
            show("→", f"Authorization: {authorization}" if authorization else "")
            show("→", pretty(body) if body is not None else "")
        headers = {"Authorization": authorization or f"Bearer {self.token}"}
        response = await treq.request(
            method,
            f"{self.base_url}{BASE}{path}",
            headers=headers if authorization or self.token else {},
            data=json.dumps(body).encode() if body is not None else None,
            timeout=SECONDS,
        )
        answer = await response.json()
        if self._brief:
            show("→", f"{method} {BASE}{path.partition('?')[0]}  ←  {response.code}")
        else:
            show("←", f"{response.code} {pretty(answer)}")
        return response.code, answer

    async def browse(self, link: str) -> tuple[int, str]:
        """Opens a link as a browser does; returns the status and the page."""
        if not self._brief:
            show("→", f"GET {link}")
        response = await treq.get(link, timeout=SECONDS, allow_redirects=False)
        page = await response.text()
        if self._brief:
            show("→", f"GET {urlsplit(link).path}  ←  {response.code}")
        else:
            (content_type,) = response.headers.getRawHeaders("content-type")
            show("←", f"{response.code} {content_type}, {len(page)} characters")
        return response.code, page

    async def key(self, key_id: str) -> str:
        """A public key that the daemon publishes; it is asked for once."""
        if key_id not in self._keys:
            self._keys[key_id] = (await self.ask("GET", f"/v2/pubkey/{key_id}"))["public_key"]
        return self._keys[key_id]

    async def check_signature(self, what: str, signed: Any) -> None:  # noqa: ANN401 - JSON
        """Checks the only signature of `signed` with the key that the daemon publishes."""
        ((server_name, signatures),) = signed["signatures"].items()
        (key_id,) = signatures
        key = decode_verify_key_bytes(key_id, decode_base64(await self.key(key_id)))
        try:
            verify_signed_json(signed, server_name, key)
            holds = True
        except SignatureVerifyException:
            holds = False
        check(f"{what} is signed by {server_name} with the key from pubkey/{key_id}", holds=holds)
