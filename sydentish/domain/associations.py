"""Associations: the signed statement that an address belongs to a Matrix user."""

from dataclasses import dataclass

from sydentish.domain.threepids import Threepid


@dataclass(frozen=True, slots=True)
class Association:
    """One address, one Matrix user (Identity Service API, "Establishing associations").

    Attributes:
        threepid: the address, normalised.
        mxid: the Matrix user.
        ts: when the statement was made, in ms.
        not_before: from when it is valid, in ms.
        not_after: until when it is valid, in ms.
        origin_server: the identity server that made the statement.
        origin_id: its number among the statements of that server.
    """

    threepid: Threepid
    mxid: str
    ts: int
    not_before: int
    not_after: int
    origin_server: str
    origin_id: int

    def to_json(self) -> dict[str, object]:
        """What is signed and given out."""
        return {
            "medium": self.threepid.medium,
            "address": self.threepid.address,
            "mxid": self.mxid,
            "ts": self.ts,
            "not_before": self.not_before,
            "not_after": self.not_after,
        }


def statement_ts(now_ms: int, newest_known_ts: int | None) -> int:
    """The time of a new statement about an address: now, but always after the newest one that is known.

    So a slow clock cannot lose a statement that was answered with 200: the newest statement wins everywhere.
    """
    return now_ms if newest_known_ts is None else max(now_ms, newest_known_ts + 1)


def onbind_body(association: Association, invite: dict[str, object] | None = None) -> dict[str, object]:
    """What a homeserver is told about a bind, before signing (Server-Server API, `3pid/onbind`).

    Args:
        association: what was bound.
        invite: one invitation that has waited for it. Never several: a homeserver that refuses one of them would
            refuse the others with it.
    """
    return {**association.to_json(), "invites": [] if invite is None else [invite]}
