"""What work costs: seconds by name, on the clock and of the processor."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from preprocessing.media.nursery import NURSERY


class Cost(NamedTuple):
    """Seconds spent on one thing."""

    wall_s: float = 0.0
    cpu_s: float = 0.0  # of this process (all threads) and of the children that it has waited for

    def plus(self, other: Cost) -> Cost:
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


class Costs:
    """Adds up what is spent under each name.

    >>> costs = Costs()
    >>> with costs.of("Watch"):
    ...     pass
    >>> list(costs.take())
    ['Watch']
    """

    def __init__(self) -> None:
        self._spent: dict[str, Cost] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count what happens inside under ``name``, whether it succeeds or raises."""
        wall, cpu = time.perf_counter(), processor()
        try:
            yield
        finally:
            spent = Cost(time.perf_counter() - wall, processor() - cpu)
            self._spent[name] = self._spent.get(name, Cost()).plus(spent)

    def take(self) -> dict[str, Cost]:
        """What was spent since the last time this was asked, in order of first use."""
        spent, self._spent = self._spent, {}
        return spent


def processor() -> float:
    """CPU seconds of this process, of its children that have ended and been waited for, and of its decoders."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used) + NURSERY.spent_s


def peak_bytes() -> int:
    """The most memory that this process ever held (resident), on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
