"""Ray Train for real: two workers, one killed once; a killed driver; the same call goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contracts.bundle import read_artifact
from training.distributed import TrainRequest, pending, train_system
from training.record import read_record

pytestmark = pytest.mark.cluster
# long enough to be killed in the middle
CHANGES = {"coder": {"steps": 60, "checkpoint_every": 5}, "mouth": {"steps": 20, "checkpoint_every": 5}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, toy_system):
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    temporary = Path("/tmp") / f"r-{os.getpid()}"  # a unix socket's path may have 107 bytes
    options = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": str(temporary)}
    ray.init(address="local", num_cpus=4, **options)
    yield
    ray.shutdown()


def ask(small, system: str, out: Path, **changes) -> TrainRequest:
    given = {"workers": 2, "changes": CHANGES, "code": "c0ffee+123456", "threads": 1} | changes
    return TrainRequest(system, "tiny", small.dataset, small.selection_folder, out, **given)


def weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {str(f.relative_to(out)): load_file(f) for f in sorted(out.glob("*/artifact/*/*.safetensors"))}


def ray_workers() -> dict[str, int]:
    """Ray Train's workers on this machine, by the name that Ray gives their processes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if title.startswith("ray::") and "RayTrainWorker" in title:
            found[folder.name] = parents
    return found


def test_a_killed_worker_costs_no_step_and_changes_no_bit(cluster, small_dataset, toy_system, tmp_path):
    unbroken, broken = (ask(small_dataset, toy_system, tmp_path / name) for name in ("unbroken", "broken"))
    seen: list[tuple[int, int, str]] = []
    results = train_system(unbroken, lambda *told: seen.append(told))
    assert [(r.stage, r.trained) for r in results] == [("coder", True), ("mean", True), ("mouth", True)]
    assert seen[-1][0] == seen[-1][1] == 60 + 1 + 20
    assert pending(unbroken) == []
    assert [r.trained for r in train_system(unbroken, lambda *_: None)] == [False] * 3
    artifact = read_artifact(unbroken.out / "mouth" / "artifact")
    assert artifact.lineage.dataset == small_dataset.selection.dataset
    assert artifact.lineage.selection == small_dataset.selection.digest
    assert set(artifact.lineage.parents) == {"coder", "mean"}
    assert {"known/l1", "new/l1", "known/held", "new/held"} == set(artifact.measures)

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            lines = read_record(broken.out / "coder")
            if any(line["kind"] == "train" and line["step"] >= 12 for line in lines):
                os.kill(int(sorted(ray_workers())[0]), signal.SIGKILL)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    train_system(broken, lambda *_: None)
    thread.join()
    starts = [line["step"] for line in read_record(broken.out / "coder") if line["kind"] == "start"]
    assert len(starts) == 2, "the worker was not killed while it trained"
    assert starts[1] >= 5  # it went on from a checkpoint
    one, other = weights(unbroken.out), weights(broken.out)
    assert one.keys() == other.keys()
    for file, tensors in one.items():
        for name, value in tensors.items():
            assert torch.equal(value, other[file][name]), (file, name)
    for stage in ("coder", "mouth"):
        steps = [line["step"] for line in read_record(broken.out / stage) if line["kind"] == "train"]
        assert steps == sorted(set(steps))
    assert not list((broken.out / "coder").glob("checkpoints"))
    assert not (broken.out / ".ray").exists()


DRIVER = """
    import sys
    from pathlib import Path
    import ray
    from training.distributed import TrainRequest, train_system

    dataset, selection, out, temporary = map(Path, sys.argv[1:5])
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(temporary))
    changes = {"coder": {"steps": 60, "checkpoint_every": 5}}
    request = TrainRequest("tones", "tiny", dataset, selection, out, changes=changes, only=["coder"], threads=1)
    train_system(request, lambda *_: None)
"""


def test_a_killed_driver_is_started_again(cluster, small_dataset, toy_system, train_all, tmp_path):
    """The first driver dies by SIGKILL with its cluster; the same call then goes on from the checkpoint."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(small_dataset.dataset)]
    command += [str(small_dataset.selection_folder), str(out), f"/tmp/r-{os.getpid()}-k"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and driver.poll() is None:
        if any(line["kind"] == "train" and line["step"] >= 12 for line in read_record(out / "coder")):
            break
        time.sleep(0.02)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    choice = {"workers": 1, "changes": {"coder": CHANGES["coder"]}, "only": ["coder"], "code": "unknown"}
    train_system(ask(small_dataset, toy_system, out, **choice), lambda *_: None)
    steps = [line["step"] for line in read_record(out / "coder") if line["kind"] == "start"]
    assert len(steps) == 2
    assert steps[1] >= 5
    whole = ask(small_dataset, toy_system, tmp_path / "whole", **choice)
    train_all(whole)  # without Ray, unbroken
    one, other = weights(out), weights(whole.out)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[file][n]) for file, tensors in one.items() for n, value in tensors.items())
