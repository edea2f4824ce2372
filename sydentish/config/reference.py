"""The text of `docs/configuration.md`, made from the declarations.

To write it anew: `python -c 'from sydentish.config import reference; print(reference(), end="")'`.
"""

from collections.abc import Iterable, Iterator
from string import Template

from sydentish.config.declare import Declaration, keys
from sydentish.config.gateways import KINDS
from sydentish.config.model import options, sections
from sydentish.config.replication import PeerSection
from sydentish.config.sample import EXAMPLE, about

_HEAD = """\
# Configuration

One file, which is read and never written: `/etc/sydentish/sydentish.conf` unless `-c FILE` names another. The same,
ready to be edited, is [`sydentish.conf.sample`](../sydentish.conf.sample). `sydentish check-config` tells all that is
wrong with a file, with section, key and line; what it does not know is an error, too.

- Only `server_name` and `public_base_url` must be set.
- Sections are `[section]`, options `key = value`, comments whole lines that begin with `#` or `;`. Quotes, and a `#`
  behind a value, belong to the value. A value goes on in indented lines. A list has its items on lines of their own or
  separated by commas.
- Durations are written `500ms`, `30s`, `5m`, `24h` or `14d`, sizes `65536`, `64K` or `4M`, rates `30/1h`. `off` stands
  for no limit, where an option may have none. A relative path counts from the working directory.
- An environment variable `SYDENTISH_<SECTION>__<KEY>`, such as `SYDENTISH_EMAIL__SMTP_HOST`, replaces the option in the
  file; policies, SMS gateways and peers stand in the file only.
- A secret can come from a file of its own: each has a second option that ends in `_file`.

What a running server takes up without a restart stands in [systemd.md](systemd.md).
"""

_GATEWAYS = """
## SMS gateways

`[sms] gateways` names them: a section `[sms NAME]` for each, with a `kind`. How they are used stands in
[operating.md](operating.md#telephone-numbers).
"""

_PEERS = """
## `[peer NAME]`

A peer, whose NAME is its server name; see [replication.md](replication.md).
"""

_POLICIES = """
## `[policy ID]`

What people must accept before they may use the server: a section for each policy, with an ID of your own.

| Option | Example | |
|---|---|---|
| `version` | `1.0` | With a new version, everybody is asked again. |
| `<language>.name` | `Terms of Service` | What it is called, in that language. |
| `<language>.url` | `https://example.org/terms-1.0-en.html` | Where it stands. Accepting one language accepts the policy. |
"""


def reference() -> str:
    """The whole page: a head, and a table for each section, each kind of gateway, peers and policies."""
    parts = [_HEAD]
    for section, section_type in sections():
        of_section = ((key, each) for owner, key, each in options() if owner == section)
        parts.append(f"\n## `[{section}]`\n\n{about(section_type)}\n\n{_table(of_section)}")
    parts.append(_GATEWAYS)
    for kind, gateway_type in KINDS.items():
        parts.append(f"\n### `kind = {kind}`\n\n{about(gateway_type)}\n\n{_table(keys(gateway_type))}")
    parts.append(f"{_PEERS}\n{_table(keys(PeerSection))}{_POLICIES}")
    return "".join(parts)


def _table(of_section: Iterable[tuple[str, Declaration]]) -> str:
    rows = "".join(_rows(of_section))
    return f"| Option | Default | |\n|---|---|---|\n{rows}" if rows else "It has no options of its own.\n"


def _rows(of_section: Iterable[tuple[str, Declaration]]) -> Iterator[str]:
    for key, declaration in of_section:
        default = Template(declaration.default).substitute(EXAMPLE)
        shown = f"`{_cell(default)}`" if default else ""
        if declaration.mandatory:
            shown = f"must be set, such as {shown}" if shown else "must be set"
        yield f"| `{key}` | {shown} | {_cell(declaration.about)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
