"""Our side of moving over: the configuration, the key, the database, and what is going to be taken over."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from sydentish.actions.takeover import Plan
from sydentish.cli.common import read_config, refuse
from sydentish.cli.running import is_current, live
from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig
from sydentish.cli.sydent.serving import server_name
from sydentish.cli.sydent.signing import read_key, take_key
from sydentish.cli.sydent.writing import Translation
from sydentish.config import Config
from sydentish.domain.keys import Key, KeyRing
from sydentish.keyfiles import KeyProblem
from sydentish.owners import as_owner_of, make_private
from sydentish.store.copies import copy_pages
from sydentish.store.migrate import SchemaError, migrate_sqlite, shipped_steps
from sydentish.store.sydent import SydentDatabase


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
        details_file: for what concerns single addresses, if one was asked for.
    """

    old: OldConfig
    database: Path
    out: Path
    data_dir: Path
    public_base_url: str | None
    kept: Config | None
    dry_run: bool
    details_file: Path | None


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
    """Takes the key, makes the database, and writes the configuration, each unless it is there.

    Args:
        wish: what the operator has asked for.
        database: that of the Sydent.
        folder: for copies, closed to others.

    Raises:
        OldConfigProblem: the Sydent's configuration cannot be used.
        KeyProblem: there is another signing key.
        SchemaError: our database cannot be used.
        sqlite3.Error: it cannot be copied for a rehearsal.
    """
    key = read_key(wish.old)
    translation = Translation(wish.old, database.peers(), wish.data_dir, wish.public_base_url)
    config = wish.kept or translation.settle(folder)
    try:
        is_ours_alone = not is_current(config.database.path)
        keys, is_new = take_key(key, config.general.key_dir, config.general.server_name, dry_run=wish.dry_run)
    except (KeyProblem, SchemaError) as problem:
        raise type(problem)(_told(problem, wish)) from None
    if wish.dry_run:
        config = _rehearsing(config, folder, has_database=not is_ours_alone)
    if is_ours_alone:
        make_private(config.database.path.parent)
        steps = shipped_steps()
        with as_owner_of(config.database.path.parent):
            migrate_sqlite(config.database.path, config.database.busy_timeout, int(time.time() * 1000), steps)
    if wish.kept is None and not wish.dry_run:
        # Last: once it is there, it is used, and another data directory can no more be named.
        translation.write(wish.out)
    plan = Plan(
        server_name=config.general.server_name,
        peers=translation.peers,
        terms=config.policies,
        terms_edition=translation.edition,
        session_lifetime_ms=config.validation.session_lifetime,
        invitation_lifetime_ms=config.invites.lifetime,
    )
    draft = translation.draft if wish.kept is None else None
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


def _told(problem: Exception, wish: Wish) -> str:
    """Why it cannot go on, and what has named the directory where it cannot."""
    if wish.kept is None:
        return str(problem)
    return f"{problem}; {wish.out} is there and is used: without --force, --data-dir means nothing"


def _rehearsing(config: Config, folder: Path, *, has_database: bool) -> Config:
    """The same with a copy of our database, or with a new one."""
    copy = folder / "sydentish.db"
    if has_database:
        with live(config) as connection:
            copy_pages(connection, copy, lambda _done, _of: None)
    return replace(config, database=replace(config.database, path=copy))
