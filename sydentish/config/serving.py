"""[http]: what is served, where, and to whom."""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

from dataclasses import dataclass

from sydentish.config import endpoints, network, values
from sydentish.config.declare import Secret, option, secret
from sydentish.config.network import V1_ENDPOINTS, V1_NEEDED, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """[http]: where the server listens, and what one request may cost."""

    listeners: tuple[str, ...] = option(
        values.lines(endpoints.listener, at_least=1),
        "tcp:8090:interface=127.0.0.1",
        "Where the public API is served: server endpoint strings of Twisted (kinds tcp, tcp6, unix, ssl), "
        "one on each line; a unix socket is for its owner and group unless it says otherwise: unix:PATH:mode=660; "
        "a socket that systemd has made is systemd:name=NAME, with its FileDescriptorName, or systemd:index=0.",
    )
    metrics_listeners: tuple[str, ...] = option(
        values.lines(endpoints.listener),
        "",
        "Where metrics are served, one endpoint string on each line; the public must not reach them.",
    )
    internal_listeners: tuple[str, ...] = option(
        values.lines(endpoints.internal_listener),
        "",
        "Where the internal API is served, one endpoint string on each line: unix sockets and loopback addresses "
        "only, also of systemd's sockets, for whoever reaches it may bind any address.",
    )
    internal_token: Secret | None = secret(
        "The bearer token that every request to the internal API must carry; without one, none is asked for.",
        values.bearer_token,
    )
    trusted_proxies: tuple[Source, ...] = option(
        values.items(network.source),
        "",
        "The reverse proxies whose X-Forwarded-For tells where a request comes from: addresses, networks, or the "
        "word unix for whoever connects to a unix socket.",
    )
    v1_endpoints: frozenset[str] = option(
        values.words(*V1_ENDPOINTS),
        ", ".join(V1_NEEDED),
        f"What is served of v1, the API before v2, which asks for no access token: some of "
        f"{', '.join(V1_ENDPOINTS)}; or all, or none.",
    )
    v1_trusted_networks: tuple[Source, ...] = option(
        values.items(network.source),
        "127.0.0.0/8, ::1",
        "Where the homeservers are that validate telephone numbers through v1 of this server, written as in "
        "trusted_proxies; they are exempt from the budgets per source, and for all others validate/msisdn and "
        "getValidated3pid are forbidden.",
    )
    access_token_in_query: bool = option(
        values.boolean,
        "yes",
        "Whether an access token is accepted in the query of a URL, as some homeservers still send it.",
    )
    body_limit: int | None = option(
        values.limit(values.size), "64K", "The largest body of a request, or off for any size."
    )
    lookup_body_limit: int | None = option(
        values.limit(values.size), "4M", "The largest body of a look-up, or off for any size."
    )
    internal_body_limit: int | None = option(
        values.limit(values.size),
        "64M",
        "The largest body of a bulk call of the internal API, or off for any size.",
    )
    header_limit: int = option(values.size, "16K", "The most that the headers of a request may add up to.")
    receive_timeout: int | None = option(
        values.limit(values.duration()), "30s", "How long a client may take to send one request, or off."
    )
    request_timeout: int | None = option(
        values.limit(values.duration()), "60s", "How long this server may take to answer one request, or off."
    )
    idle_timeout: int | None = option(
        values.limit(values.duration()), "60s", "How long a connection may rest between two requests, or off."
    )
    max_connections: int | None = option(
        values.limit(values.integer(1, 10_000_000)),
        "10000",
        "How many connections each public listener holds, or off.",
    )
    stop_timeout: int = option(
        values.duration(),
        "8s",
        "How long requests and transactions may take to finish when the server stops.",
    )
