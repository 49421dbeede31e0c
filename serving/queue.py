"""Who renders what: executions claimed under leases, so that the death of anything loses nothing.

A claim is a token with a lease that its holder renews by beating. A holder that falls silent loses it: the execution
is given out again, and whatever the former holder still says is not heard. Effects are exactly once because results
are named by their content and published before they are recorded.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, or_, select, update

from contracts.reasons import FailureCode
from serving.jobs import Job, Outcome
from serving.ledger import Ledger, executions, items
from serving.tally import FRAMES, RETRIES, SHOWN, SPEECH_S, STEP_S, VIDEOS, Counts, count

LEASE_S = 20.0  # a holder silent for so long is dead
CRASHES = 5  # silences after which an execution is the likely cause, and fails
TRIES = 3  # of an execution that ends in Transient
BACKOFF_S = (2.0, 10.0)  # before the second and the third try, with jitter
EXHAUSTED = FailureCode.EXHAUSTED


@dataclass(frozen=True)
class Claim:
    """An execution that is ours until its lease ends."""

    digest: str
    token: str
    job: Job  # its place is to be set by the worker
    bundle: str = ""  # whose it is


class Queue:
    """The executions of a ledger, as workers see them."""

    def __init__(self, ledger: Ledger, lease_s: float = LEASE_S) -> None:
        self.ledger, self.lease_s = ledger, lease_s

    def claim(self, bundle: str, owner: str, limit: int) -> list[Claim]:
        """At most ``limit`` executions of the bundle, oldest first; those whose holder fell silent among them.

        One that has been dropped before comes alone, so that it can take no other down with it.
        """
        now = self.ledger.clock()
        # later than anything is ever put off: the clock was set back, and nobody waits until it is that time again
        due, lease = executions.c.not_before, executions.c.lease_until
        waiting = and_(executions.c.state == "queued", or_(due <= now, due > now + 2 * BACKOFF_S[-1]))
        set_back = lease > now + 2 * max(self.lease_s, LEASE_S)
        silent = and_(executions.c.state == "running", or_(lease < now, set_back))
        wanted = (
            select(executions.c.digest, executions.c.state, executions.c.crashes, executions.c.request)
            .where(executions.c.bundle == bundle, or_(waiting, silent))
            .order_by(executions.c.seq)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claims: list[Claim] = []
        counts: Counter[tuple[str, ...]] = Counter()
        with self.ledger.writing() as connection:
            for row in connection.execute(wanted).mappings().all():
                crashes = row["crashes"] + (row["state"] == "running")
                if crashes and claims:
                    continue
                if row["state"] == "running":
                    counts[RETRIES, bundle[:SHOWN], "silent"] += 1
                values: dict[str, Any]
                if crashes > CRASHES:
                    detail = f"whatever rendered it died, {crashes} times"
                    values = _ended("failed", now) | {"code": FailureCode.CRASHED.value, "detail": detail}
                    counts[VIDEOS, bundle[:SHOWN], "failed", FailureCode.CRASHED.value] += 1
                else:
                    token = secrets.token_hex(16)
                    claims.append(Claim(row["digest"], token, Job.model_validate(row["request"]), bundle))
                    values = {
                        "state": "running",
                        "claim": token,
                        "owner": owner,
                        "lease_until": now + self.lease_s,
                        "done": 0,
                        "frames": 0,
                    }
                mine = update(executions).where(executions.c.digest == row["digest"])
                connection.execute(mine.values(crashes=crashes, **values))
                if crashes and claims:
                    break
            count(connection, counts)
        return claims

    def beat(self, claims: Iterable[Claim], moved: dict[str, tuple[int, int]]) -> set[str]:
        """Renew leases and store progress (frames done, frames in all, by digest); the digests still ours."""
        ours: set[str] = set()
        until = self.ledger.clock() + self.lease_s
        with self.ledger.writing() as connection:
            for claim in sorted(claims, key=lambda each: each.digest):  # one order: two beats cannot block each other
                done, frames = moved.get(claim.digest, (0, 0))
                renewed = update(executions).where(_held(claim)).values(lease_until=until, done=done, frames=frames)
                if connection.execute(renewed).rowcount:
                    ours.add(claim.digest)
        return ours

    def finish(self, claim: Claim, outcome: Outcome, spent: Mapping[str, float] | None = None) -> bool:
        """Record how the claimed execution ended. False where the claim was lost or cancelled: nothing is changed.

        ``spent``: seconds by step, of this execution or of more, to be counted with it.
        """
        values = _ended(outcome.state, self.ledger.clock())
        of = claim.bundle[:SHOWN]
        code = "" if outcome.state == "done" else outcome.code.value
        counts: dict[tuple[str, ...], float] = {(VIDEOS, of, outcome.state, code): 1}
        counts |= {(STEP_S, of, step): seconds for step, seconds in (spent or {}).items()}
        if outcome.state == "done":
            if not outcome.reused:
                counts |= {(FRAMES, of): outcome.frames, (SPEECH_S, of): outcome.seconds}
            values |= {
                "frames": outcome.frames,
                "done": outcome.frames,
                "seconds": outcome.seconds,
                "result": outcome.video,
                "rendered": executions.c.rendered + (0 if outcome.reused else 1),
            }
        else:
            values |= {"code": code, "detail": outcome.detail}
        return self._change(claim, values, counts)

    def again(self, claim: Claim, why: str) -> bool:
        """A ``Transient`` ended it: queued once more after a while, failed after three tries."""
        with self.ledger.reading() as connection:
            tries = connection.scalar(select(executions.c.tries).where(_held(claim)))
        if tries is None:
            return False
        now = self.ledger.clock()
        counts: dict[tuple[str, ...], float] = {(RETRIES, claim.bundle[:SHOWN], "transient"): 1}
        if tries + 1 >= TRIES:
            counts = {(VIDEOS, claim.bundle[:SHOWN], "failed", EXHAUSTED.value): 1}
            values = _ended("failed", now) | {"code": EXHAUSTED.value, "detail": f"{TRIES} tries; the last: {why}"}
        else:
            wait = BACKOFF_S[tries] * random.uniform(1.0, 1.5)  # noqa: S311
            values = {"state": "queued", "claim": None, "not_before": now + wait}
        return self._change(claim, values | {"tries": tries + 1}, counts)

    def release(self, claims: Iterable[Claim]) -> None:
        """Give claims back unharmed: the worker stops."""
        for claim in claims:
            self._change(claim, {"state": "queued", "claim": None, "owner": None, "lease_until": None})

    def drop(self, claims: Iterable[Claim]) -> None:
        """Give claims back at once, but as if their holder had fallen silent."""
        for claim in claims:
            self._change(claim, {"lease_until": 0.0})

    def depth(self, bundle: str | None = None) -> dict[str, int]:
        """How many executions there are, of one bundle or of all, by state."""
        found: Counter[str] = Counter()
        for (of, state), number in self.standing().items():
            if bundle in (None, of):
                found[state] += number
        return dict(found)

    def standing(self) -> dict[tuple[str, str], int]:
        """How many executions there are, by bundle and state."""
        columns = executions.c.bundle, executions.c.state
        with self.ledger.reading() as connection:
            rows = connection.execute(select(*columns, func.count()).group_by(*columns)).all()
        return {(bundle, state): number for bundle, state, number in rows}

    def jobs(self, digest: str) -> list[str]:
        """Ids of the jobs that asked for the execution."""
        with self.ledger.reading() as connection:
            return sorted(set(connection.scalars(select(items.c.job).where(items.c.execution == digest))))

    def knows(self, digest: str) -> bool:
        """Whether the execution is in the ledger at all."""
        with self.ledger.reading() as connection:
            return connection.scalar(select(executions.c.seq).where(executions.c.digest == digest)) is not None

    def reopen(self, digest: str) -> None:
        """A finished execution whose stored result does not fit any more: make it again."""
        broken = update(executions).where(executions.c.digest == digest, executions.c.state == "done")
        with self.ledger.writing() as connection:
            connection.execute(broken.values(**QUEUED))

    def oldest(self) -> float:
        """Seconds since the oldest execution that waits was asked for; 0 where none waits."""
        with self.ledger.reading() as connection:
            since = connection.scalar(select(func.min(executions.c.created)).where(executions.c.state == "queued"))
        return 0.0 if since is None else max(0.0, self.ledger.clock() - since)

    def _change(self, claim: Claim, values: dict[str, Any], counts: Counts | None = None) -> bool:
        with self.ledger.writing() as connection:
            changed = bool(connection.execute(update(executions).where(_held(claim)).values(**values)).rowcount)
            if changed and counts:
                count(connection, counts)
        return changed


QUEUED: dict[str, Any] = {
    "state": "queued",
    "code": None,
    "detail": None,
    "claim": None,
    "owner": None,
    "lease_until": None,
    "not_before": 0.0,
    "tries": 0,
    "crashes": 0,
    "done": 0,
    "result": None,
    "ended": None,
}


def _held(claim: Claim) -> Any:
    return and_(executions.c.digest == claim.digest, executions.c.claim == claim.token, executions.c.state == "running")


def _ended(state: str, now: float) -> dict[str, Any]:
    return {"state": state, "claim": None, "lease_until": None, "ended": now}
