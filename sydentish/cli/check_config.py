"""`sydentish check-config`."""

import time
from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config, refuse, told_of_keys
from sydentish.cli.surroundings import look_around
from sydentish.config import Config
from sydentish.keyfiles import KeyProblem, key_warnings, load_keys
from sydentish.parts.gateways import GatewayProblem, gateways
from sydentish.parts.replication import certificate_warnings, peer_tls
from sydentish.replication.credentials import TlsProblem
from sydentish.senders.render import TemplateProblem, Templates, shipped_templates


@click.command("check-config")
@config_option
def check_config(config_path: Path) -> None:
    """Check the configuration, and the files and directories it names, and change nothing.

    Exit status 0 when the server would start with them, 78 when it would not. Whether a file can be used
    is asked for the user who runs this command: run it as the server's.

    Example: sydentish check-config -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    around = look_around(config)
    warnings = [*config.warnings, *key_warnings(config.general.key_dir), *around.warnings]
    warnings += certificate_warnings(config, int(time.time() * 1000))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    problems = [
        *around.problems,
        *_key_problems(config, config_path),
        *_template_problems(config),
        *_gateway_problems(config),
        *_tls_problems(config),
    ]
    if problems:
        refuse(*problems)
    click.echo(f"{config_path}: ok")


def _key_problems(config: Config, config_path: Path) -> list[str]:
    try:
        load_keys(config.general.key_dir, config.general.server_name)
    except KeyProblem as problem:
        return [told_of_keys(problem, config_path)]
    return []


def _template_problems(config: Config) -> list[str]:
    try:
        Templates(shipped_templates(), config.general.templates_path, config.general.default_brand).check()
    except TemplateProblem as problem:
        return list(problem.problems)
    return []


def _gateway_problems(config: Config) -> list[str]:
    try:
        # They are made, and connect to nothing.
        gateways(config, reactor=None)
    except GatewayProblem as problem:
        return list(map(str, problem.problems))
    return []


def _tls_problems(config: Config) -> list[str]:
    try:
        # What OpenSSL has against files that are right in themselves.
        peer_tls(config)
    except TlsProblem as problem:
        return [str(problem)]
    return []
