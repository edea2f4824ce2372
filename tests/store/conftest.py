"""A database with the current schema, and the two ways to it: the service, and one plain transaction."""

import pytest
import pytest_twisted
from store_tools import START_MS
from twisted.internet import reactor

from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase, SqliteTx, connect


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    return path


@pytest_twisted.async_yield_fixture
async def open_db(path):
    """Makes databases on the file that end with the test."""
    opened = []

    def make(*, readers=2, max_queue=5000, busy_timeout_ms=5000):
        db = SqliteDatabase(
            path, reactor, readers=readers, max_queue=max_queue, busy_timeout_ms=busy_timeout_ms
        )
        db.startService()
        opened.append(db)
        return db

    yield make
    for db in opened:
        if db.running:
            await db.stopService()


@pytest.fixture
def db(open_db):
    return open_db()


@pytest.fixture
def tx(path):
    """A transaction that nobody commits."""
    connection = connect(path, 5000)
    connection.execute("BEGIN IMMEDIATE")
    yield SqliteTx(connection)
    connection.close()
