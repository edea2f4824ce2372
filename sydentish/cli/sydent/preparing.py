"""Our side of moving over: the configuration, the key, the database, and what is going to be taken over."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from sydentish.actions.takeover import Plan
from sydentish.cli.common import read_config, refuse
from sydentish.cli.running import has_database
from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig
from sydentish.cli.sydent.peers import OldPeer
from sydentish.cli.sydent.serving import server_name
from sydentish.cli.sydent.signing import read_key, ring, take_key
from sydentish.cli.sydent.writing import Translation
from sydentish.config import Config
from sydentish.domain.keys import Key, KeyRing
from sydentish.keyfiles import make_private
from sydentish.owners import as_owner_of
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sydent import SydentDatabase
from sydentish.store.sydent_copy import copy_of_ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator has asked for.

    Attributes:
        old: the configuration of the Sydent.
        database: its database.
        out: our configuration.
        data_dir: where we keep our things.
        public_base_url: where clients reach the server, if somebody has said so.
        kept: our configuration if it is there already, and stays as it is.
        dry_run: nothing is changed.
        details: the file for what concerns single addresses.
    """

    old: OldConfig
    database: Path
    out: Path
    data_dir: Path
    public_base_url: str | None
    kept: Config | None
    dry_run: bool
    details: Path | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Our side of it.

    Attributes:
        config: our configuration, which in a rehearsal has a copy of our database.
        draft: what is, or would be, written; None if the file is there and stays as it is.
        plan: what is taken over.
        key: the signing key, and whether it is new here.
        keys: our signing keys, among which it is.
        is_ours_alone: no server can be using the database.
    """

    config: Config
    draft: Draft | None
    plan: Plan
    key: tuple[Key, bool]
    keys: KeyRing
    is_ours_alone: bool


def prepare(wish: Wish, database: SydentDatabase, folder: Path) -> Prepared:
    """Writes the configuration and the key, unless they are there, and makes the database, unless there is one.

    Args:
        wish: what the operator has asked for.
        database: that of the Sydent.
        folder: for copies, closed to others.

    Raises:
        OldConfigProblem: the Sydent's configuration cannot be used.
        KeyProblem: there is another signing key.
        SchemaError: our database cannot be used.
    """
    key = read_key(wish.old)
    translation = Translation(
        wish.old, [OldPeer(*each) for each in database.peers()], wish.data_dir, wish.public_base_url
    )
    draft: Draft | None = translation.draft
    if wish.kept is not None:
        draft, config = None, wish.kept
    else:
        config = translation.settle(folder)
        if not wish.dry_run:
            translation.write(wish.out)
    is_new = take_key(key, config.general.key_dir, config.general.server_name, dry_run=wish.dry_run)
    is_ours_alone = not has_database(config)
    config = _rehearsing(config, folder) if wish.dry_run else config
    if is_ours_alone:
        make_private(config.database.path.parent)
        steps = shipped_steps()
        with as_owner_of(config.database.path.parent):
            migrate_sqlite(config.database.path, config.database.busy_timeout, int(time.time() * 1000), steps)
    plan = Plan(
        server_name=config.general.server_name,
        peers=translation.peers,
        terms=config.policies,
        terms_edition=translation.edition,
        session_lifetime_ms=config.validation.session_lifetime,
        invitation_lifetime_ms=config.invites.lifetime,
    )
    keys = ring(key, config.general.key_dir, config.general.server_name)
    return Prepared(config, draft, plan, (key, is_new), keys, is_ours_alone or wish.dry_run)


def kept(old: OldConfig, out: Path) -> Config:
    """The configuration that is there; it must be that of the same server."""
    config = read_config(out)
    ours, theirs = config.general.server_name, server_name(old)
    if ours != theirs:
        refuse(
            f"{out}: [general] server_name: is {ours}, but the Sydent is {theirs}, and has signed in that name: "
            "use another --out, or --force if that file is not in use"
        )
    return config


def _rehearsing(config: Config, folder: Path) -> Config:
    """The same with a copy of our database, or with a new one."""
    copy = folder / "sydentish.db"
    copy_of_ours(config.database.path, copy)
    return replace(config, database=replace(config.database, path=copy))
