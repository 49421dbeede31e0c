"""The audit log: who did what, when, and how it was answered; never a picture, a sound, a name or an address."""

from __future__ import annotations

import threading

from sqlalchemy import insert, select

from serving.ledger import Ledger, audit
from serving.messages import EntryMessage
from serving.tally import REQUESTS, count

ANONYMOUS_PER_MINUTE = 60  # rows for refused strangers: they must not be able to fill the disk


class Audit:
    """The audit log of a ledger. Rows are added, never changed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._lock = threading.Lock()
        self._minute, self._strangers = 0, 0

    def write(self, key: str | None, action: str, status: int, code: str | None = None, job: str | None = None) -> None:
        """Add a row. ``action`` is a route with its placeholders, not a path as it was sent."""
        now = self.ledger.clock()
        if key is None and not self._room(int(now // 60)):
            return
        row = {"at": now, "key": key, "action": action, "status": status, "code": code, "job": job}
        with self.ledger.writing() as connection:
            connection.execute(insert(audit).values(**row))
            count(connection, {(REQUESTS, str(status), code or ""): 1})

    def last(self, limit: int) -> list[EntryMessage]:
        """The newest rows, newest first."""
        with self.ledger.reading() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.seq.desc()).limit(limit)).mappings().all()
        return [EntryMessage.model_validate(dict(row)) for row in rows]

    def _room(self, minute: int) -> bool:
        with self._lock:
            if minute != self._minute:
                self._minute, self._strangers = minute, 0
            self._strangers += 1
            return self._strangers <= ANONYMOUS_PER_MINUTE
