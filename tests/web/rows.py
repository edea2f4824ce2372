"""All public routes, with parameters that each accepts."""

from sydentish.web.route import Auth, Source
from sydentish.web.routes import public_routes

SECRET = "monkeys_are_GREAT"
SESSION = {"sid": "1234", "client_secret": SECRET}
PUBLIC_KEY = "VXuGitF39UH5iRfvbIknlvlAVKgD1BsLDMvBf0pmp7c"

SAMPLES = {
    ("POST", "v2/account/register"): {
        "access_token": "openid",
        "token_type": "Bearer",
        "matrix_server_name": "hs.example.org",
        "expires_in": 3600,
    },
    ("POST", "v2/terms"): {"user_accepts": ["https://example.org/terms-2.0-en.html"]},
    ("POST", "v2/lookup"): {"algorithm": "sha256", "pepper": "matrixrocks", "addresses": ["abc"]},
    ("POST", "v2/validate/email/requestToken"): {
        "client_secret": SECRET,
        "email": "alice@example.org",
        "send_attempt": 1,
    },
    ("POST", "v2/validate/email/submitToken"): {**SESSION, "token": "atoken"},
    ("GET", "v2/validate/email/submitToken"): {**SESSION, "token": "atoken"},
    ("POST", "pages/validate/email/submitToken"): {**SESSION, "token": "atoken"},
    ("GET", "v2/3pid/getValidated3pid"): SESSION,
    ("POST", "v2/3pid/bind"): {**SESSION, "mxid": "@alice:hs.example.org"},
    ("POST", "v2/3pid/unbind"): {
        **SESSION,
        "mxid": "@alice:hs.example.org",
        "threepid": {"medium": "email", "address": "alice@example.org"},
    },
    ("GET", "v2/pubkey/isvalid"): {"public_key": PUBLIC_KEY},
    ("GET", "v2/pubkey/ephemeral/isvalid"): {"public_key": PUBLIC_KEY},
}
# What a model has, but may be left out.
OPTIONAL = {("POST", "v2/3pid/unbind"): {"sid", "client_secret"}}
FORM_ROWS = [
    ("POST", "v2/validate/email/requestToken"),
    ("POST", "v2/validate/email/submitToken"),
    ("POST", "v2/3pid/bind"),
]
# What needs no parameters, or has them in the path.
WITHOUT_PARAMS = {
    ("GET", "versions"),
    ("GET", "v2"),
    ("GET", "v2/account"),
    ("POST", "v2/account/logout"),
    ("GET", "v2/terms"),
    ("GET", "v2/hash_details"),
    ("HEAD", "v2/validate/email/submitToken"),
    ("GET", "v2/pubkey/{key_id}"),
}


class Anything:
    """Has every attribute."""

    def __getattr__(self, name):
        return self


ROWS = public_routes(Anything())


def name(row):
    return f"{row.method} {row.path}"


def path(row):
    return row.path.replace("{key_id}", "ed25519:0")


def key(row):
    return row.method, row.path


def needs_token(row):
    return row.auth is not Auth.NONE


def needs_terms(row):
    return row.auth is Auth.TOKEN_AND_TERMS


def reads_body(row):
    return row.source is Source.BODY


def required(row):
    return sorted(set(SAMPLES[key(row)]) - OPTIONAL.get(key(row), set()))


def request_of(row, params):
    """The arguments of `Client.ask` for a request with these parameters."""
    return {"params": params} if reads_body(row) else {"query": params}
