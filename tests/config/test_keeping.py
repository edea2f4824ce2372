"""`[keeping]`: how long things are kept."""

DAY_MS = 24 * 3600 * 1000


def test_without_a_word_things_are_kept_as_long_as_they_are_of_use(loaded):
    keeping = loaded("").keeping
    assert (keeping.sessions, keeping.dead_letters) == (7 * DAY_MS, 30 * DAY_MS)
    assert (keeping.access_tokens, keeping.accounts) == (365 * DAY_MS, 365 * DAY_MS)


def test_what_does_no_harm_can_be_kept_for_ever(loaded):
    keeping = loaded("[keeping]\ndead_letters = off\naccess_tokens = off\naccounts = 0\n").keeping
    assert (keeping.dead_letters, keeping.access_tokens, keeping.accounts) == (None, None, None)


def test_sessions_that_have_expired_are_of_no_use_for_ever(problems):
    (problem,) = problems("[keeping]\nsessions = off\n")
    assert problem.startswith("5: [keeping] sessions: must be a duration")
