"""What is counted when it happens."""

from sydentish.metrics.declare import Declarer

MEDIA = ("email", "msisdn")
ALGORITHMS = ("sha256", "none")
KINDS = ("onbind", "invite")
PURGED = (
    *("sessions", "access_tokens", "accounts", "invitations", "ephemeral_keys"),
    *("budgets", "dead_letters", "destinations"),
)
PUSHES = (
    *("accepted", "empty", "parked", "unreachable", "certificate", "timeout"),
    *("unknown_peer", "refused", "too_large", "status", "answer"),
)
SENDS = ("sent", "refused", "failed", "timeout")
SOURCES = ("api", "internal", "peer")
VALIDATIONS = (
    *("sent", "repeated", "not_sent", "refused"),
    *("validated", "wrong_token", "expired", "no_session", "limited"),
)


class Events:
    """Counters and times of what the server does; each is told of it where it does it."""

    def __init__(self, declare: Declarer) -> None:
        self.requests = declare.counter(
            "sydentish_http_requests", "Requests that were answered.", method=None, route=None, status=None
        )
        self.request_seconds = declare.histogram(
            "sydentish_http_request_duration_seconds", "From a request's headers to its answer.", route=None
        )
        self.budget_refusals = declare.counter(
            "sydentish_budget_refusals",
            "Requests refused because a budget was used up, by budget.",
            budget=None,
        )
        self._declare_deeds(declare)
        self._declare_deliveries(declare)
        self._declare_replication(declare)

    def _declare_deeds(self, declare: Declarer) -> None:
        self.registrations = declare.counter(
            "sydentish_registrations", "Access tokens that were given to users."
        )
        self.validations = declare.counter(
            "sydentish_validations",
            "What became of requests for a message with a token, and of tokens that came back.",
            # Of a session that there is not, nobody knows the medium.
            medium=(*MEDIA, "unknown"),
            outcome=VALIDATIONS,
        )
        self.bindings_made = declare.counter(
            "sydentish_bindings_made",
            "Addresses that were bound, by who said so.",
            medium=MEDIA,
            source=SOURCES,
        )
        self.bindings_removed = declare.counter(
            "sydentish_bindings_removed",
            "Addresses that were unbound, by who said so.",
            medium=MEDIA,
            source=SOURCES,
        )
        self.lookup_asked = declare.counter(
            "sydentish_lookup_addresses_asked", "Addresses that were looked up.", algorithm=ALGORITHMS
        )
        self.lookup_found = declare.counter(
            "sydentish_lookup_addresses_found", "Those of them that are bound.", algorithm=ALGORITHMS
        )
        self.invitations = declare.counter("sydentish_invitations_stored", "Invitations that were kept.")
        self.invite_policy = declare.counter(
            "sydentish_invite_policy",
            "Invitations that the policy does not want, by what it found, and whether they were refused.",
            reason=("room", "homeserver", "word"),
            outcome=("refused", "counted"),
        )

    def _declare_deliveries(self, declare: Declarer) -> None:
        self.sends = declare.counter(
            "sydentish_sends",
            "Messages to people: the channel, who was to take them, and how the hand-over ended.",
            channel=("email", "sms"),
            provider=None,
            outcome=SENDS,
        )
        self.deliveries = declare.counter(
            "sydentish_outbox_deliveries",
            "Tries to deliver a row of the outbox, by how they ended.",
            kind=KINDS,
            outcome=("delivered", "retry", "dead"),
        )
        self.purged_rows = declare.counter(
            "sydentish_purged_rows",
            "Rows that were deleted because they had been kept long enough, by what they were.",
            what=PURGED,
        )

    def _declare_replication(self, declare: Declarer) -> None:
        self.replication_pushes = declare.counter(
            "sydentish_replication_pushes", "Pushes to peers by how they ended.", peer=None, outcome=PUSHES
        )
        self.replication_push_seconds = declare.histogram(
            "sydentish_replication_push_duration_seconds",
            "How long a push of statements took that a peer has accepted.",
            peer=None,
        )
        self.replication_received = declare.counter(
            "sydentish_replication_received_statements",
            "Statements that peers have pushed here: new, known (or outdated), unusable, or refused.",
            peer=None,
            outcome=("new", "known", "unusable", "refused"),
        )
