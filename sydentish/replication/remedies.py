"""What an operator can do about what goes wrong with a peer."""

_URL = "check its URL: is that the port of its replication listener?"
_THERE = "look into the log there"
# What the reason has in it, and what helps; the first that fits. The reasons are those of `tls` and `troubles`.
_BY_REASON = (
    ("not accept our certificate: it has expired", "renew our certificate, and restart the server"),
    (
        "not accept our certificate: it is not one for clients",
        "get a certificate that is also one for clients",
    ),
    (
        "not accept our certificate: it is not from an authority",
        "its operator must trust the authority of our certificate: send them its certificate",
    ),
    ("not accept our certificate", "its operator must trust our certificate; look into the log there"),
    (
        "certificate is for",
        (
            "is that its server name, and its URL? Else its operator must use another one, or, if it is certainly the "
            "peer, change its certificate names here"
        ),
    ),
    (
        "not from an authority that is trusted here",
        (
            "is that its replication listener, with no proxy in between? Then add its authority to the file of "
            "[replication] ca_file, and restart the server"
        ),
    ),
    ("has expired", "its operator must renew it"),
    ("is not valid yet", "compare the clocks, here and there"),
    ("is not one for servers", "its operator must use a certificate that is also one for servers"),
    ("does not speak TLS", _URL),
    ("cannot be resolved", "check its URL, and that its name has an address"),
)
_BY_KIND = {
    "unreachable": "check its URL, that it runs, and the firewalls here and there",
    "timeout": "check its URL (the port must be that of its replication listener), that it runs, and the firewalls",
    "certificate": _THERE,
}


def remedy(kind: str, reason: str) -> str:
    """What to do about a failure.

    Args:
        kind: what kind of failure, see `Failed`.
        reason: what was told of it.
    """
    fitting = (what for sign, what in _BY_REASON if sign in reason)
    return next(fitting, None) or _BY_KIND.get(kind, f"{_URL} Else {_THERE}")
