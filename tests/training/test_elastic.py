"""One worker and two are the same training: items, draws, losses within a tolerance; any resumes another's."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from training.agenda import TrainRequest
from training.record import read_record

ROOT = Path(__file__).parents[2]
STEPS = 50
TOLERANCE = 1e-5  # relative, of a loss: sums of float32 in another order
SETTINGS = {"steps": STEPS, "batch": 8, "validate_every": 0, "checkpoint_every": 10}


def spawn(world: int, small, out: Path, *, kind: str = "plain", stop: int | None = None, **changes) -> None:
    """Train the toy coder with that many processes; ``stop``: after so many steps of this call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    given = [port, small.dataset, small.selection_folder, out, "tones", "coder", kind, json.dumps(SETTINGS | changes)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    program = [sys.executable, str(ROOT / "tests" / "toys" / "rank.py")]
    tail = [] if stop is None else [str(stop)]
    processes = [
        subprocess.Popen([*program, str(rank), str(world), *map(str, given), *tail], env=environment)
        for rank in range(world)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()


def losses(folder: Path) -> list[float]:
    return [line["values"]["main/total"] for line in read_record(folder) if line["kind"] == "train"]


def drawn(folder: Path, world: int) -> dict[int, list[str]]:
    """Keys of the global batch by step, as the processes of the last call with that many took them."""
    parts = [dict(json.loads((folder / f"drawn-{world}-{rank}.json").read_text())) for rank in range(world)]
    return {step: [key for part in parts for key in part[step]] for step in parts[0]}


@pytest.fixture(scope="module")
def alone(small_dataset, toy_system, tmp_path_factory) -> Path:
    """Fifty steps of one worker."""
    out = tmp_path_factory.mktemp("alone") / "coder"
    spawn(1, small_dataset, out)
    return out


def test_two_workers_with_half_the_batch_have_the_losses_of_one(alone, small_dataset, toy_system, tmp_path):
    spawn(2, small_dataset, tmp_path / "coder")
    one, two = losses(alone), losses(tmp_path / "coder")
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, rel=TOLERANCE)
    assert sum(one[-10:]) < 0.99 * sum(one[:10]), "it learned"
    assert drawn(tmp_path / "coder", 2) == drawn(alone, 1)


def test_two_stop_one_goes_on_two_finish(alone, small_dataset, toy_system, tmp_path):
    """Each resumption with another number of workers: the order of keys is that of an unbroken run."""
    out, seen = tmp_path / "coder", {}
    for world, stop in ((2, 15), (1, 20), (2, None)):
        spawn(world, small_dataset, out, stop=stop)
        seen |= drawn(out, world)
    assert seen == drawn(alone, 1)
    assert losses(out) == pytest.approx(losses(alone), rel=TOLERANCE)
    lines = read_record(out)
    assert [(line["step"], line["world"]) for line in lines if line["kind"] == "start"] == [(0, 2), (15, 1), (35, 2)]


def test_workers_are_no_part_of_what_a_checkpoint_may_be_continued_with(small_dataset, toy_system, tmp_path):
    one = TrainRequest(toy_system, "tiny", small_dataset.dataset, small_dataset.selection_folder, tmp_path)
    assert one.fingerprint() == dataclasses.replace(one, workers=4, loaders=3, threads=2).fingerprint()


def test_a_worker_that_accumulates_is_as_two(alone, small_dataset, toy_system, tmp_path):
    spawn(2, small_dataset, tmp_path / "coder", accumulate=2)
    assert losses(tmp_path / "coder") == pytest.approx(losses(alone), rel=TOLERANCE)


def test_two_workers_put_out_the_sample_that_one_does(small_dataset, toy_system, tmp_path):
    """Only one of the two sees the loss that is not finite; both skip, name and put out alike."""
    folders = {world: tmp_path / str(world) / "coder" for world in (1, 2)}
    for world, folder in folders.items():
        spawn(world, small_dataset, folder, kind="poisoned", batch=4)
    quarantines = [(folder / "quarantine.json").read_bytes() for folder in folders.values()]
    assert quarantines[0] == quarantines[1]
    bad = [line for line in json.loads(quarantines[0]) if line["out"] is not None]
    assert [line["times"] for line in bad if line["key"] == drawn(folders[1], 1)[0][0]] == [3]
    assert losses(folders[2]) == pytest.approx(losses(folders[1]), rel=TOLERANCE)
    assert not any(bad[0]["key"] in keys for step, keys in drawn(folders[1], 1).items() if step >= bad[0]["out"])
    order = {world: drawn(folder, world) for world, folder in folders.items()}
    assert order[1] == order[2]
