"""The clock of this machine, by those of others."""

from datetime import UTC, datetime

from twisted.web.http_headers import Headers

from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.replication.link import date_ms

_CHECK = "clock"
_WARN_MS = 5_000
_FAIL_MS = 60_000
# `Date` tells whole seconds: it was at any time within that one.
_SECOND_MS = 1000
_NTP = "set the clocks by NTP (timedatectl tells whether this machine does)"


class Clocks:
    """Gathers what the answers of others say of the time, and judges ours by it."""

    def __init__(self) -> None:
        self._ahead_ms: dict[str, int] = {}

    def note(self, who: str, headers: Headers, sent_ms: int, received_ms: int) -> None:
        """Takes the time from an answer.

        Args:
            who: has answered.
            headers: of the answer.
            sent_ms: when it was asked, by our clock, in ms.
            received_ms: when the answer was there.
        """
        theirs = date_ms(headers)
        if theirs is not None:
            # It was answered at some moment between the two.
            self._ahead_ms[who] = max(0, theirs - received_ms) + min(0, theirs + _SECOND_MS - sent_ms)

    def findings(self, now_ms: int) -> list[Finding]:
        """What is to be said of our clock.

        Args:
            now_ms: the time, in ms.
        """
        if not self._ahead_ms:
            here = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            remedy = "compare it with another clock, or name a homeserver with --homeserver"
            return [warning(_CHECK, f"nobody has told the time; here it is {here}", remedy)]
        return [_finding(who, ahead) for who, ahead in sorted(self._ahead_ms.items())]


def _finding(who: str, ahead_ms: int) -> Finding:
    if abs(ahead_ms) <= _WARN_MS:
        return ok(_CHECK, f"agrees with that of {who}")
    told = f"is {round(abs(ahead_ms) / 1000)} s {'behind' if ahead_ms > 0 else 'ahead of'} that of {who}"
    return (failed if abs(ahead_ms) > _FAIL_MS else warning)(_CHECK, told, _NTP)
