"""F4, F16: worker processes that are killed from outside, or that die on one row each time."""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from faults.material import digests, leftovers, record_clips, until
from faults.row import MARK, Figure, kill_marked, reached

from contracts.index import read_index
from contracts.manifest import row_from
from contracts.shards import committed
from flows.cluster import cluster
from preprocessing import run
from preprocessing.build import IngestSettings
from preprocessing.plan import plan_dataset
from preprocessing.shard import ShardTask

SETTINGS = IngestSettings(rows_per_shard=2)
CLIPS = 5


@contextmanager
def ray(folder: Path) -> Iterator[None]:
    """A local Ray with its files under ``folder``, or the one that runs; no process of it is left afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    mark = secrets.token_hex(8)
    (folder / "r").mkdir(parents=True)
    try:
        with mock.patch.dict(os.environ, {MARK: mark, "RAY_TMPDIR": str(folder / "r")}), cluster():
            yield
    finally:
        kill_marked(mark)


def plan(dataset: Path, root: Path) -> list[str]:
    """Plan the clips of ``root``; the keys of the rows."""
    names = sorted(path.name for path in root.iterdir() if path.suffix != ".csv")
    return [row.key for row in plan_dataset(dataset, [row_from({"file": n}) for n in names], root, rows_per_shard=2)]


def noting(real: Any, notes: Path) -> Any:
    """``make_shard`` that notes, beside the dataset, which process begins which shard and ends which row."""

    def make_shard(task: ShardTask) -> Iterator[Any]:
        import os

        def note(what: str) -> None:
            with (notes / str(os.getpid())).open("a") as file:
                file.write(f"{task.number} {what}\n")

        note("begins")
        for told in real(task):
            if told.key and not told.carried:
                note(told.key)
            yield told

    return make_shard


def noted(notes: Path) -> dict[int, list[tuple[int, str]]]:
    """Of each process: shard and row key, or ``begins``, in order."""
    found = {}
    for path in notes.iterdir():
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
        found[int(path.name)] = [(int(number), what) for number, what in lines]
    return found


def kill_worker(folder: Path, count: int) -> Figure:
    """F4: one of two workers gets SIGKILL while both are at work."""
    root, rng = folder / "clips", random.Random(4)
    record_clips(root, CLIPS)
    landed = attempts = same = lost = others = 0
    most = 0
    with ray(folder):
        keys = plan(folder / "whole", root)
        run.ingest(folder / "whole", root, workers=2, settings=SETTINGS)
        whole = digests(folder / "whole")
        while landed < count and attempts < 4 * count:
            dataset, notes = folder / f"killed-{attempts}", folder / f"notes-{attempts}"
            attempts += 1
            notes.mkdir()
            plan(dataset, root)
            killed: list[tuple[int, int]] = []

            def kill(notes: Path = notes, killed: list[tuple[int, int]] = killed) -> None:
                until(lambda: len(list(notes.iterdir())) >= 2)
                threading.Event().wait(rng.uniform(0.0, 1.0))
                for process, lines in sorted(noted(notes).items()):
                    number = lines[-1][0]
                    if not (dataset / f"shard-{number:06d}.json").exists():  # noqa: B023 (ends before the next trial)
                        os.kill(process, signal.SIGKILL)
                        killed.append((process, number))
                        return

            killer = threading.Thread(target=kill)
            killer.start()
            with mock.patch.object(run, "make_shard", noting(run.make_shard, notes)):
                report = run.ingest(dataset, root, workers=2, settings=SETTINGS)
            killer.join()
            if not killed:
                continue
            landed += 1
            reached(landed, count)
            lines = [line for each in noted(notes).values() for line in each]
            rows = [what for _, what in lines if what != "begins"]
            again = {row for row in rows if rows.count(row) > 1}
            in_flight = {what for process, number in killed for n, what in noted(notes)[process] if n == number}
            others += len(again - in_flight)
            most = max(most, len(again))
            lost += len(keys) - report.read + len(set(whole) - set(digests(dataset)))
            same += digests(dataset) == whole and not leftovers(dataset) and not report.failed
    said = f"lost {lost}, identical {same}/{landed}, rows run again: at most {most}, not in flight {others}"
    return Figure(said, landed == same == count and not lost and not others)


def die_on_row(folder: Path, count: int) -> Figure:
    """F16: a process calls abort() each time it meets one row, as a detector does that segfaults."""
    root = folder / "clips"
    record_clips(root, 2)
    ended = others = lost = 0
    tries: list[int] = []
    with ray(folder):
        plan(folder / "whole", root)
        run.ingest(folder / "whole", root, workers=2, settings=SETTINGS)
        standing = {line["file"]: line for line in read_index(folder / "whole").to_pylist() if line["level"] == "row"}
        victims = [name for name, line in sorted(standing.items()) if line["state"] == "kept"]
        for trial in range(count):
            victim, dataset, notes = victims[trial % len(victims)], folder / f"died-{trial}", folder / f"tries-{trial}"
            keys = plan(dataset, root)
            alone = aborting(run.build_alone, victim, notes)
            whole = aborting(run.make_shard, victim, folder / f"first-{trial}")
            with mock.patch.multiple(run, make_shard=whole, build_alone=alone):
                report = run.ingest(dataset, root, workers=2, settings=SETTINGS)
            rows = {line["file"]: line for line in read_index(dataset).to_pylist() if line["level"] == "row"}
            ended += (rows[victim]["state"], rows[victim]["reason"]) == ("failed", "CRASHED")
            tries.append(len(notes.read_text().split()))
            same = [rows[name]["state"] == standing[name]["state"] for name in rows if name != victim]
            others += all(same) and report.failed == {"CRASHED": 1}
            lost += len(keys) - len(rows)
            held = [key for shard in committed(dataset) for key in shard.offsets]
            lost += sum(line["state"] == "kept" for line in rows.values()) - len(held)
            reached(trial + 1, count)
    said = f"failed(CRASHED) {ended}/{count} after {max(tries)} tries alone, "
    said += f"others as without {others}/{count}, lost {lost}"
    return Figure(said, ended == others == count and not lost and set(tries) == {2})


def aborting(real: Any, victim: str, notes: Path) -> Any:
    """``real``, in whose process building the row of ``victim`` calls abort()."""

    def patched() -> Any:
        import os
        from unittest import mock

        from preprocessing import shard

        build = shard.build_row

        def build_row(planned: Any, *rest: Any) -> Any:
            if planned.values.file == victim:
                with notes.open("a") as file:
                    file.write("died\n")
                os.abort()
            return build(planned, *rest)

        return mock.patch.object(shard, "build_row", build_row)

    if real.__name__ == "make_shard":

        def make_shard(task: ShardTask) -> Iterator[Any]:
            with patched():
                yield from real(task)

        return make_shard

    def build_alone(*given: Any) -> None:
        with patched():
            real(*given)

    return build_alone
