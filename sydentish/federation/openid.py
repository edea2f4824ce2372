"""Whom an OpenID token belongs to: `GET /_matrix/federation/v1/openid/userinfo` (Server-Server API)."""

from sydentish.domain.errors import HomeserverError, OpenIdRefused
from sydentish.domain.ids import parse_server_name, server_name_of
from sydentish.federation.client import Answer, HomeserverClient

_USERINFO = "/_matrix/federation/v1/openid/userinfo"
_OK = 200
_REFUSALS = (401, 403)


class OpenId:
    """Asks homeservers about OpenID tokens; an `OpenIdVerifier`."""

    def __init__(self, client: HomeserverClient) -> None:
        self._client = client

    async def user_id_of(self, server_name: str, access_token: str) -> str:
        """The user ID that the homeserver names, which is one of its own.

        Raises:
            OpenIdRefused: the homeserver does not accept the token.
            HomeserverError: it cannot be found, reached or understood.
            HomeserverTimeout: it did not answer in time.
        """
        answer = await self._client.request("GET", server_name, _USERINFO, {"access_token": access_token})
        if _refused(answer):
            raise OpenIdRefused("access_token: the homeserver does not accept this OpenID token")
        if answer.status != _OK:
            raise HomeserverError(f"The homeserver answered with HTTP {answer.status} to an OpenID token")
        return _own_user(answer, server_name)


def _refused(answer: Answer) -> bool:
    is_client_error = 400 <= answer.status < 500  # noqa: PLR2004 - RFC 9110 section 15.5
    return answer.status in _REFUSALS or (is_client_error and answer.errcode == "M_UNKNOWN_TOKEN")


def _own_user(answer: Answer, server_name: str) -> str:
    user_id = None if answer.body is None else answer.body.get("sub")
    if not isinstance(user_id, str):
        raise HomeserverError("The homeserver did not name a user: sub must be a user ID")
    try:
        # The whole name is compared: a suffix would let evil-example.org speak for example.org.
        is_own = parse_server_name(server_name_of(user_id)) == parse_server_name(server_name)
    except ValueError:
        raise HomeserverError("The homeserver named a user whose ID is not well-formed") from None
    if not is_own:
        raise HomeserverError("The homeserver named a user of another homeserver")
    return user_id
