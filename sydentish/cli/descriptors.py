"""How many files the process may have open: sockets count as files."""

import resource
from contextlib import suppress

from sydentish.config import Config
from sydentish.parts.answering import OPERATORS_CONNECTIONS, PEERS_CONNECTIONS

# The database, the log, the listeners, name look-ups and what else comes and goes.
_OURS = 64
_LEAST_RESERVED = 256
_REGISTERING = 200


def raise_limit() -> int | None:
    """Raises the process's own limit as far as it may; how many files it may open then, or None for any number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a lower limit than they tell of
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


def bounded_connections(config: Config, limit: int | None) -> tuple[int | None, str | None]:
    """How many connections each public listener may hold, so that the rest of the server can still open what it needs.

    Args:
        config: what the operator has chosen.
        limit: how many files the process may open; None for any number.

    Returns:
        The number, None for any number; and a warning if it is not the one that was chosen.
    """
    wanted = config.http.max_connections
    listeners = len(config.http.listeners)
    if limit is None:
        return wanted, None
    reserved = _reserved(config)
    # Of very few, everybody gets half.
    bound = max(1, (limit - min(reserved, limit // 2)) // listeners)
    if wanted is not None and wanted <= bound:
        return wanted, None
    chosen = "any number of" if wanted is None else wanted
    remedy = "" if wanted is None else f" LimitNOFILE={wanted * listeners + reserved} for the service, or set"
    return bound, (
        f"the limit of {limit} open files does not allow for {chosen} connections ([http] max_connections) on each "
        f"public listener ({listeners}) and {reserved} files beside them: each holds {bound} connections at "
        f"most. Set{remedy} max_connections to {bound} or less"
    )


def _reserved(config: Config) -> int:
    # As many again may be asked for their keys.
    asked = 2 * (config.homeservers.max_registering or _REGISTERING)
    operators = OPERATORS_CONNECTIONS * (
        len(config.http.metrics_listeners) + len(config.http.internal_listeners)
    )
    peers = PEERS_CONNECTIONS * len(config.replication.listeners) + len(config.peers)
    calls = operators + peers + asked + config.onbind.max_in_flight + config.email.max_connections
    return max(_LEAST_RESERVED, _OURS + calls)
