"""Rows that did not become samples, tried again: which ones, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Misuse
from contracts.index import read_index
from contracts.manifest import Row
from contracts.plan import PLAN_FILE, read_plan
from contracts.reasons import Reason

if TYPE_CHECKING:
    from preprocessing.build import IngestSettings

FORMS = "failed, rejected:REASON or all-rejected"


@dataclass(frozen=True)
class Retry:
    """The rows to try again: how each stands now, and those that planning has to look at first."""

    before: dict[str, str]  # key -> reason or code
    planned_anew: list[Row]  # refused in planning: for their file, path or people

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.before)


def choose(dataset: Path, which: str) -> Retry:
    """The rows of ``dataset`` that ``which`` names: failed, rejected:REASON or all-rejected.

    Raises ``Misuse`` for other words and where there is no dataset yet.
    """
    state, _, reason = which.partition(":")
    if which == "all-rejected":
        state = "rejected"
    elif which != "failed" and (state != "rejected" or reason not in set(Reason)):
        known = f" ({reason} is none)" if state == "rejected" and reason else ""
        raise Misuse(f"--retry {which}: expected {FORMS}, as rejected:NO_FACE{known}")
    plan = read_plan(dataset)
    if plan is None:
        raise Misuse(f"{dataset / PLAN_FILE} does not exist: there is nothing to try again, run voxface ingest first")
    before = {key: now for key, (ended, now) in standing(dataset).items() if ended == state and reason in ("", now)}
    return Retry(before, [row.values for row in plan[0] if row.key in before and row.reason is not None])


def stale_shards(dataset: Path, settings: IngestSettings, keys: frozenset[str]) -> int:
    """How many of the shards that hold ``keys`` were made by other steps than today's: all their rows are made anew."""
    from preprocessing.accounts import pending, planned_shards

    shards = planned_shards(dataset)
    holding = {number: rows for number, rows in shards.items() if any(row.key in keys for row in rows)}
    return len(pending(dataset, settings, holding))


def standing(dataset: Path) -> dict[str, tuple[str, str]]:
    """State, and reason or code, of every row in a committed shard, by key."""
    lines = read_index(dataset).select(["level", "key", "state", "reason"]).to_pylist()
    return {line["key"]: (line["state"], line["reason"] or line["state"]) for line in lines if line["level"] == "row"}


def outcome(dataset: Path, retry: Retry) -> dict[str, Any]:
    """What the second try changed: a line per way in which rows ended before and now."""
    now = standing(dataset)
    moves = Counter((before, now[key][1]) for key, before in retry.before.items())
    return {
        "rows": len(retry.before),
        "changed": sum(count for (before, after), count in moves.items() if before != after),
        "moves": [{"before": b, "now": a, "rows": n} for (b, a), n in sorted(moves.items())],
    }
