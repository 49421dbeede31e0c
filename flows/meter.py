"""What an ingestion does and costs, counted while it goes: for the progress line, the result and the metrics."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from preprocessing.costs import Cost, Costs, peak_bytes
from preprocessing.run import Observer
from preprocessing.shard import Told


class Meter(Observer):
    """Hears of every row and adds up; costs nothing that could be measured."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.driver = Costs()  # of this process: planning, starting Ray, the report
        self.planned_rows = self.planned_shards = 0
        self.rows: Counter[tuple[str, str]] = Counter()  # (state, reason or code) of rows in committed shards
        self.carried = 0  # of these, taken over as they stood
        self.frames = 0  # source frames decoded, in lost shards too
        self.shards = 0
        self.lost: Counter[str] = Counter()  # shards begun again, by what died: worker, node
        self.spent: dict[str, Cost] = {}  # by step; of lost shards too, as far as it was told
        self.peaks: dict[str, int] = {}  # bytes, by worker process
        self.ended = False
        self._making_since = time.monotonic()

    def begins(self, shards: int, rows: int) -> None:
        self.planned_shards, self.planned_rows = shards, rows
        self._making_since = time.monotonic()
        self._spend(self.driver.take())

    def told(self, told: Told) -> None:
        self.frames += told.frames
        self.peaks[told.worker] = max(told.peak_bytes, self.peaks.get(told.worker, 0))
        self._spend(told.costs)

    def committed(self, rows: list[Told]) -> None:
        self.shards += 1
        self.rows.update((row.state, row.ended if row.ended != row.state else "") for row in rows)
        self.carried += sum(row.carried for row in rows)

    def lost_shard(self, why: str) -> None:
        self.lost[why] += 1

    def pace(self, done: int, total: int) -> str:
        """Rows and source frames per second so far, and the time that the rest will take at that pace."""
        seconds = max(time.monotonic() - self._making_since, 1e-9)
        parts = [f"{done / seconds:.2f} rows/s", f"{self.frames / seconds:.0f} frames/s"]
        if 0 < done < total:
            parts.append(f"{clock(seconds / done * (total - done))} left")
        return ", ".join(parts)

    def result(self) -> dict[str, Any]:
        """For the result of the command and its record: what was made, how fast, and a line per step."""
        self._spend(self.driver.take())
        seconds = time.monotonic() - self.began
        made: dict[str, int] = {}
        for (state, reason), count in sorted(self.rows.items()):
            made[reason or state] = made.get(reason or state, 0) + count
        rows = sum(self.rows.values())
        return {
            "seconds": round(seconds, 1),
            "rows_made": made,
            "rows_carried_over": self.carried,
            "rows_per_s": round(rows / seconds, 3),
            "frames_per_s": round(self.frames / seconds, 1),
            "shards_lost": dict(self.lost),
            "worker_peak_mb": round(max(self.peaks.values(), default=0) / 1e6),
            "driver_peak_mb": round(peak_bytes() / 1e6),
            "spent": [
                {"on": name, "wall_s": round(cost.wall_s, 2), "cpu_s": round(cost.cpu_s, 2)}
                for name, cost in self.spent.items()
            ],
        }

    def _spend(self, costs: dict[str, Cost]) -> None:
        for name, cost in costs.items():
            self.spent[name] = self.spent.get(name, Cost()).plus(cost)


def clock(seconds: float) -> str:
    """A span of time for people.

    >>> clock(42), clock(150), clock(7000)
    ('42 s', '2 min 30 s', '1 h 56 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
