"""What the operators of peers must know of this server: its name, where it is, its keys, and the names in its certificate."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from sydentish.cli.common import read_keys, refuse
from sydentish.cli.printing import print_json
from sydentish.config import Config, network
from sydentish.domain.keys import KeyRing
from sydentish.parts.replication import peer_tls
from sydentish.replication.credentials import TlsProblem

_PORT = re.compile(r"(?:^tcp6?:|:port=)(?:port=)?([0-9]+)")


@dataclass(frozen=True, slots=True)
class Ourselves:
    """This server as a peer of others.

    Attributes:
        name: its server name.
        url: where it is perhaps reached by them.
        keys: its public keys by ID: the one that signs, and the one that will.
        certificate_names: those of its certificate; none without one.
    """

    name: str
    url: str
    keys: dict[str, str]
    certificate_names: list[str]

    def print(self) -> None:
        """Prints it as others need it, for a configuration and for the command line."""
        click.echo("# For the configuration of a peer; check the url: it is only a guess.")
        keys = [f"{key_id} {key}" for key_id, key in self.keys.items()]
        click.echo(f"[peer {self.name}]\nurl = {self.url}\nkeys = {', '.join(keys)}")
        if self.certificate_names:
            click.echo(f"certificate_names = {', '.join(self.certificate_names)}")
        click.echo("\n# Or, without a restart there:")
        command = ["sydentish", "peers", "add", self.name, "--url", self.url]
        command += [part for key in keys for part in ("--key", key)]
        command += [part for name in self.certificate_names for part in ("--certificate-name", name)]
        click.echo(shlex.join(command))


def ourselves(config: Config, keys: KeyRing) -> Ourselves:
    """What the operators of peers must know of this server.

    Raises:
        TlsProblem: the certificate cannot be used.
    """
    tls = peer_tls(config)
    names = [] if tls is None else [each for each in tls.certificate_names if _is_usable(each)]
    announced = {key.key_id: key.public_key for key in keys.announced}
    return Ourselves(keys.server_name, _suggested_url(config), announced, names)


def show_ourselves(config: Config, config_path: Path, *, as_json_: bool) -> None:
    """Prints what the operators of peers must know of this server, and what is missing here."""
    keys = read_keys(config, config_path)
    try:
        us = ourselves(config, keys)
    except TlsProblem as problem:
        refuse(str(problem))
    if as_json_:
        print_json(
            {"name": us.name, "url": us.url, "keys": us.keys, "certificate_names": us.certificate_names}
        )
        return
    us.print()
    if not us.certificate_names:
        click.echo("warning: [replication] certificate_file is not set: nothing can be exchanged", err=True)
    elif not config.replication.listeners:
        click.echo("warning: [replication] listeners is not set: nothing can be received", err=True)


def _suggested_url(config: Config) -> str:
    """Where peers perhaps reach this server: the public host, and the first port that it listens on for them."""
    host = urlsplit(config.general.public_base_url).hostname or ""
    host = f"[{host}]" if ":" in host else host
    ports = [found[1] for each in config.replication.listeners if (found := _PORT.search(each))]
    return f"https://{host}:{ports[0] if ports else 'PORT'}"


def _is_usable(name: str) -> bool:
    """Whether a name in a certificate can be that of a peer."""
    try:
        return network.certificate_name(name) == name
    except ValueError:
        return False
