"""What is different between two configurations."""

import dataclasses

from sydentish.config.compare import differing, with_options
from sydentish.config.declare import declarations
from sydentish.config.model import sections

POLICY = "[policy privacy]\nversion = 1\nen.name = Privacy\nen.url = https://example.org/privacy\n"


def test_a_file_that_is_read_twice_says_the_same(loaded):
    text = (
        "[email]\nsmtp_username = me\nsmtp_password = x\n[http]\nv1_trusted_networks = 10.0.0.0/8, unix\n"
        + POLICY
    )
    assert differing(loaded(text), loaded(text)) == []


def test_what_differs_is_named(loaded):
    before = loaded("[http]\nlisteners = tcp:1\n[email]\nsmtp_username = me\nsmtp_password = x\n" + POLICY)
    after = loaded(
        "[http]\nlisteners = tcp:2\n[log]\nlevel = debug\n[email]\nsmtp_username = me\nsmtp_password = y\n"
    )

    assert differing(before, after) == [
        ("http", "listeners"),
        ("email", "smtp_password"),
        ("log", "level"),
        ("policy privacy", None),
    ]


def test_options_can_be_taken_from_another(loaded):
    before, after = (
        loaded("[log]\nlevel = error\nformat = text\n"),
        loaded("[log]\nlevel = debug\nformat = json\n"),
    )
    taken = with_options(before, after, [("log", "level")])
    assert (taken.log.level, taken.log.format) == ("debug", "text")
    assert differing(taken, after) == [("log", "format")]
    assert before.log.level == "error"


def test_every_option_is_looked_at(loaded):
    """Each, changed alone, is told of as that option."""
    config = loaded("")
    for section, section_type in sections():
        for field, declaration in declarations(section_type):
            changed = dataclasses.replace(
                config, **{section: dataclasses.replace(getattr(config, section), **{field: object()})}
            )
            assert differing(config, changed) == [(section, declaration.key or field)]
