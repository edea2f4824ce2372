"""How one parameter is read."""

import pytest

from sydentish.web.models import InviteToSign, PublicKey
from sydentish.web.readers import parse


@pytest.mark.parametrize(
    ("model", "others", "name"),
    [
        (PublicKey, {}, "public_key"),
        (InviteToSign, {"mxid": "@alice:example.org", "token": "a b"}, "private_key"),
    ],
)
def test_a_plus_of_base64_that_became_a_blank_is_one_again(model, others, name):
    for written in ("a b+c/d", "a+b+c/d"):
        assert getattr(parse(model, others | {name: written}), name) == "a+b+c/d"
