"""Where the access token of a request stands."""

from collections.abc import Mapping


def access_token(authorization: bytes | None, query: Mapping[str, str], *, allow_query: bool) -> str | None:
    """The access token of a request, or None.

    The header wins over the query. The specification has dropped the query parameter, but today's homeserver
    still sends it with `hash_details`.

    Args:
        authorization: the `Authorization` header.
        query: the parameters of the query.
        allow_query: whether the query counts.
    """
    scheme, _, token = (authorization or b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip().decode("utf-8", "replace")
    if allow_query and not authorization:
        return query.get("access_token") or None
    return None
