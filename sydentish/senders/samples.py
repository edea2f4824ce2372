"""Every template there is, and values to try it out with at start."""

from collections.abc import Mapping

_LINK = "https://identity.example.org/validate?sid=sample&token=sample"

# Those of the mails, by the name of the mail.
MAILS: Mapping[str, Mapping[str, str]] = {
    "verification": {"address": "alice@example.org", "link": _LINK, "server_name": "identity.example.org"},
    "invite": {
        "address": "alice@example.org",
        "link": _LINK,
        "server_name": "identity.example.org",
        "sender": "@bob:example.org",
        "sender_display_name": "Bob",
        "bracketed_verified_sender": "(@bob:example.org)",
        "room_name": "Sample room",
        "room_alias": "#sample",
        "bracketed_room_name": "(Sample room)",
        "room_type": "",
        "room_join_rules": "invite",
        "room_avatar_url": "mxc://example.org/room",
        "sender_avatar_url": "mxc://example.org/bob",
    },
}

# Those of the pages, by file name; each is tried out with all of its samples.
PAGES: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "verify_response.html": (
        {"outcome": "validated", "medium": "email", "server_name": "identity.example.org"},
        {"outcome": "validated", "medium": "msisdn", "server_name": "identity.example.org"},
        {
            "outcome": "failed",
            "medium": "email",
            "server_name": "identity.example.org",
            "message": "The link is too old.",
        },
        {
            "outcome": "confirm",
            "medium": "email",
            "server_name": "identity.example.org",
            "action": _LINK,
            "sid": "sample",
            "client_secret": "sample",
            "token": "sample",
        },
    ),
}

# Those of the short messages, by the name of the message.
TEXTS: Mapping[str, Mapping[str, str]] = {
    "sms": {"code": "123456", "server_name": "identity.example.org"},
}
