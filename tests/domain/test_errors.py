import inspect

import pytest

from sydentish.domain import errors
from sydentish.domain.errors import (
    Busy,
    IdentityError,
    InvalidParam,
    InvalidPepper,
    KeysUnavailable,
    LimitExceeded,
    MethodNotAllowed,
    NoValidSession,
    SessionExpired,
    ThreepidInUse,
    UnbindProofFailed,
    VerificationFailed,
)

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, IdentityError) and each is not IdentityError
]
# What they need besides a message.
ARGUMENTS = {
    InvalidParam: ("email", "must be a string"),
    MethodNotAllowed: ("GET is not allowed here", ("POST",)),
    ThreepidInUse: ("@alice:hs.example.org",),
    UnbindProofFailed: (SessionExpired("This session has expired"),),
    InvalidPepper: ("sha256", "matrixrocks"),
    LimitExceeded: ("Too many of them", 60_000),
    VerificationFailed: ("Nothing was taken", ("17",)),
}


def make(each):
    return each(*ARGUMENTS.get(each, ("What went wrong",)))


def test_there_are_errors():
    assert len(CLASSES) > 20


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_says_what_it_means(each):
    own = each.__dict__.get("__doc__")
    assert own
    assert own.strip().endswith("."), "a sentence"


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_is_made_with_a_message_for_people(each):
    error = make(each)
    assert error.message
    assert str(error) == error.message
    assert error.args == (error.message,)


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_can_be_caught_as_the_root_and_is_no_other_error(each):
    assert each.__bases__ == (IdentityError,), "the table of statuses looks at the exact class"
    with pytest.raises(IdentityError) as caught:
        raise make(each)
    assert type(caught.value) is each


def test_an_invalid_parameter_is_named_before_its_problem():
    error = InvalidParam("send_attempt", "must be a whole number")
    assert (error.name, error.problem) == ("send_attempt", "must be a whole number")
    assert error.message == "send_attempt: must be a whole number"


def test_a_refused_pepper_carries_what_the_client_needs_and_says_how_to_go_on():
    error = InvalidPepper("sha256", "matrixrocks")
    assert (error.algorithm, error.lookup_pepper) == ("sha256", "matrixrocks")
    assert "hash_details" in error.message


def test_a_refused_method_knows_the_allowed_ones():
    assert MethodNotAllowed("GET is not allowed here", ("POST", "OPTIONS")).allowed == ("POST", "OPTIONS")


def test_being_busy_is_over_in_a_second_unless_said_otherwise():
    assert Busy("The database is busy").retry_after_ms == 1000
    assert Busy("The database is busy", 2500).retry_after_ms == 2500


def test_keys_that_cannot_be_had_are_asked_for_again_in_ten_seconds_unless_said_otherwise():
    assert KeysUnavailable("The keys cannot be fetched now").retry_after_ms == 10_000
    assert KeysUnavailable("The keys cannot be fetched now", 500).retry_after_ms == 500


def test_a_used_up_budget_says_when_to_come_again():
    assert LimitExceeded("Too many of them", 60_000).retry_after_ms == 60_000


def test_an_address_in_use_tells_whose_it_is_beside_its_message_only():
    error = ThreepidInUse("@alice:hs.example.org")
    assert error.mxid == "@alice:hs.example.org"
    assert "alice" not in error.message


def test_a_failed_proof_keeps_its_cause_and_speaks_with_its_words():
    cause = NoValidSession("No valid session")
    error = UnbindProofFailed(cause)
    assert error.cause is cause
    assert error.message == cause.message
