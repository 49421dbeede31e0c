"""The database behind the service: keys, jobs, their items, executions, audit, counts. SQLite, or PostgreSQL by URL.

A *job* is what one caller asked for at once; its *items* are single videos. Items that ask for the very same video
(digest of bundle, inputs, seed and settings) share one *execution*, whoever asked. State lives here and in the store
of results alone, so that any process may die.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from contracts.errors import Corrupt, Misuse, Transient

BUSY_S = 30.0  # a writer waits so long for SQLite's single lock
SUBMITTING = 0x766F7866  # PostgreSQL's advisory lock under which queues are counted and filled

metadata = MetaData()
Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself

version = Table("ledger_version", metadata, Column("number", Integer, primary_key=True))

keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("salt", String(32), nullable=False),
    Column("hash", String(64), nullable=False),  # scrypt of the secret; empty: nobody can present it
    Column("pepper", String(64), nullable=False),  # makes ids of jobs the key's own, and unguessable
    Column("scopes", Text, nullable=False),
    Column("daily", Integer, nullable=False),  # items in 24 hours
    Column("unfinished", Integer, nullable=False),  # items waiting or running
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)
jobs = Table(
    "jobs",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("key", ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("label", Text, nullable=False),
    Column("created", Float, nullable=False),
)
executions = Table(
    "executions",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),  # the order of the queue: no clock has a say
    Column("digest", String(64), nullable=False, unique=True),
    Column("bundle", String(64), nullable=False),
    Column("request", JSON, nullable=False),  # serving.jobs.Job without its place
    Column("audio", String(64), nullable=False, index=True),  # digests of inputs: what may be swept
    Column("portrait", String(64), index=True),
    Column("video", String(64), index=True),
    Column("state", String(9), nullable=False),
    Column("code", String(32)),
    Column("detail", Text),
    Column("tries", Integer, nullable=False, default=0),  # ended by Transient
    Column("crashes", Integer, nullable=False, default=0),  # whoever rendered it fell silent
    Column("not_before", Float, nullable=False, default=0.0),
    Column("claim", String(32)),  # a token: only its holder may say how this ended
    Column("owner", Text),
    Column("lease_until", Float),
    Column("done", Integer, nullable=False, default=0),  # frames
    Column("frames", Integer, nullable=False, default=0),
    Column("seconds", Float),
    Column("result", String(64)),  # SHA-256 of the video
    Column("rendered", Integer, nullable=False, default=0),  # how often a video was really made: 1 where all is well
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Index("executions_queue", "bundle", "state", "seq"),
)
items = Table(
    "items",
    metadata,
    Column("job", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 0, 1, … in the order of asking
    Column("name", Text, nullable=False),
    Column("execution", ForeignKey("executions.digest"), index=True),  # none where the item was rejected unseen
    Column("state", String(9)),  # rejected or cancelled; else the execution's state is the item's
    Column("code", String(32)),
    Column("detail", Text),
)
audit = Table(
    "audit",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("key", String(16)),
    Column("action", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String(32)),
    Column("job", String(64)),
)
tally = Table(
    "tally",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("labels", String(160), primary_key=True),  # values, as JSON
    Column("value", Float, nullable=False),
)


def _first(connection: Connection) -> None:
    metadata.create_all(connection)


def _counting(connection: Connection) -> None:
    tally.create(connection, checkfirst=True)


# what brings a ledger of version n to n + 1; never edited once released, only added to
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first, _counting)


class Ledger:
    """An open database. One per process; safe to use from several threads.

    ``url`` is SQLAlchemy's: ``sqlite:////…/ledger.db`` or ``postgresql+psycopg2://…``. Tables are made, and older
    ones brought up to date, on opening. Raises ``Misuse`` for a URL that is none, ``Corrupt`` for a ledger of a
    newer version, ``Transient`` where the database does not answer.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.url, self.clock = url, clock
        self.engine = _engine(url)
        with self.writing() as connection:
            self._migrate(connection)

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that writes nothing."""
        with _answering(self.url), self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN")  # one view of the whole
            yield connection

    @contextmanager
    def writing(self, counting: bool = False) -> Iterator[Connection]:
        """One transaction, committed at the end of the block. ``counting``: no other such one runs meanwhile."""
        with _answering(self.url), self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # the lock now: one taken later can fail for ever
            elif counting:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SUBMITTING})
            yield connection
            connection.commit()

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self, connection: Connection) -> None:
        if not self.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SUBMITTING})
        found = 0
        if inspect(connection).has_table(version.name):
            found = connection.scalar(select(version.c.number)) or 0
        if found > len(MIGRATIONS):
            raise Corrupt(self.url, "was written by a newer voxface", str(len(MIGRATIONS)), str(found))
        for step in MIGRATIONS[found:]:
            step(connection)
        if found == 0:
            connection.execute(insert(version).values(number=len(MIGRATIONS)))
        elif found < len(MIGRATIONS):
            connection.execute(update(version).values(number=len(MIGRATIONS)))


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database at ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path.absolute()}"


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise Misuse(f"{parsed.drivername}: give a sqlite:/// or postgresql:// URL for the ledger")
        if parsed.get_backend_name() == "postgresql":
            return create_engine(parsed.set(drivername="postgresql+psycopg2"), pool_pre_ping=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_S, "isolation_level": None})
    except (ArgumentError, NoSuchModuleError) as error:
        raise Misuse(f"the ledger's URL is none: {str(error).splitlines()[0]}") from None

    @event.listens_for(engine, "connect")
    def _set(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """A database that is away or full is ``Transient``; the URL's password stays out of the message."""
    try:
        yield
    except OperationalError as error:
        told = str(error.orig).strip().splitlines()
        space = "NO_SPACE: " if "full" in str(error.orig) else ""
        raise Transient(f"{space}the ledger {make_url(url)} does not answer: {told[0] if told else error}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Transient(f"the ledger {make_url(url)} went away") from error
        raise
