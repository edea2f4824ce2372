"""What an SMS says: one line, in the words of the brand and the language of who reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from senders.relays import templates_directory

from sydentish.senders.languages import TextFiles
from sydentish.senders.render import TemplateProblem, Templates

VALUES = {"code": "271828", "server_name": "id.example.org"}
# 3GPP TS 23.038 section 6.2.1: each of these takes one of the 160 places of an SMS.
GSM_7 = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
SHIPPED = {"": "Your code", "en": "Your code", "de": "Ihr Code", "fr": "Votre code"}


@pytest.fixture
def brands(tmp_path):
    """Makes templates with brands: `folder/file` -> text."""

    def make(files, default_brand="default"):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Templates(templates_directory(), tmp_path, default_brand)

    return make


def text(templates, *languages, brand=None, **values):
    return templates.text("sms", brand, languages, VALUES | values)


@pytest.mark.parametrize("language", SHIPPED)
def test_the_shipped_texts_fit_one_sms(language, templates):
    said = text(templates, language, server_name="identity.some-larger-organisation.example")
    assert said.startswith(SHIPPED[language])
    assert said.count("271828") == 1
    assert set(said) <= GSM_7
    assert len(said) <= 160


def test_every_shipped_text_is_looked_at_here():
    shipped = TextFiles(templates_directory() / "default").all("sms")
    assert sorted(shipped) == sorted(f"sms.{language}.txt".replace("..", ".") for language in SHIPPED)


def test_english_is_what_those_without_a_language_get(templates):
    """It has a file of its own, so that who reads English before German does not get German."""
    assert text(templates, "en") == text(templates)


@pytest.mark.parametrize(
    ("languages", "begins"),
    [
        ([], "Your code"),
        (["de"], "Ihr Code"),
        (["DE-at"], "Ihr Code"),
        (["de-Latn-AT-1901"], "Ihr Code"),
        (["fr", "de"], "Votre code"),
        (["it", "fr-CA", "de"], "Votre code"),
        (["en-GB", "de"], "Your code"),
        (["it", "ja"], "Your code"),
        (["*"], "Your code"),
        (["", "-", "../../etc/passwd", "\0", "de.txt", "d" * 10_000], "Your code"),
    ],
)
def test_the_best_language_that_there_is(languages, begins, templates):
    assert text(templates, *languages).startswith(begins)


@given(st.lists(st.text(max_size=12), max_size=4))
def test_whatever_is_asked_for_there_is_a_text(languages):
    templates = Templates(templates_directory())
    assert "271828" in text(templates, *languages)


def test_an_exact_tag_comes_before_its_language(brands):
    templates = brands({"acme/sms.de.txt": "DE {{ code }}", "acme/sms.de_AT.txt": "AT {{ code }}"})
    templates.check()
    assert text(templates, "de-AT", brand="acme") == "AT 271828"
    assert text(templates, "de-CH", brand="acme") == "DE 271828"
    assert text(templates, "de-CH", "de-AT", brand="acme") == "DE 271828"


def test_what_a_brand_says_comes_before_the_language(brands):
    templates = brands({"acme/sms.txt": "Acme {{ code }}"})
    templates.check()
    assert text(templates, "de", brand="acme") == "Acme 271828"
    assert text(templates, brand="acme") == "Acme 271828"
    assert text(templates, "de").startswith("Ihr Code")


def test_a_brand_with_one_language_has_the_shipped_others(brands):
    templates = brands({"acme/sms.de.txt": "Acme {{ code }}"})
    assert text(templates, "de", brand="acme") == "Acme 271828"
    assert text(templates, "fr", brand="acme").startswith("Votre code")
    assert text(templates, "en", "de", brand="acme").startswith("Acme")
    assert text(templates, "it", brand="acme").startswith("Your code")


def test_the_shipped_brand_can_be_replaced(brands):
    templates = brands(
        {"default/sms.txt": "Ours {{ code }}", "default/sms.fr.txt": "{% include 'sms.txt' %}!"}
    )
    assert text(templates, "de") == "Ours 271828"
    assert text(templates, "fr") == "Ours 271828!"


def test_the_default_brand_is_meant_where_there_is_no_such_brand(brands):
    templates = brands({"acme/sms.txt": "Acme {{ code }}"}, "acme")
    assert text(templates, brand="unknown") == "Acme 271828"
    assert text(templates, brand=None) == "Acme 271828"
    assert text(templates, "de", brand="default").startswith("Ihr Code")


def test_a_text_is_one_line_without_what_cannot_be_seen(brands):
    templates = brands({"acme/sms.txt": " \n\n A\tb \u202e\u2028{{ code }}\r\n\n{{ server_name }}\n\n"})
    assert text(templates, brand="acme", server_name="a\nb\0\u2066c") == "A b 271828 a bc"


def test_a_long_text_stays_whole(brands):
    templates = brands({"acme/sms.txt": "x" * 900 + " {{ code }}"})
    assert text(templates, brand="acme").endswith("x 271828")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("sms.txt", "{{ cod }}", "sms.txt:1: 'cod' is undefined"),
        ("sms.txt", "{{ code }} {{ address }}", "sms.txt:1: 'address' is undefined"),
        ("sms.de.txt", "{{ code }}\n{% if %}", "sms.de.txt:2: "),
        ("sms.pt-BR.txt", "Hello", "sms.pt-BR.txt: 'code' is not in it"),
        ("sms.txt", "", "sms.txt: 'code' is not in it"),
        ("sms.nb.txt", "{% include 'nothing' %}", "sms.nb.txt:1: nothing"),
    ],
)
def test_a_mistake_is_found_at_start(file, content, problem, brands):
    with pytest.raises(TemplateProblem) as found:
        brands({f"acme/{file}": content}).check()
    assert "brand 'acme': " in str(found.value)
    assert problem in str(found.value)
    assert len(found.value.problems) == 1


def test_a_text_that_is_not_utf_8_is_found_at_start(brands, tmp_path):
    templates = brands({"acme/other": ""})
    (tmp_path / "acme" / "sms.txt").write_bytes(b"\xff {{ code }}")
    with pytest.raises(TemplateProblem, match=r"sms\.txt"):
        templates.check()


def test_other_files_do_no_harm(brands):
    templates = brands(
        {"acme/sms.txt.bak": "{{", "acme/sms.a-language-of-the-far.txt": "{{", "acme/smsx.txt": "{{"}
    )
    templates.check()


def test_a_folder_that_is_gone_is_empty(tmp_path):
    files = TextFiles(tmp_path / "gone")
    assert files.all("sms") == ["sms.txt"]
    assert files.best("sms", ["de"]) == "sms.txt"
