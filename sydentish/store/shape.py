"""The shape of a database: whether it is sound, and has the tables and indices that it should have."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sydentish.store.database import Tx
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx, connect

_BACKUP = "restore a backup (sydentish restore), and look after the disk"
_MOST_TOLD = 3

Shape = Mapping[str, object]
"""Of each table, index, view and trigger by its name, what it consists of."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong.

    Attributes:
        check: what was looked at, in a word or two.
        problem: what is wrong; without addresses.
        remedy: what to do.
    """

    check: str
    problem: str
    remedy: str


def tables(tx: Tx) -> list[str]:
    """The names of all tables."""
    rows = tx.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


def acting(tx: Tx) -> list[tuple[str, str, str]]:
    """Name, type and text of all views and triggers: what would act on its own, and none is ours."""
    return tx.rows("SELECT name, type, sql FROM sqlite_master WHERE type IN ('view', 'trigger')")


def first_of(damage: Sequence[str]) -> str:
    """What is told of all that SQLite says about damage."""
    return "; ".join(damage[:_MOST_TOLD])


def damage(tx: Tx, table: str, thorough: bool) -> list[Flaw]:  # noqa: FBT001 - for `Tx`, as it is handed on
    """What is wrong with one table and its indices.

    Args:
        tx: the transaction.
        table: its name.
        thorough: also whether each index has what the table has, which takes several times as long.
    """
    pragma = "integrity_check" if thorough else "quick_check"
    found = [text for (text,) in tx.rows(f'PRAGMA {pragma}("{table}")') if text != "ok"]
    if found:
        return [Flaw("structure", f"{table} is damaged: {first_of(found)}", _BACKUP)]
    orphans = len(tx.rows(f'PRAGMA foreign_key_check("{table}")'))
    if not orphans:
        return []
    return [Flaw("references", f"{orphans} rows of {table} refer to something that is not there", _BACKUP)]


def shape(tx: Tx) -> Shape:
    """What the database consists of."""
    found: dict[str, object] = {name: (kind, sql) for name, kind, sql in acting(tx)}
    for table in tables(tx):
        columns = 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)'
        found[table] = frozenset(tx.rows(columns, (table,)))
        for name, *kind in tx.rows('SELECT name, "unique", partial FROM pragma_index_list(?)', (table,)):
            keys = 'SELECT name, "desc", coll FROM pragma_index_xinfo(?) WHERE key = 1'
            found[name] = (table, tuple(kind), tuple(tx.rows(keys, (name,))))
    return found


def shipped_shape() -> Shape:
    """What a fresh database of this version consists of."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fresh.db"
        migrate_sqlite(path, 0, 0, shipped_steps())
        with closing(connect(path, 0)) as connection:
            return shape(SqliteTx(connection))


def differences_of(path: Path) -> list[Flaw]:
    """How a file that nobody else uses differs from a fresh database of this version."""
    with closing(connect(path, 0, read_only=True)) as connection:
        return list(differences(shape(SqliteTx(connection)), shipped_shape()))


def differences(found: Shape, shipped: Shape) -> Iterator[Flaw]:
    """How a database differs from a fresh one."""
    for names, how, remedy in (
        (shipped.keys() - found.keys(), "missing", _BACKUP),
        (found.keys() - shipped.keys(), "not of this program", "drop it, if nobody needs it"),
        (
            {each for each in found.keys() & shipped.keys() if found[each] != shipped[each]},
            "not as it should be",
            _BACKUP,
        ),
    ):
        for name in sorted(names):
            yield Flaw("schema", f"{name} is {how}", remedy)
