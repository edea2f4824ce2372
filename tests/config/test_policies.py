"""Policies: what the sections say, and what is wrong with them."""

import pytest

from sydentish.config import ini, policies
from sydentish.domain.terms import Policy, PolicyText, Terms


def read(text):
    return policies.read(ini.parse("f", text))


def problems(text):
    return [str(problem) for problem in read(text)[1]]


def test_policies_in_the_order_of_the_file():
    terms, wrong = read(
        "[policy terms]\nversion = 2.0\nen.name = Terms\nen.url = https://example.org/en\n"
        "[policy privacy]\nversion=1\nfr.name=Vie privée\nfr.url=https://example.org/p?l=fr\n"
        "[policy terms]\npt-BR.url = https://example.org/pt\npt-BR.name = Termos\n"
    )
    assert wrong == []
    assert terms == Terms(
        (
            Policy(
                "terms",
                "2.0",
                (
                    PolicyText("en", "Terms", "https://example.org/en"),
                    PolicyText("pt-BR", "Termos", "https://example.org/pt"),
                ),
            ),
            Policy("privacy", "1", (PolicyText("fr", "Vie privée", "https://example.org/p?l=fr"),)),
        )
    )


def test_no_policies():
    assert read("[general]\nserver_name = example.org\n") == (Terms(), [])


GOOD = "version=1\nen.name=a\nen.url=https://example.org/\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (f"[policy]\n{GOOD}", ["f:1: [policy]: must be [policy ID], the ID of letters, digits, _, - and ."]),
        (
            f"[policy a b]\n{GOOD}",
            ["f:1: [policy a b]: must be [policy ID], the ID of letters, digits, _, - and ."],
        ),
        (
            "[policy a]\n",
            [
                "f:1: [policy a] version: must be set, for example to 1.0",
                "f:1: [policy a]: must have name and url of at least one language, such as en.name and en.url",
            ],
        ),
        (f"[policy a]\n{GOOD}de.name=b\n", ["f:5: [policy a] de.name: needs de.url beside it"]),
        (f"[policy a]\n{GOOD}de.url=https://b/\n", ["f:5: [policy a] de.url: needs de.name beside it"]),
        (
            f"[policy a]\n{GOOD}de.name=\nde.url=ftp://b/\n",
            [
                "f:5: [policy a] de.name: must be one line of printable text",
                "f:6: [policy a] de.url: must be an absolute URL such as https://example.org/terms.html, without a user",
            ],
        ),
        (
            f"[policy a]\n{GOOD}name=x\n",
            ["f:5: [policy a] name: must be version, or name and url of a language, such as en.name"],
        ),
        (
            f"[policy a]\n{GOOD}version.name=x\n",
            ["f:5: [policy a] version.name: must be version, or name and url of a language, such as en.name"],
        ),
        (
            "[policy a]\nversion=\nen.name=a\nen.url=https://b/\n",
            ["f:2: [policy a] version: must be one line of printable text, such as 1.0"],
        ),
        (
            f"[policy a]\n{GOOD}[policy b]\n{GOOD}",
            ["f:8: [policy b] en.url: is already a URL of [policy a], in line 4"],
        ),
    ],
)
def test_what_is_wrong(text, wrong):
    assert problems(text) == wrong


def test_languages_of_one_policy_may_share_a_url():
    assert problems(f"[policy a]\n{GOOD}de.name=b\nde.url=https://example.org/\n") == []
