"""What is wrong with what the operator has set up, as far as that can be seen without a connection."""

import time
from pathlib import Path

from sydentish.cli.common import told_of_keys
from sydentish.cli.surroundings import look_around
from sydentish.config import Config
from sydentish.keyfiles import KeyProblem, key_warnings, load_keys
from sydentish.parts.gateways import GatewayProblem, gateways
from sydentish.parts.replication import certificate_warnings, peer_tls
from sydentish.replication.credentials import TlsProblem
from sydentish.senders.render import TemplateProblem, Templates, shipped_templates


def suspicions(config: Config) -> list[str]:
    """What is suspicious although the server starts with it, a line for each."""
    warnings = [*map(str, config.warnings), *key_warnings(config.general.key_dir)]
    return [*warnings, *certificate_warnings(config, int(time.time() * 1000))]


def look_over(config: Config, config_path: Path) -> tuple[list[str], list[str]]:
    """All that is wrong and suspicious, that of directories and files included; makes and changes nothing.

    Args:
        config: what the operator has chosen.
        config_path: where.

    Returns:
        What keeps the server from starting, and what need not; a line for each.
    """
    around = look_around(config)
    problems = [
        *around.problems,
        *_key_problems(config, config_path),
        *_template_problems(config),
        *_gateway_problems(config),
        *_tls_problems(config),
    ]
    return problems, [*suspicions(config), *around.warnings]


def _key_problems(config: Config, config_path: Path) -> list[str]:
    try:
        load_keys(config.general.key_dir, config.general.server_name)
    except KeyProblem as problem:
        return [told_of_keys(problem, config, config_path)]
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
