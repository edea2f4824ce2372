"""Terms of service: the policies offered, and which of them an account still has to accept."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One language of a policy: its code (ISO 639), the translated name, and where the text can be read."""

    language: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy in its current version, in all its languages."""

    policy_id: str
    version: str
    texts: tuple[PolicyText, ...]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accepting a URL means: that version of that policy, whatever the language."""

    policy_id: str
    version: str
    url: str


@dataclass(frozen=True, slots=True)
class Terms:
    """All policies that an account must accept before it may use the server; there may be none."""

    policies: tuple[Policy, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The answer of `GET /terms` (Identity Service API, "Terms of service")."""
        return {"policies": {policy.policy_id: _policy_json(policy) for policy in self.policies}}

    def acceptances(self, urls: Iterable[str]) -> list[Acceptance]:
        """What the URLs that a user accepts stand for; URLs of no current policy stand for nothing."""
        wanted = set(urls)
        return [
            Acceptance(policy.policy_id, policy.version, text.url)
            for policy in self.policies
            for text in policy.texts
            if text.url in wanted
        ]

    def all_accepted(self, accepted: Collection[tuple[str, str]]) -> bool:
        """Whether `accepted`, pairs of policy ID and version, holds the current version of every policy."""
        return all((policy.policy_id, policy.version) in accepted for policy in self.policies)


def _policy_json(policy: Policy) -> dict[str, object]:
    texts = {text.language: {"name": text.name, "url": text.url} for text in policy.texts}
    return {"version": policy.version, **texts}
