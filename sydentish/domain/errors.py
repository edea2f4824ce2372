"""What can go wrong, in the words of the domain.

A rule, a transaction or an action raises one of these; `sydentish.web.errors` maps each class to an HTTP
status and a Matrix error code, in one table. The message is for the person who reads the answer: it names
the field and says what is right, and never repeats an address, token or secret.
"""


class IdentityError(Exception):
    """The root of everything that a caller is told about by name."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- the request ---------------------------------------------------------------------------------------


class NotJson(IdentityError):
    """The body is not JSON, or not UTF-8."""


class BadJson(IdentityError):
    """The body is JSON, but not an object."""


class MissingParams(IdentityError):
    """Required parameters are absent; the message names each of them."""


class InvalidParam(IdentityError):
    """A parameter is present but cannot be used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class TooLarge(IdentityError):
    """The body is larger than the endpoint accepts."""


class Unrecognized(IdentityError):
    """No such endpoint."""


class MethodNotAllowed(IdentityError):
    """The endpoint exists, but not for this method."""

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotFound(IdentityError):
    """The thing that the path names does not exist."""


# --- who is asking -------------------------------------------------------------------------------------


class MissingToken(IdentityError):
    """The endpoint needs an access token and got none."""


class UnknownToken(IdentityError):
    """The access token is not, or no longer, one of ours."""


class LogoutUnknownToken(IdentityError):
    """As `UnknownToken`, for logout, where the specification has an error code of its own."""


class TermsNotSigned(IdentityError):
    """The account has not accepted the current version of every policy."""


class NotYourUser(IdentityError):
    """The request is about another user than the one the access token belongs to."""


class Forbidden(IdentityError):
    """Understood, and refused."""


class OpenIdRefused(IdentityError):
    """The homeserver does not accept the OpenID token."""


# --- validation sessions -------------------------------------------------------------------------------


class NoValidSession(IdentityError):
    """There is no session with this sid and client secret (which of them is wrong is not told)."""


class SessionExpired(IdentityError):
    """The session was last changed too long ago."""


class SessionNotValidated(IdentityError):
    """The session exists, but its address was not validated."""


class TokenIncorrect(IdentityError):
    """The validation token is not one that was sent for this session."""


class UnbindProofFailed(IdentityError):
    """An unbind came with a proof that does not hold.

    It wraps what is wrong with the session, because an unbind answers 403 where other endpoints answer
    400 or 404: homeservers take those two to mean that unbinding is not supported at all.
    """

    def __init__(self, cause: IdentityError) -> None:
        super().__init__(cause.message)
        self.cause = cause


# --- addresses and messages ----------------------------------------------------------------------------


class InvalidEmail(IdentityError):
    """Not an e-mail address that a mail could be sent to."""


class EmailSendError(IdentityError):
    """The mail could not be handed over to the relay."""


class InvalidAddress(IdentityError):
    """Not a telephone number that a message could be sent to."""


class SendError(IdentityError):
    """The SMS could not be handed over to any gateway."""


class DestinationRejected(IdentityError):
    """This server sends nothing to numbers of that country."""


class UnrecognizedMedium(IdentityError):
    """The endpoint does not know what to do with addresses of this medium."""


# --- invitations ---------------------------------------------------------------------------------------


class ThreepidInUse(IdentityError):
    """The address is bound already: its user can be invited by name."""

    def __init__(self, mxid: str) -> None:
        super().__init__("This address is already bound to a Matrix user: invite that user")
        self.mxid = mxid


class InvitationNotWanted(IdentityError):
    """The operator's lists say that such an invitation is not passed on."""


class UnknownInvitation(IdentityError):
    """There is no invitation with this token, or it has expired."""


# --- homeservers that sign their requests --------------------------------------------------------------


class ProofRefused(IdentityError):
    """The signature of a homeserver is missing, malformed or wrong, or speaks for somebody else."""


class KeysUnavailable(IdentityError):
    """The keys of the homeserver cannot be had now, so that its signature cannot be checked."""

    def __init__(self, message: str, retry_after_ms: int = 10_000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


# --- peers ---------------------------------------------------------------------------------------------


class UnknownPeer(IdentityError):
    """The certificate is not that of a peer of this server."""


class VerificationFailed(IdentityError):
    """Some of the statements that a peer has pushed cannot be taken, so none of them was."""

    def __init__(self, message: str, failed_ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.failed_ids = failed_ids


# --- look-up -------------------------------------------------------------------------------------------


class InvalidPepper(IdentityError):
    """The pepper of a look-up is not, or no longer, valid; carries what the client needs to try again."""

    def __init__(self, algorithm: str, lookup_pepper: str) -> None:
        super().__init__(
            "Unknown or invalid pepper: it may have been rotated, ask hash_details for the new one"
        )
        self.algorithm = algorithm
        self.lookup_pepper = lookup_pepper


# --- others' trouble and our own -----------------------------------------------------------------------


class HomeserverError(IdentityError):
    """The homeserver cannot be found or reached, or its answer cannot be used."""


class HomeserverTimeout(IdentityError):
    """The homeserver did not answer in time."""


class LimitExceeded(IdentityError):
    """A budget is used up; which one, the operator is told and the caller is not."""

    def __init__(self, message: str, retry_after_ms: int, budget: str | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
        self.budget = budget


class Busy(IdentityError):
    """We cannot do this now, but soon: the database or a limit of ours is in the way."""

    def __init__(self, message: str, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
