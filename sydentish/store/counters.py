"""Numbers that are never used twice."""

from sydentish.store.database import Tx

STATEMENT = "statement"
"""The counter of what this server states."""

PURGE = "purge"
"""When the purge has last begun a round, in ms: kept here since it is one number."""


JUMP = 1 << 32
"""By how much the number of the next statement jumps where some may be unknown: further than a server gets between two
backups."""


def next_number(tx: Tx, name: str) -> int:
    """The next number of the counter `name`: 1, 2, 3 …; given back only if the transaction is."""
    row = tx.row(
        """
        INSERT INTO counters (name, value) VALUES (?, 1)
        ON CONFLICT (name) DO UPDATE SET value = counters.value + 1
        RETURNING value
        """,
        (name,),
    )
    if row is None:
        raise LookupError(name)
    return int(row[0])


def value(tx: Tx, name: str) -> int:
    """Where the counter `name` stands; 0 before it was used."""
    row = tx.row("SELECT value FROM counters WHERE name = ?", (name,))
    return int(row[0]) if row else 0


def raise_to(tx: Tx, name: str, number: int) -> None:
    """The counter `name` gives out no number up to this one any more."""
    tx.run(
        """
        INSERT INTO counters (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE counters.value < excluded.value
        """,
        (name, number),
    )


def set_to(tx: Tx, name: str, number: int) -> None:
    """The counter `name` stands at this number now, also where that is less than before."""
    tx.run(
        """
        INSERT INTO counters (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """,
        (name, number),
    )
