"""An ingestion's counts as Prometheus metrics: scraped from a port of this machine, or left in a text file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from flows.meter import Meter

WRITE_EVERY_S = 5.0
LOOPBACK = "127.0.0.1"
# name -> (type, labels, meaning); a counter's name ends in _total where it is scraped
METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "voxface_ingest_rows": ("counter", ("state", "reason"), "Rows in committed shards by how they ended"),
    "voxface_ingest_rows_carried": ("counter", (), "Rows in committed shards taken over as they stood"),
    "voxface_ingest_rows_planned": ("gauge", (), "Rows of the shards that this run makes"),
    "voxface_ingest_shards": ("counter", (), "Shards committed"),
    "voxface_ingest_shards_planned": ("gauge", (), "Shards that this run makes"),
    "voxface_ingest_shards_lost": ("counter", ("why",), "Shards begun again after the death of a worker or a node"),
    "voxface_ingest_source_frames": ("counter", (), "Source frames decoded"),
    "voxface_ingest_step_seconds": ("counter", ("step", "clock"), "Seconds spent on each step, on both clocks"),
    "voxface_ingest_worker_peak_bytes": ("gauge", (), "Most resident memory that any worker held"),
    "voxface_ingest_run_seconds": ("gauge", (), "Age of the run"),
    "voxface_ingest_ended": ("gauge", (), "1 once the run has ended well"),
}


class Collector:
    """Reads the meter at the time of a scrape: between scrapes nothing is done."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, (kind, labels, says) in METRICS.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, says, labels=labels)
            for values, value in self._samples(name):
                family.add_metric(values, value)
            yield family

    def _samples(self, name: str) -> list[tuple[list[str], float]]:
        meter = self._meter
        match name.removeprefix("voxface_ingest_"):
            case "rows":
                return [([state, reason], count) for (state, reason), count in sorted(meter.rows.items())]
            case "rows_carried":
                return [([], meter.carried)]
            case "rows_planned":
                return [([], meter.planned_rows)]
            case "shards":
                return [([], meter.shards)]
            case "shards_planned":
                return [([], meter.planned_shards)]
            case "shards_lost":
                return [([why], meter.lost[why]) for why in ("worker", "node")]
            case "source_frames":
                return [([], meter.frames)]
            case "step_seconds":
                spent = list(meter.spent.items())
                return [([step, clock], cost[place]) for step, cost in spent for place, clock in enumerate(CLOCKS)]
            case "worker_peak_bytes":
                return [([], max(list(meter.peaks.values()), default=0))]
            case "run_seconds":
                return [([], time.monotonic() - meter.began)]
            case "ended":
                return [([], float(meter.ended))]
        raise KeyError(name)


CLOCKS = ("wall", "cpu")  # in the order of a Cost


@contextmanager
def published(meter: Meter, port: int | None, file: Path | None) -> Iterator[Callable[[], None]]:
    """Publish ``meter`` while the run lasts; call what is yielded now and then, so that the file stays fresh.

    Raises ``Misuse`` where the port is taken or the file cannot be written.
    """
    if port is None and file is None:
        yield lambda: None
        return
    from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile

    registry = CollectorRegistry()
    registry.register(Collector(meter))
    written = -WRITE_EVERY_S

    def write(*, now: bool = False) -> None:
        nonlocal written
        if file is not None and (now or time.monotonic() - written >= WRITE_EVERY_S):
            written = time.monotonic()
            try:
                write_to_textfile(str(file), registry)
            except OSError as error:
                raise Misuse(f"--metrics-file {file} cannot be written: {error.strerror}") from error

    server = None
    write(now=True)
    if port is not None:
        try:
            server, _ = start_http_server(port, addr=LOOPBACK, registry=registry)
        except OSError as error:
            raise Misuse(f"--metrics-port {port} on {LOOPBACK} cannot be used: {error.strerror}") from error
    try:
        yield write
        meter.ended = True
    finally:
        write(now=True)
        if server is not None:
            server.shutdown()
            server.server_close()
