"""The text of `sydentish.conf.sample`, made from the declarations.

To write it anew: `python -c 'from sydentish.config import sample; print(sample(), end="")'`.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from string import Template
from typing import Any

from sydentish.config.declare import Declaration, keys
from sydentish.config.gateways import KINDS
from sydentish.config.model import options, sections
from sydentish.config.replication import PeerSection

_WIDTH = 100
EXAMPLE = {"data_dir": "/var/lib/sydentish", "host": "example.org"}
"""What stands for the parts of defaults that depend on other options."""


_HEAD = """\
# The configuration of Sydentish: every option, its default, and what it is for.
#
# Only server_name and public_base_url must be set. A line such as #key = value shows the default; take
# the # away to change it. `sydentish check-config -c FILE` tells all that is wrong with a file.
#
# The form: [section], key = value, and whole lines that begin with # or ; as comments. Quotes, and a #
# behind a value, belong to the value, which goes on in indented lines. A list has its items on lines of
# their own or separated by commas, unless its sentence says otherwise. Durations are written 500ms, 30s,
# 5m, 24h or 14d, sizes 65536, 64K or 4M, rates 30/1h. A relative path counts from the working directory.
#
# An environment variable SYDENTISH_<SECTION>__<KEY>, such as SYDENTISH_EMAIL__SMTP_HOST, replaces the
# option in the file; policies, SMS gateways and peers stand in the file only.
"""

_GATEWAYS = """\


# The gateways that [sms] gateways names: a section for each, with a NAME of your own. Its kind is
# openmarket, twilio, http for any other gateway with an HTTP interface, or log.
"""

_PEERS = """\


# The peers, identity servers that associations are exchanged with: a section for each, whose NAME is its
# server name. [replication] must have a certificate and authorities then. Further peers can be added by
# command while the server runs.

#[peer id.example.net]
"""

_POLICY = """\

# What people must accept before they may use the server: a section for each policy, with an ID of your
# own. Each language has a name and the URL of the text; accepting one language accepts the policy. With
# a new version, everybody is asked again.
#[policy terms]
#version = 1.0
#en.name = Terms of Service
#en.url = https://example.org/terms-1.0-en.html
#de.name = Nutzungsbedingungen
#de.url = https://example.org/terms-1.0-de.html
"""


def sample() -> str:
    """The whole text: a head, every section with every option, each kind of gateway, a peer and a policy as examples."""
    parts = [_HEAD]
    for section, section_type in sections():
        parts.append(f"\n\n[{section}]\n{_comment(about(section_type))}")
        parts.extend(_option(key, declaration) for owner, key, declaration in options() if owner == section)
    parts.append(_GATEWAYS)
    for kind, gateway_type in KINDS.items():
        parts.append(f"\n#[sms {kind}]\n{_comment(about(gateway_type))}#kind = {kind}\n")
        parts.extend(_example(gateway_type))
    parts.extend([_PEERS, *_example(PeerSection)])
    return "".join([*parts, "\n", _POLICY])


def _example(section_type: type[Any]) -> Iterator[str]:
    """The options of a section that is commented out, and so is what it must have."""
    for key, declaration in keys(section_type):
        yield _option(key, replace(declaration, mandatory=False))


def about(section_type: type[Any]) -> str:
    """What a section is for, as its class says it."""
    text = (section_type.__doc__ or "").partition(": ")[2].splitlines()[0]
    return text[:1].upper() + text[1:]


def _option(key: str, declaration: Declaration) -> str:
    mark = "" if declaration.mandatory else "#"
    default = Template(declaration.default).substitute(EXAMPLE)
    line = f"{mark}{key} = {default}".rstrip()
    if len(line) > _WIDTH:
        indent = f"{mark}    "
        rest = textwrap.fill(default, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        line = f"{mark}{key} =\n{rest}"
    return f"\n{_comment(declaration.about)}{line}\n"


def _comment(text: str) -> str:
    return (
        textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
        + "\n"
    )
