"""The service's counts for Prometheus, read from the ledger at the time of a scrape: any door tells of all replicas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving import tally
from serving.queue import Queue
from serving.tally import SHOWN, counted

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "voxface_serve_"
# name -> (type, labels, meaning); a counter's name ends in _total where it is scraped
METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "executions": ("gauge", ("bundle", "state"), "Videos in the ledger by how they stand"),
    "waiting_seconds": ("gauge", (), "Age of the oldest video that waits"),
    "queue_limit": ("gauge", (), "Videos that may wait before submissions are answered 429"),
    tally.VIDEOS: ("counter", ("bundle", "state", "code"), "Videos that ended, by how and why"),
    tally.FRAMES: ("counter", ("bundle",), "Frames of videos that were made"),
    tally.SPEECH_S: ("counter", ("bundle",), "Seconds of speech of videos that were made"),
    tally.STEP_S: ("counter", ("bundle", "step"), "Seconds that replicas spent, by step"),
    tally.RETRIES: (
        "counter",
        ("bundle", "why"),
        "Videos given out again, by why",
    ),
    tally.REQUESTS: ("counter", ("status", "code"), "Requests that changed something or were refused"),
}


class Collector:
    """All metrics of one service, as ``prometheus_client`` wants them."""

    def __init__(self, queue: Queue, limit: int) -> None:
        self._queue, self._limit = queue, limit

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = counted(self._queue.ledger)
        now: dict[str, list[tuple[list[str], float]]] = {
            "executions": [([b[:SHOWN], state], each) for (b, state), each in sorted(self._queue.standing().items())],
            "waiting_seconds": [([], self._queue.oldest())],
            "queue_limit": [([], float(self._limit))],
        }
        for name, (kind, labels, says) in METRICS.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                PREFIX + name, says, labels=labels
            )
            found = [([*key[1:]], value) for key, value in sorted(counts.items()) if key[0] == name]
            for values, value in now.get(name, found):
                family.add_metric(values, value)
            yield family


def exposition(queue: Queue, limit: int) -> str:
    """The text that Prometheus reads; ``limit``: of the queue."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(Collector(queue, limit))
    return generate_latest(registry).decode()
