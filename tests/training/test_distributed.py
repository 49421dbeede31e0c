"""Ray Train for real: two workers, one killed; then a killed driver; the same call goes on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contracts.bundle import read_artifact
from contracts.errors import Misuse
from contracts.selection import write_selection
from training.distributed import TrainRequest, pending, train_system
from training.record import read_record

pytestmark = pytest.mark.cluster
# long enough to be killed in the middle
CHANGES = {"coder": {"steps": 200, "checkpoint_every": 10}, "mouth": {"steps": 20, "checkpoint_every": 5}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, toy_system):
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    temporary = Path("/tmp") / f"r-{os.getpid()}"  # a unix socket's path may have 107 bytes
    options = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": str(temporary)}
    ray.init(address="local", num_cpus=4, **options)
    yield
    ray.shutdown()
    for left in (temporary, temporary.with_name(f"{temporary.name}-k")):
        shutil.rmtree(left, ignore_errors=True)


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

    dataset, selection, out, temporary = map(Path, sys.argv[1:5])
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(temporary))
    changes = {"coder": {"steps": 200, "checkpoint_every": 10}, "mouth": {"steps": 20, "checkpoint_every": 5}}
    options = {"workers": 2, "changes": changes, "code": "c0ffee+123456", "threads": 1}
    train_system(TrainRequest("tones", "tiny", dataset, selection, out, **options), lambda *_: None)
"""


def wait_for_step(out: Path, step: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and driver.poll() is None:
        if any(line["kind"] == "train" and line["step"] >= step for line in read_record(out / "coder")):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def test_killed_worker_and_killed_driver_change_no_bit(cluster, small_dataset, toy_system, tmp_path):
    """SIGKILL for a worker, then for the driver: the same call ends with the weights of an unbroken run."""
    broken, unbroken = (ask(small_dataset, toy_system, tmp_path / name) for name in ("broken", "unbroken"))
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(small_dataset.dataset)]
    command += [str(small_dataset.selection_folder), str(broken.out), f"/tmp/r-{os.getpid()}-k"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_step(broken.out, 22, driver)
    os.kill(ray_workers(driver.pid)[0], signal.SIGKILL)
    while sum(line["kind"] == "start" for line in read_record(broken.out / "coder")) < 2 and driver.poll() is None:
        time.sleep(0.02)
    resumed = [line["step"] for line in read_record(broken.out / "coder") if line["kind"] == "start"][1]
    assert resumed >= 20, "a killed worker's group goes on from the last checkpoint"
    wait_for_step(broken.out, resumed + 12, driver)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL

    seen: list[tuple[int, int, str]] = []
    results = train_system(broken, lambda *told: seen.append(told))
    starts = [line["step"] for line in read_record(broken.out / "coder") if line["kind"] == "start"]
    assert len(starts) == 3
    assert starts[2] >= resumed + 10
    assert [(r.stage, r.trained) for r in results] == [("coder", True), ("mean", True), ("mouth", True)]
    assert seen[-1][0] == seen[-1][1] == 200 + 1 + 20
    train_system(unbroken, lambda *_: None)
    one, other = weights(unbroken.out), weights(broken.out)
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
