"""Ray Train for real: two workers, one killed; then a killed driver; the same call goes on."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forks import finish, forking, telling
from safetensors.torch import load_file

from contracts.bundle import read_artifact
from contracts.errors import Misuse
from contracts.selection import write_selection
from flows.cluster import cluster as connected
from training.distributed import TrainRequest, pending, train_system
from training.record import read_record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]  # three starts of a group, on a machine that may be busy
STEPS, EVERY = 60, 5
CHANGES = {"coder": {"steps": STEPS, "checkpoint_every": EVERY}, "mouth": {"steps": 10, "checkpoint_every": 5}}
SLOW = CHANGES | {"coder": CHANGES["coder"] | {"pause": 0.04}}  # to be killed in the middle


@pytest.fixture(scope="module")
def cluster(toy_system) -> Iterator[str]:
    """A standing cluster; its address."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves workers beside whatever else runs
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # Ray Train's actors have an environment of their own
        with connected(cpus=4):
            yield ray.get_runtime_context().gcs_address


def ask(small, system: str, out: Path, **changes) -> TrainRequest:
    given = {"workers": 2, "changes": CHANGES, "code": "c0ffee+123456", "threads": 1} | changes
    return TrainRequest(system, "tiny", small.dataset, small.selection_folder, out, **given)


def weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {str(f.relative_to(out)): load_file(f) for f in sorted(out.glob("*/artifact/*/*.safetensors"))}


def ray_workers(driver: int) -> list[int]:
    """Ray Train's workers of the cluster that ``driver`` started, in order of their process ids."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue

    def below(process: int) -> bool:
        return process == driver or (process in parents and below(parents[process]))

    return sorted(p for p, title in titles.items() if "RayTrainWorker" in title and below(p))


DRIVER = """
    import sys
    from pathlib import Path
    import ray
    from training.distributed import TrainRequest, train_system

    address, system, changes, *folders = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    options = {"workers": 2, "changes": eval(changes), "code": "c0ffee+123456", "threads": 1}
    train_system(TrainRequest(system, "tiny", *map(Path, folders), **options), lambda *_: None)
"""


def starts(out: Path) -> list[int]:
    """The steps at which the coder's training began and was resumed."""
    return [line["step"] for line in read_record(out / "coder") if line["kind"] == "start"]


def wait_for_step(out: Path, step: int, driver: subprocess.Popen[bytes]) -> None:
    wait(lambda: any(x["kind"] == "train" and x["step"] >= step for x in read_record(out / "coder")), driver)


def wait_for_start(out: Path, number: int, driver: subprocess.Popen[bytes]) -> None:
    wait(lambda: len(starts(out)) >= number, driver)


def wait(happened: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    """Until it has happened; a driver that ended before, or 400 s, is an error."""
    deadline = time.monotonic() + 600
    while not happened():
        assert driver.poll() is None, f"the driver ended with {driver.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def without_ray(request: TrainRequest) -> Path:
    """Train the request unbroken in processes of our own; where it stands."""
    request.out.mkdir(parents=True)
    with forking("toys.rank", "training.feed") as context:
        from toys.rank import train_request

        given = [(rank, 2, request.out / "meeting", request, ["coder", "mean", "mouth"]) for rank in range(2)]
        ranks = [(request.out, each[0], train_request, each) for each in given]
        processes = [context.Process(target=telling, args=each) for each in ranks]
        for process in processes:
            process.start()
        finish(processes, request.out, 150)
    return request.out


def test_killed_worker_and_killed_driver_change_no_bit(cluster, small_dataset, toy_system, tmp_path):
    """SIGKILL for a worker, then for the driver: the same call ends with the weights of two processes without Ray."""
    broken = ask(small_dataset, toy_system, tmp_path / "broken", changes=SLOW)
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), cluster, toy_system, repr(SLOW)]
    command += map(str, (small_dataset.dataset, small_dataset.selection_folder, broken.out))
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_step(broken.out, EVERY + 2, driver)
        os.kill(ray_workers(os.getpid())[0], signal.SIGKILL)
        wait_for_start(broken.out, 2, driver)
        resumed = starts(broken.out)[1]
        assert EVERY <= resumed < STEPS, "a killed worker's group goes on from the last checkpoint"
        wait_for_step(broken.out, resumed + EVERY + 2, driver)
    finally:
        driver.kill()
        assert driver.wait() == -signal.SIGKILL

    seen: list[tuple[int, int, str]] = []
    results = train_system(broken, lambda *told: seen.append(told))
    assert len(starts(broken.out)) == 3
    assert starts(broken.out)[2] >= resumed + EVERY
    assert [(r.stage, r.trained) for r in results] == [("coder", True), ("mean", True), ("mouth", True)]
    assert seen[-1][0] == seen[-1][1] == STEPS + 1 + 10
    one, other = weights(without_ray(ask(small_dataset, toy_system, tmp_path / "unbroken"))), weights(broken.out)
    assert one.keys() == other.keys()
    for file, tensors in one.items():
        for name, value in tensors.items():
            assert torch.equal(value, other[file][name]), (file, name)

    for stage in ("coder", "mouth"):
        steps = [line["step"] for line in read_record(broken.out / stage) if line["kind"] == "train"]
        assert steps == sorted(set(steps))
    artifact = read_artifact(broken.out / "mouth" / "artifact")
    assert artifact.lineage.dataset == small_dataset.selection.dataset
    assert artifact.lineage.selection == small_dataset.selection.digest
    assert set(artifact.lineage.parents) == {"coder", "mean"}
    assert set(artifact.measures) == {"known/l1", "new/l1", "known/held", "new/held"}
    assert pending(broken) == []
    assert [r.trained for r in train_system(broken, lambda *_: None)] == [False] * 3
    assert not (broken.out / "coder" / "checkpoints").exists()
    assert not (broken.out / ".ray").exists()


def test_what_stops_a_stage_reaches_the_caller_as_it_is(cluster, small_dataset, toy_system, tmp_path):
    """Raised in a worker, after no more than one restart of the group."""
    only_women = small_dataset.selection.model_copy(
        update={"samples": tuple(s for s in small_dataset.selection.samples if s.gender == "f")}
    )
    write_selection(tmp_path / "women", only_women)
    request = ask(small_dataset, toy_system, tmp_path / "out", only=["mean"], workers=1, changes={})
    with pytest.raises(Misuse, match="the mean face needs women and men"):
        train_system(dataclasses.replace(request, selection=tmp_path / "women"), lambda *_: None)
