"""All public routes, with parameters that each accepts."""

from sydentish.config import V1_ENDPOINTS
from sydentish.web.route import Auth, Params
from sydentish.web.routes import public_routes, v1_routes

SECRET = "monkeys_are_GREAT"
SESSION = {"sid": "1234", "client_secret": SECRET}
PUBLIC_KEY = "VXuGitF39UH5iRfvbIknlvlAVKgD1BsLDMvBf0pmp7c"
ALICE = "@alice:hs.example.org"
THREEPID = {"medium": "email", "address": "alice@example.org"}
# What a homeserver signs with, as a stand-in for proofs takes it.
PROOF = 'X-Matrix origin="hs.example.org",key="ed25519:0",sig="c2ln",destination="id.example.org"'
SUBMITTED = {**SESSION, "token": "atoken"}

# What both versions have, below `v2/` and `api/v1/`.
_BOTH = {
    ("POST", "validate/email/requestToken"): {
        "client_secret": SECRET,
        "email": "alice@example.org",
        "send_attempt": 1,
    },
    ("POST", "validate/email/submitToken"): SUBMITTED,
    ("GET", "validate/email/submitToken"): SUBMITTED,
    ("POST", "validate/msisdn/requestToken"): {
        "client_secret": SECRET,
        "country": "GB",
        "phone_number": "07700900001",
        "send_attempt": 1,
    },
    ("POST", "validate/msisdn/submitToken"): SUBMITTED,
    ("GET", "validate/msisdn/submitToken"): SUBMITTED,
    ("GET", "3pid/getValidated3pid"): SESSION,
    ("POST", "3pid/bind"): {**SESSION, "mxid": ALICE},
    ("POST", "3pid/unbind"): {**SESSION, "mxid": ALICE, "threepid": THREEPID},
    ("POST", "store-invite"): {
        "medium": "email",
        "address": "bob@example.org",
        "room_id": "!room:hs.example.org",
        "sender": ALICE,
    },
    ("POST", "sign-ed25519"): {"mxid": ALICE, "token": "atoken", "private_key": PUBLIC_KEY},
    ("GET", "pubkey/isvalid"): {"public_key": PUBLIC_KEY},
    ("GET", "pubkey/ephemeral/isvalid"): {"public_key": PUBLIC_KEY},
}
SAMPLES = {
    ("POST", "v2/account/register"): {
        "access_token": "openid",
        "token_type": "Bearer",
        "matrix_server_name": "hs.example.org",
        "expires_in": 3600,
    },
    ("POST", "v2/terms"): {"user_accepts": ["https://example.org/terms-2.0-en.html"]},
    ("POST", "v2/lookup"): {"algorithm": "sha256", "pepper": "matrixrocks", "addresses": ["abc"]},
    ("POST", "pages/validate/email/submitToken"): SUBMITTED,
    ("GET", "api/v1/lookup"): THREEPID,
    ("POST", "api/v1/bulk_lookup"): {"threepids": [["email", "alice@example.org"]]},
    **{
        (method, start + path): sample
        for (method, path), sample in _BOTH.items()
        for start in ("v2/", "api/v1/")
    },
}
# What a model has, but may be left out.
OPTIONAL = {
    ("POST", "v2/3pid/unbind"): {"sid", "client_secret"},
    ("POST", "api/v1/3pid/unbind"): {"sid", "client_secret"},
}
# What needs no parameters, or has them in the path.
WITHOUT_PARAMS = {
    ("GET", "versions"),
    ("GET", "v2"),
    ("GET", "v2/account"),
    ("POST", "v2/account/logout"),
    ("GET", "v2/terms"),
    ("GET", "v2/hash_details"),
    ("HEAD", "v2/validate/email/submitToken"),
    ("HEAD", "v2/validate/msisdn/submitToken"),
    ("GET", "v2/pubkey/{key_id}"),
    ("GET", "api/v1"),
    ("HEAD", "api/v1/validate/email/submitToken"),
    ("HEAD", "api/v1/validate/msisdn/submitToken"),
    ("GET", "api/v1/pubkey/{key_id}"),
}


class Anything:
    """Has every attribute."""

    def __getattr__(self, name):
        return self


ROWS = public_routes(Anything(), V1_ENDPOINTS)
V1_ROWS = v1_routes(Anything())


def name(row):
    return f"{row.method} {row.path}"


def path(row):
    return row.path.replace("{key_id}", "ed25519:0")


def key(row):
    return row.method, row.path


def needs_token(row):
    return row.auth.needs_token


def needs_terms(row):
    return row.auth is Auth.TOKEN_AND_TERMS


def reads_body(row):
    return row.params is Params.BODY or (row.params is Params.ANYWHERE and row.method == "POST")


def may_read_body(row):
    return key(row) in SAMPLES and row.params in (Params.BODY, Params.ANYWHERE)


def required(row):
    return sorted(set(SAMPLES[key(row)]) - OPTIONAL.get(key(row), set()))


def request_of(row, params):
    """The arguments of `Client.ask` for a request with these parameters."""
    return {"params": params} if reads_body(row) else {"query": params}
