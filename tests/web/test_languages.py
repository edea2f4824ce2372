"""What a person reads, as their browser says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.web.languages import languages


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"", ()),
        (b"de", ("de",)),
        (b"de-CH", ("de-CH",)),
        (b"de, en", ("de", "en")),
        (b"de,en;q=0.9,fr;q=0.95", ("de", "fr", "en")),
        (b"en;q=0.5, de", ("de", "en")),
        (b"en;q=0.5, de;q=0.5, fr;q=0.5", ("en", "de", "fr")),
        (b"de ; q=0.3 , en", ("en", "de")),
        (b"de;q=0, en", ("en",)),
        (b"de;q=0.000, en", ("en",)),
        (b"de;q=1.000, en;q=0.001", ("de", "en")),
        (b"EN;Q=0.5, de", ("de", "EN")),
        (b"*", ()),
        (b"*;q=0.5, de;q=0.1", ("de",)),
        (b"de;q=2, en", ("en",)),
        (b"de;q=0.1234, en", ("en",)),
        (b"de;q=x, en", ("en",)),
        (b"de;q=-1, en", ("en",)),
        (b"d, english, en", ("en",)),
        (b"../../etc/passwd, en", ("en",)),
        (b"de\xff, en", ("en",)),
        (b"zh-Hant-TW, zh;q=0.5", ("zh-Hant-TW", "zh")),
        (b"a b, ,,;q=1,en", ("en",)),
        (b"aa,bb,cc,dd,ee,ff,gg", ("aa", "bb", "cc", "dd", "ee")),
        (b"aa,bb,cc,dd,ee;q=0.1,ff,gg", ("aa", "bb", "cc", "dd", "ff")),
    ],
)
def test_the_best_comes_first(header, found):
    assert languages(header) == found


@given(st.binary(max_size=400))
def test_whatever_is_sent_is_a_few_plain_tags(header):
    found = languages(header)

    assert len(found) <= 5
    assert all(tag.isascii() and tag.replace("-", "").isalnum() and len(tag) <= 30 for tag in found)


@given(st.permutations(["aa", "bb", "cc", "dd"]))
def test_the_order_is_that_of_the_weights(tags):
    weighted = [f"{tag};q=0.{9 - number}" for number, tag in enumerate(tags)]

    assert languages(", ".join(sorted(weighted)).encode()) == tuple(tags)


def test_an_endless_header_costs_no_more_than_a_short_one():
    assert languages(b"de," + b"x" * 100_000) == ("de",)
