"""What has happened since the ledger was made, counted in it: no restart, and no deletion of jobs, takes it back."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from contracts.settings import canonical_json
from serving.ledger import Ledger, tally

# counter -> its labels
VIDEOS = "videos"  # bundle, state, code: executions that ended
FRAMES = "frames"  # bundle: of videos made
SPEECH_S = "speech_seconds"  # bundle: of videos made
STEP_S = "step_seconds"  # bundle, step: spent by replicas
RETRIES = "retries"  # bundle, why: executions given out again
REQUESTS = "requests"  # status, code: of the requests that the audit log has
SHOWN = 12  # digits of a bundle's digest

Counts = Mapping[tuple[str, ...], float]  # (counter, its labels' values …) -> by how much it grows


def count(connection: Connection, counts: Counts) -> None:
    """Add ``counts`` as part of the caller's transaction: what is rolled back was never counted."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for name, *labels in sorted(counts):  # one order: two transactions cannot block each other
        new = make(tally).values(name=name, labels=canonical_json(labels), value=float(counts[(name, *labels)]))
        grown = {"value": tally.c.value + new.excluded.value}
        connection.execute(new.on_conflict_do_update(index_elements=[tally.c.name, tally.c.labels], set_=grown))


def counted(ledger: Ledger) -> dict[tuple[str, ...], float]:
    """All counts."""
    with ledger.reading() as connection:
        rows = connection.execute(select(tally.c.name, tally.c.labels, tally.c.value)).all()
    return {(name, *json.loads(labels)): value for name, labels, value in rows}
