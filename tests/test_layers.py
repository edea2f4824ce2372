"""The package keeps the house rules of `house_rules`, and is installed whole."""

from configparser import ConfigParser
from pathlib import Path

import pytest
from house_rules import (
    RULES,
    Module,
    domain_breaches,
    dynamic_import_breaches,
    layer_breaches,
    length_breaches,
    modules_in,
    print_breaches,
    ring_breaches,
    sql_breaches,
    type_checking_breaches,
)

import sydentish

INSTALLED = Path(sydentish.__file__).parent
PROJECT = Path(__file__).parent.parent


@pytest.mark.parametrize("rule", RULES)
def test_the_installed_package_keeps_the_rule(rule):
    assert list(rule(modules_in(INSTALLED))) == []


# --- the checks see a breach ------------------------------------------------------------------------------


def breaches(rule, **sources):
    """What `rule` says of a made-up package; `__` in a name stands for a dot, packages are made as needed."""
    made = {"sydentish": Module("sydentish", "", is_package=True)}
    for key, source in sources.items():
        names = ["sydentish", *key.split("__")]
        for depth in range(2, len(names)):
            package = ".".join(names[:depth])
            made.setdefault(package, Module(package, "", is_package=True))
        made[".".join(names)] = Module(".".join(names), source)
    return list(rule(made))


LAYER_BREACHES = [
    ("domain__ids", "from sydentish.store import database"),
    ("domain__ids", "import sydentish.web.errors"),
    ("domain__ids", "from sydentish import config"),
    ("store__keys", "from sydentish.actions.ports import Deliverer"),
    ("store__keys", "import sydentish.federation.client as client"),
    ("actions__keys", "from sydentish.federation.client import Answer"),
    ("actions__keys", "from sydentish.senders import email"),
    ("actions__keys", "from sydentish.web.models import text"),
    ("actions__keys", "from sydentish.config import Config"),
    ("federation__client", "from sydentish.actions.outbox import ONBIND"),
    ("federation__client", "from sydentish.actions import outbox"),
    ("federation__client", "import sydentish.actions"),
    ("federation__client", "from sydentish.senders.relay import Relay"),
    ("senders__email", "from sydentish.federation.tls import TlsOptions"),
    ("replication__peers", "from sydentish.senders.relay import Relay"),
    ("web__routes", "from sydentish.store.database import Database"),
    ("web__routes", "from sydentish.federation.client import Answer"),
    ("web__routes", "from sydentish.senders.render import Templates"),
    ("web__routes", "from sydentish.config import Config"),
    ("web__routes", "from sydentish.app import build"),
    ("web__handlers__keys", "def f():\n    from sydentish.store import keys"),
    ("web__handlers__keys", "from ...store import keys"),
    ("web__handlers__keys", "from ... import store"),
    ("web__handlers__keys", "if False:\n    import sydentish.store.keys"),
    ("parts__web", "from sydentish.app import build"),
    ("lifecycle", "from sydentish.config import Config"),
    ("keyfiles", "from sydentish.config import Config"),
    ("logs", "from sydentish.web.http import HttpFactory"),
    ("metrics", "from sydentish.domain.ids import opaque"),
    ("waiting", "from sydentish.domain.ids import opaque"),
    ("actions__keys", "from sydentish.outgoing import explain"),
    ("web__routes", "from sydentish.waiting import within"),
    ("app", "from sydentish.cli import main"),
    ("helpers", "import os"),
    ("actions__keys", "import sydentish"),
]
LAYERS_KEPT = [
    ("store__keys", "from sydentish.domain.keys import Key\nfrom sydentish.store.database import Tx"),
    ("actions__keys", "from sydentish.store import keys\nfrom .ports import Deliverer\nfrom . import ports"),
    ("federation__notifier", "from sydentish.actions.ports import Deliverer"),
    ("senders__email", "from sydentish.actions.ports import VerificationSender\nimport email"),
    ("senders__invites", "from sydentish.waiting import within\nfrom sydentish.outgoing import explain"),
    ("actions__outbox", "from sydentish.waiting import within"),
    ("web__handlers__keys", "from sydentish.actions.keys import PublicKeys\nfrom ..reply import Reply"),
    ("parts__web", "from sydentish.config import Config\nfrom sydentish.store.sqlite import SqliteDatabase"),
    ("app", "from sydentish.config import Config\nfrom sydentish.parts.web import Web"),
    ("cli__serve", "from sydentish.config import Config\nfrom sydentish.app import build"),
]


@pytest.mark.parametrize(("name", "source"), LAYER_BREACHES)
def test_an_import_against_the_direction_is_seen(name, source):
    known = {"store__keys": "", "federation__client": "", "senders__email": "", "config__load": ""}
    assert len(breaches(layer_breaches, **known | {name: source})) == 1


@pytest.mark.parametrize(("name", "source"), LAYERS_KEPT)
def test_an_import_in_the_direction_is_left_alone(name, source):
    known = {"actions__ports": "", "web__reply": "", "store__keys": ""}
    assert breaches(layer_breaches, **known | {name: source}) == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (
            dynamic_import_breaches,
            "web__routes",
            "import importlib\nimportlib.import_module('sydentish.store')",
        ),
        (dynamic_import_breaches, "web__routes", "__import__('sydentish.store')"),
        (domain_breaches, "domain__ids", "from twisted.internet import defer"),
        (domain_breaches, "domain__ids", "import sqlite3"),
        (domain_breaches, "domain__ids", "import os.path"),
        (domain_breaches, "domain__ids", "from random import random"),
        (domain_breaches, "domain__ids", "def now():\n    import time"),
        (domain_breaches, "domain__ids", "from pathlib import Path"),
        (domain_breaches, "domain__ids", "import urllib.request"),
        (domain_breaches, "domain__ids", "def read():\n    return open('file').read()"),
        (domain_breaches, "domain__ids", "async def rule(): pass"),
        (type_checking_breaches, "web__routes", "from typing import TYPE_CHECKING"),
        (type_checking_breaches, "web__routes", "import typing\nif typing.TYPE_CHECKING: pass"),
        (ring_breaches, "web__routes", "from sydentish.web import routes"),
        (sql_breaches, "actions__keys", "x = 'SELECT a FROM b'"),
        (sql_breaches, "actions__keys", "x = 'select a\\n  from b'"),
        (sql_breaches, "actions__keys", "x = f'DELETE FROM {table}'"),
        (sql_breaches, "web__routes", "def f(tx):\n    tx.run('''\n    INSERT INTO a VALUES (?)''')"),
        (sql_breaches, "senders__email", "x = 'UPDATE a SET b = ?'"),
        (sql_breaches, "app", "x = 'pragma journal_mode = wal'"),
        (sql_breaches, "cli__serve", "x = 'CREATE TABLE a (b)'"),
        (print_breaches, "cli__serve", "print('here')"),
        (print_breaches, "web__routes", "show = print"),
        (length_breaches, "web__routes", "def f():\n" + "    x = 1\n" * 45),
        (length_breaches, "web__routes", "class A:\n    async def f(self):\n" + "        x = 1\n" * 45),
        (length_breaches, "web__routes", "x = 1\n" * 301),
    ],
)
def test_a_breach_of_the_other_rules_is_seen(rule, name, source):
    assert len(breaches(rule, **{name: source})) == 1


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (
            domain_breaches,
            "domain__ids",
            "import re\nfrom urllib.parse import urlsplit\nopened = re.compile('x')",
        ),
        (domain_breaches, "store__sqlite", "import os, sqlite3, time\nopen('file')"),
        (sql_breaches, "store__keys", "x = 'SELECT a FROM b'"),
        (
            sql_breaches,
            "actions__keys",
            "def f():\n    '''Select them FROM what there is, DELETE FROM it.'''",
        ),
        (sql_breaches, "actions__keys", "x = 'we select what comes from the update of a set'"),
        (print_breaches, "web__routes", "fingerprint('a')\n'print(1)'\nx.sprint()"),
        (length_breaches, "web__routes", "def f():\n" + "    x = 1\n" * 44 + "y = 1\n" * 255),
        (type_checking_breaches, "web__routes", "'no TYPE_CHECKING here'"),
    ],
)
def test_what_only_looks_like_a_breach_is_left_alone(rule, name, source):
    assert breaches(rule, **{name: source}) == []


def test_a_ring_of_modules_is_seen_also_through_a_function_and_a_package():
    ring = {
        "web__a": "from sydentish.web.b import x",
        "web__b": "def f():\n    from sydentish.web import c",
        "web__c": "from .a import y",
    }
    assert len(breaches(ring_breaches, **ring)) == 1
    assert breaches(ring_breaches, **ring | {"web__c": "from os import path"}) == []


# --- what is installed ------------------------------------------------------------------------------------


def files_below(folder, prefix=""):
    ignored = {"__pycache__"}
    paths = (path for path in folder.rglob("*") if path.is_file() and not ignored & set(path.parts))
    return {f"{prefix}{path.relative_to(folder).as_posix()}" for path in paths}


def packages_below(folder):
    return {
        ".".join(["sydentish", *path.parent.relative_to(folder).parts])
        for path in folder.rglob("__init__.py")
    }


def listed_packages():
    setup = ConfigParser()
    setup.read(PROJECT / "setup.cfg", encoding="utf-8")
    return setup["options"]["packages"].split()


def test_setup_cfg_lists_every_package_once_and_in_order():
    listed = listed_packages()
    assert set(listed) == packages_below(PROJECT / "sydentish") | {"sydentish.templates"}
    assert listed == sorted(set(listed))


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (PROJECT / "sydentish").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_file_of_the_source_is_installed_and_no_other():
    """Data files too: the schema, the templates, the marker of typed packages."""
    source = files_below(PROJECT / "sydentish") | files_below(PROJECT / "res/templates", "templates/")
    assert files_below(INSTALLED) == source
