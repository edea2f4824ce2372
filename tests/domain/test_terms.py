import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.terms import Acceptance, Policy, PolicyText, Terms


def text(language, page):
    return PolicyText(language, f"Name in {language}", f"https://example.org/{page}-{language}.html")


PRIVACY = Policy("privacy_policy", "1.2", (text("en", "privacy"), text("fr", "privacy")))
SERVICE = Policy("terms_of_service", "2.0", (text("en", "terms"), text("de", "terms")))
TERMS = Terms((PRIVACY, SERVICE))
NEWER = Terms((Policy("privacy_policy", "1.3", PRIVACY.texts), SERVICE))

POLICIES = st.lists(
    st.builds(
        lambda number, version, languages: Policy(
            f"p{number}", version, tuple(text(language, f"p{number}-{version}") for language in languages)
        ),
        st.integers(0, 5),
        st.sampled_from(["1", "2", "3"]),
        st.lists(st.sampled_from(["en", "fr", "de"]), min_size=1, unique=True),
    ),
    max_size=5,
    unique_by=lambda policy: policy.policy_id,
)


def accepted(terms, urls):
    return {(each.policy_id, each.version) for each in terms.acceptances(urls)}


def test_the_answer_has_the_form_of_the_specification():
    assert TERMS.to_json() == {
        "policies": {
            "privacy_policy": {
                "version": "1.2",
                "en": {"name": "Name in en", "url": "https://example.org/privacy-en.html"},
                "fr": {"name": "Name in fr", "url": "https://example.org/privacy-fr.html"},
            },
            "terms_of_service": {
                "version": "2.0",
                "en": {"name": "Name in en", "url": "https://example.org/terms-en.html"},
                "de": {"name": "Name in de", "url": "https://example.org/terms-de.html"},
            },
        }
    }


def test_without_policies_the_answer_is_an_empty_object_and_everything_is_accepted():
    assert Terms().to_json() == {"policies": {}}
    assert Terms().all_accepted(set())
    assert Terms().acceptances(["https://example.org/privacy-en.html"]) == []


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_url_of_any_language_accepts_the_policy(language):
    url = f"https://example.org/privacy-{language}.html"
    assert TERMS.acceptances([url]) == [Acceptance("privacy_policy", "1.2", url)]


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["https://example.org/"],
        ["https://example.org/privacy-en.html/"],
        ["https://example.org/PRIVACY-en.html"],
        ["https://example.org/privacy-en.html?x", ""],
        ["privacy_policy"],
    ],
)
def test_urls_that_belong_to_no_policy_accept_nothing(urls):
    assert TERMS.acceptances(urls) == []


def test_naming_a_url_twice_accepts_it_once():
    url = "https://example.org/privacy-en.html"
    assert len(TERMS.acceptances([url, url])) == 1


def test_every_policy_must_be_accepted_each_in_a_language_of_choice():
    assert not TERMS.all_accepted(set())
    assert not TERMS.all_accepted(accepted(TERMS, ["https://example.org/privacy-en.html"]))
    assert not TERMS.all_accepted(
        accepted(TERMS, ["https://example.org/privacy-en.html", "https://example.org/privacy-fr.html"])
    )
    both = ["https://example.org/privacy-fr.html", "https://example.org/terms-de.html"]
    assert TERMS.all_accepted(accepted(TERMS, both))


def test_a_new_version_asks_again_and_the_old_acceptance_does_not_count():
    both = ["https://example.org/privacy-en.html", "https://example.org/terms-en.html"]
    given_before = accepted(TERMS, both)
    assert TERMS.all_accepted(given_before)
    assert not NEWER.all_accepted(given_before)
    assert NEWER.all_accepted(given_before | accepted(NEWER, both[:1]))


def test_the_version_of_another_policy_does_not_count():
    assert not TERMS.all_accepted({("privacy_policy", "2.0"), ("terms_of_service", "1.2")})


def test_a_policy_that_is_no_longer_offered_is_not_asked_for():
    assert Terms((SERVICE,)).all_accepted({("terms_of_service", "2.0")})


@given(POLICIES, st.data())
def test_one_url_of_each_policy_is_enough_and_one_policy_less_is_not(policies, data):
    terms = Terms(tuple(policies))
    urls = [data.draw(st.sampled_from(policy.texts)).url for policy in policies]
    assert terms.all_accepted(accepted(terms, urls))
    for missing in range(len(urls)):
        assert not terms.all_accepted(accepted(terms, urls[:missing] + urls[missing + 1 :]))
