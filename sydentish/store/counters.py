"""Numbers that are never used twice."""

from sydentish.store.database import Tx


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
