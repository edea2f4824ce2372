"""The one table from domain errors to HTTP statuses and Matrix error codes."""

import math
from collections.abc import Iterator

from sydentish.domain import errors
from sydentish.domain.errors import IdentityError
from sydentish.web.reply import Headers, Reply, json_reply

# 403 and not 400 or 404 for an unbind: homeservers take those for "cannot unbind at all".
STATUS_AND_ERRCODE: dict[type[IdentityError], tuple[int, str]] = {
    errors.NotJson: (400, "M_NOT_JSON"),
    errors.BadJson: (400, "M_BAD_JSON"),
    errors.MissingParams: (400, "M_MISSING_PARAMS"),
    errors.InvalidParam: (400, "M_INVALID_PARAM"),
    errors.TooLarge: (413, "M_TOO_LARGE"),
    errors.Unrecognized: (404, "M_UNRECOGNIZED"),
    errors.MethodNotAllowed: (405, "M_UNRECOGNIZED"),
    errors.NotFound: (404, "M_NOT_FOUND"),
    errors.MissingToken: (401, "M_UNAUTHORIZED"),
    errors.UnknownToken: (401, "M_UNAUTHORIZED"),
    errors.LogoutUnknownToken: (401, "M_UNKNOWN_TOKEN"),
    errors.TermsNotSigned: (403, "M_TERMS_NOT_SIGNED"),
    errors.NotYourUser: (403, "M_UNAUTHORIZED"),
    errors.Forbidden: (403, "M_FORBIDDEN"),
    errors.OpenIdRefused: (401, "M_UNAUTHORIZED"),
    errors.NoValidSession: (404, "M_NO_VALID_SESSION"),
    errors.SessionExpired: (400, "M_SESSION_EXPIRED"),
    errors.SessionNotValidated: (400, "M_SESSION_NOT_VALIDATED"),
    errors.TokenIncorrect: (400, "M_TOKEN_INCORRECT"),
    errors.UnbindProofFailed: (403, "M_FORBIDDEN"),
    errors.InvalidEmail: (400, "M_INVALID_EMAIL"),
    errors.EmailSendError: (400, "M_EMAIL_SEND_ERROR"),
    errors.InvalidAddress: (400, "M_INVALID_ADDRESS"),
    errors.SendError: (400, "M_SEND_ERROR"),
    errors.DestinationRejected: (400, "M_DESTINATION_REJECTED"),
    errors.UnrecognizedMedium: (400, "M_UNRECOGNIZED"),
    errors.ThreepidInUse: (400, "M_THREEPID_IN_USE"),
    errors.InvitationNotWanted: (403, "M_FORBIDDEN"),
    errors.UnknownInvitation: (404, "M_UNRECOGNIZED"),
    errors.ProofRefused: (403, "M_FORBIDDEN"),
    errors.KeysUnavailable: (503, "M_UNKNOWN"),
    errors.UnknownPeer: (403, "M_UNKNOWN_PEER"),
    errors.VerificationFailed: (400, "M_VERIFICATION_FAILED"),
    errors.InvalidPepper: (400, "M_INVALID_PEPPER"),
    errors.HomeserverError: (502, "M_UNKNOWN"),
    errors.HomeserverTimeout: (504, "M_UNKNOWN"),
    errors.LimitExceeded: (429, "M_LIMIT_EXCEEDED"),
    errors.Busy: (503, "M_UNKNOWN"),
}
# They say when it is worth while to try again.
_TRY_LATER = (errors.LimitExceeded, errors.KeysUnavailable, errors.Busy)


def status_of(error: IdentityError) -> int:
    """The HTTP status of an error."""
    return STATUS_AND_ERRCODE[type(error)][0]


def errcode_of(error: IdentityError) -> str:
    """The Matrix error code; a failed proof has that of what is wrong with it."""
    if isinstance(error, errors.UnbindProofFailed):
        return errcode_of(error.cause)
    return STATUS_AND_ERRCODE[type(error)][1]


def error_reply(error: IdentityError) -> Reply:
    """The answer that tells of an error."""
    return json_reply(error_body(error), status=status_of(error), headers=error_headers(error))


def error_body(error: IdentityError) -> dict[str, object]:
    """The JSON object that tells of an error."""
    return {"errcode": errcode_of(error), "error": error.message, **dict(_fields(error))}


def internal_error_reply(request_id: str) -> Reply:
    """The answer to what should not have happened; the rest stands in the log, under the request's ID."""
    error = f"Internal server error; the server's log knows more about request {request_id}"
    return json_reply({"errcode": "M_UNKNOWN", "error": error}, status=500)


def error_headers(error: IdentityError) -> Headers:
    """The headers that an error adds to its answer."""
    if isinstance(error, _TRY_LATER):
        return ((b"Retry-After", str(math.ceil(error.retry_after_ms / 1000)).encode()),)
    if isinstance(error, errors.MethodNotAllowed):
        return ((b"Allow", ", ".join(error.allowed).encode()),)
    return ()


def _fields(error: IdentityError) -> Iterator[tuple[str, object]]:
    if isinstance(error, errors.InvalidPepper):
        yield "algorithm", error.algorithm
        yield "lookup_pepper", error.lookup_pepper
    if isinstance(error, errors.ThreepidInUse):
        yield "mxid", error.mxid
    if isinstance(error, errors.VerificationFailed):
        yield "failed_ids", list(error.failed_ids)
    if isinstance(error, _TRY_LATER):
        yield "retry_after_ms", error.retry_after_ms
