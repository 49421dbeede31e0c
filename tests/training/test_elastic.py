"""One worker and two are the same training: items, draws, losses within a tolerance; any resumes another's."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import finish, forking, telling

from training.agenda import TrainRequest
from training.record import read_record

STEPS = 50
TOLERANCE = 1e-5  # relative, of a loss: sums of float32 in another order
SETTINGS = {"steps": STEPS, "batch": 8, "validate_every": 0, "checkpoint_every": 10}


@pytest.fixture(scope="module")
def spawn(small_dataset, toy_system) -> Iterator[Callable[..., None]]:
    """Train the toy coder with that many processes; ``stop``: after so many steps of this call."""
    with forking("toys.rank") as context:

        def run(
            world: int, out: Path, *, kind: str = "plain", stop: int | None = None, seconds: float = 150, **changes
        ) -> None:
            from toys.rank import Given, train_rank

            out.mkdir(parents=True, exist_ok=True)
            given = Given(small_dataset.dataset, small_dataset.selection_folder, out, toy_system, "coder", kind)
            given = dataclasses.replace(given, settings=SETTINGS | changes, stop=stop)
            meeting = out / f"meeting-{secrets.token_hex(4)}"
            ranks = [(out, rank, train_rank, (rank, world, meeting, given)) for rank in range(world)]
            processes = [context.Process(target=telling, args=each) for each in ranks]
            for process in processes:
                process.start()
            finish(processes, out, seconds)

        yield run


def losses(folder: Path) -> list[float]:
    return [line["values"]["main/total"] for line in read_record(folder) if line["kind"] == "train"]


def drawn(folder: Path, world: int) -> dict[int, list[str]]:
    """Keys of the global batch by step, as the processes of the last call with that many took them."""
    parts = [dict(json.loads((folder / f"drawn-{world}-{rank}.json").read_text())) for rank in range(world)]
    return {step: [key for part in parts for key in part[step]] for step in parts[0]}


@pytest.fixture(scope="module")
def alone(spawn, tmp_path_factory) -> Path:
    """Fifty steps of one worker."""
    out = tmp_path_factory.mktemp("alone") / "coder"
    spawn(1, out)
    return out


def test_two_workers_with_half_the_batch_have_the_losses_of_one(spawn, alone, tmp_path):
    spawn(2, tmp_path / "coder")
    one, two = losses(alone), losses(tmp_path / "coder")
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, rel=TOLERANCE)
    assert sum(one[-10:]) < 0.99 * sum(one[:10]), "it learned"
    assert drawn(tmp_path / "coder", 2) == drawn(alone, 1)


def test_two_stop_one_goes_on_two_finish(spawn, alone, tmp_path):
    """Each resumption with another number of workers: the order of keys is that of an unbroken run."""
    out, seen = tmp_path / "coder", {}
    for world, stop in ((2, 15), (1, 20), (2, None)):
        spawn(world, out, stop=stop)
        seen |= drawn(out, world)
    assert seen == drawn(alone, 1)
    assert losses(out) == pytest.approx(losses(alone), rel=TOLERANCE)
    lines = read_record(out)
    assert [(line["step"], line["world"]) for line in lines if line["kind"] == "start"] == [(0, 2), (15, 1), (35, 2)]


def test_workers_are_no_part_of_what_a_checkpoint_may_be_continued_with(small_dataset, toy_system, tmp_path):
    one = TrainRequest(toy_system, "tiny", small_dataset.dataset, small_dataset.selection_folder, tmp_path)
    assert one.fingerprint() == dataclasses.replace(one, workers=4, loaders=3, threads=2).fingerprint()


def test_a_worker_that_accumulates_is_as_two(spawn, alone, tmp_path):
    spawn(2, tmp_path / "coder", accumulate=2)
    assert losses(tmp_path / "coder") == pytest.approx(losses(alone), rel=TOLERANCE)


def test_two_workers_put_out_the_sample_that_one_does(spawn, tmp_path):
    """Only one of the two sees the loss that is not finite; both skip, name and put out alike."""
    folders = {world: tmp_path / str(world) / "coder" for world in (1, 2)}
    for world, folder in folders.items():
        spawn(world, folder, kind="poisoned", batch=4)
    quarantines = [(folder / "quarantine.json").read_bytes() for folder in folders.values()]
    assert quarantines[0] == quarantines[1]
    bad = [line for line in json.loads(quarantines[0]) if line["out"] is not None]
    assert [line["times"] for line in bad if line["key"] == drawn(folders[1], 1)[0][0]] == [3]
    assert losses(folders[2]) == pytest.approx(losses(folders[1]), rel=TOLERANCE)
    assert not any(bad[0]["key"] in keys for step, keys in drawn(folders[1], 1).items() if step >= bad[0]["out"])
    order = {world: drawn(folder, world) for world, folder in folders.items()}
    assert order[1] == order[2]
