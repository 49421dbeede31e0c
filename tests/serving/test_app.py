"""The Ray Serve applications, really started once: HTTP in, an mp4 out; a replica killed; no damaged bundle served."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.errors import Transient
from contracts.reasons import Reason
from flows.environment import QUIET
from serving.jobs import Job, Outcome, Refused

if TYPE_CHECKING:
    from serving.handle import Client

pytestmark = pytest.mark.timeout(1500)  # starting Ray and the networks takes seconds, or minutes where all is busy
LEASE_S = 8.0  # what a killed replica had in hand waits so long


@pytest.fixture(scope="module")
def cluster(toys: None) -> Iterator[None]:
    """A local Ray of four logical CPUs, shared by the tests of this module, in a folder that is nobody else's."""
    import ray

    folder = tempfile.mkdtemp(prefix="vs-", dir=os.environ.get("RAY_TMPDIR"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():  # as commands have it: Ray's own patience is too short for a busy machine
            if name.startswith("RAY_"):
                patch.setenv(name, value)
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's folder."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(cluster: None, bundle: Path, root: Path) -> Iterator[Client]:
    """The toy bundle, served, with a door."""
    from serving.app import DoorArguments, ModelArguments, run_local

    door = DoorArguments(root=root, models={"champion": bundle})
    with run_local([ModelArguments(bundle=bundle, root=root, lease_s=LEASE_S)], door) as client:
        yield client


def test_limits_of_the_queue_are_set() -> None:
    from serving.app import Door, Generator

    for deployment in (Door, Generator):
        assert deployment.max_queued_requests > 0  # Ray's default is no limit
        assert deployment.max_ongoing_requests > 0
        assert deployment.backpressure_config.status_code == 429


def test_a_damaged_bundle_stops_before_anything_starts(own_bundle: Path, tmp_path: Path) -> None:
    from contracts.errors import Corrupt
    from serving.app import ModelArguments, run_local

    path = own_bundle / "mouth" / "gain" / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(Corrupt) as caught, run_local([ModelArguments(bundle=own_bundle)]):
        pytest.fail("it was served")
    assert caught.value.file == str(path)
    assert caught.value.expected != caught.value.actual


@pytest.mark.cluster
def test_over_http_and_by_the_client(
    service: Client,
    root: Path,
    bundle: Path,
    tmp_path: Path,
    speech: Callable[..., Path],
    unsigned: Callable[[Path], bytes],
) -> None:
    from preprocessing.media import probe
    from serving.client import Client as HttpClient
    from serving.client import Refusal
    from serving.keys import Keys
    from serving.ledger import Ledger, sqlite_url
    from serving.provenance import inspect

    assert service.url.startswith("http://127.0.0.1:")
    ledger = Ledger(sqlite_url(root / "ledger.db"))
    _, key = Keys(ledger).create("test", ["submit", "read"])
    sound = speech("talk.wav", 44_100 * 2, rate=44_100)
    with HttpClient(service.url, key) as http:
        assert [model.system for model in http.models()] == ["loudmouth"]
        receipt = http.submit(sound, seed=4)
        assert http.wait(receipt.job, timeout_s=120).counts["done"] == 1
        video = http.fetch(receipt.job, 0, tmp_path / "answer.mp4")
        found = probe(video)
        assert found.video is not None
        assert found.audio is not None
        assert (found.video.codec, found.audio.codec, found.fps) == ("h264", "aac", 25.0)
        assert found.video.packets - found.video.discarded == 50
        assert inspect(video).state == "fits"
        assert http.submit(sound, seed=4) == receipt
        with pytest.raises(Refusal, match="NO_CONSENT"):
            http.submit(sound, portrait=sound)
    with HttpClient(service.url, key[:-1] + "-") as wrong, pytest.raises(Refusal, match="NO_KEY"):
        wrong.jobs()

    address = service.url.removeprefix("http://").split("/")[0].split(":")
    for authorization, status in (("", b" 401 "), (f"Authorization: Bearer {key}\r\n", b" 413 ")):
        with socket.create_connection((address[0], int(address[1])), timeout=30) as raw:
            raw.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                + authorization.encode()
                + b"Content-Length: 999999999\r\n\r\n"
            )
            assert status in raw.recv(4096).split(b"\r\n")[0]  # and not a byte of the body was sent

    jobs = [Job(audio=sound, out=tmp_path / f"{seed}.mp4", seed=seed) for seed in range(4, 7)]
    jobs.append(Job(audio=tmp_path / "none.wav", out=tmp_path / "none.mp4"))
    seen: list[tuple[int, int, str]] = []
    outcomes = service.generate(jobs, lambda *step: seen.append(step))
    assert [outcome.out.name for outcome in outcomes] == [job.out.name for job in jobs]
    assert [outcome.state for outcome in outcomes] == ["done"] * 3 + ["rejected"]
    assert seen[-1][:2] == (4, 4)
    assert unsigned(outcomes[0].out) == unsigned(video)  # by either way the same video
    assert all(inspect(outcome.out).state == "fits" for outcome in outcomes[:3])
    assert service.healthy()


@pytest.mark.cluster
def test_f28_a_replica_killed_in_the_midst_loses_nothing(
    service: Client, root: Path, tmp_path: Path, speech: Callable[..., Path]
) -> None:
    import signal
    import time

    from sqlalchemy import func, select

    from serving.client import Client as HttpClient
    from serving.keys import Keys
    from serving.ledger import Ledger, executions, sqlite_url

    ledger = Ledger(sqlite_url(root / "ledger.db"))
    _, key = Keys(ledger).create("test", ["submit", "read"])
    sound = speech("long.wav", 16_000 * 3)
    before = _generators(service)
    assert len(before) == 1
    with HttpClient(service.url, key) as http:
        items = [{"audio": "talk", "seed": seed} for seed in range(12)]
        receipt = http.submit_items(items, {"talk": sound})
        while http.status(receipt.job).counts["done"] < 2:
            time.sleep(0.05)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert http.wait(receipt.job, timeout_s=200).counts["done"] == 12
    with ledger.reading() as connection:
        assert connection.scalar(select(func.max(executions.c.rendered))) == 1
    assert len(_generators(service) - before) == 1


def _generators(service: Client) -> set[int]:
    """Processes of the service's replicas that render; their names have a random part, so that they are ours."""
    import psutil

    name = service.names[0]
    found = (process.info for process in psutil.process_iter(["pid", "cmdline"]))
    told = ((info["pid"], " ".join(info["cmdline"] or ())) for info in found)
    return {pid for pid, line in told if line.startswith("ray::ServeReplica") and name in line and "Generator" in line}


def test_weights_that_are_not_finite_stop_before_anything_starts(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    from contracts.errors import Corrupt
    from serving.app import ModelArguments, run_local

    def spoil(models: dict) -> None:
        models["face"]["canvas"].mean[0, 3, 4] = float("nan")  # the digest fits: what was written is what is there

    spoilt = make_bundle(tmp_path, spoil)
    with pytest.raises(Corrupt, match="mean is not finite"), run_local([ModelArguments(bundle=spoilt)]):
        pytest.fail("it was served")


def test_a_bundle_that_only_loading_can_refuse_is_corrupt_not_a_hanging_deployment(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the replica's constructor raises, in the words in which Serve hands it on while it still tries again."""
    from types import SimpleNamespace

    from contracts.errors import Corrupt
    from serving import app

    def spoil(models: dict) -> None:
        models["mouth"]["gain"].gain = torch.nn.Linear(1, 3, bias=False)  # another shape than the code's

    import torch

    with pytest.raises(RuntimeError, match=app.MARK) as raised:
        app.Generator.func_or_class(str(make_bundle(tmp_path, spoil)), "cpu")
    message = f"A replica failed to start with exception. Retrying 1 more time(s). Error:\n{raised.value}\n  at …"
    part = SimpleNamespace(status="UPDATING", message=message)
    found = SimpleNamespace(status="DEPLOYING", message="", deployments={"Generator": part})
    monkeypatch.setattr(app.serve, "status", lambda: SimpleNamespace(applications={"voxface": found}))
    with pytest.raises(Corrupt, match="does not load as loudmouth/mouth"):
        app._wait_healthy("voxface")


def test_a_deployment_that_never_ends_says_how_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from serving import app

    part = SimpleNamespace(status="UPDATING", message="no node has a CPU left")
    found = SimpleNamespace(status="DEPLOYING", message="", deployments={"Generator": part})
    monkeypatch.setattr(app.serve, "status", lambda: SimpleNamespace(applications={"voxface": found}))
    monkeypatch.setattr(app, "DEPLOY_S", 0.2)
    with pytest.raises(Transient, match="Generator: UPDATING no node has a CPU left"):
        app._wait_healthy("voxface")


def test_errors_told_by_a_failed_deployment_come_back_as_themselves() -> None:
    from contracts.errors import Corrupt, Misuse
    from contracts.settings import canonical_json
    from serving.refusals import MARK, own_error

    told = "Traceback: RuntimeError: " + MARK + canonical_json(["Corrupt", "a/b", "is missing", "1", "2"]) + "\n more"
    error = own_error(told)
    assert isinstance(error, Corrupt)
    assert str(error) == "a/b: is missing (expected 1, found 2)"
    assert isinstance(own_error(MARK + json.dumps(["Misuse", "publish one"])), Misuse)
    assert "no such thing" in str(own_error("no such thing"))


def test_a_replica_that_dies_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve calls an application unhealthy until it has replaced what died: no reason to end the service."""
    from types import SimpleNamespace

    from serving import handle

    found = {"a": SimpleNamespace(status="RUNNING"), "b": SimpleNamespace(status="UNHEALTHY")}
    monkeypatch.setattr(handle.serve, "status", lambda: SimpleNamespace(applications=found))
    client = handle.Client(None, ["a", "b"], "", 1)
    assert client.healthy()
    monkeypatch.setattr(handle, "PATIENCE_S", 0.0)
    assert not client.healthy()
    found["b"].status = "RUNNING"
    monkeypatch.setattr(handle, "PATIENCE_S", 60.0)
    assert client.healthy()
    del found["b"]
    assert client.healthy()


class Handle:
    """Answers like Serve's handle, from replicas of which the first few die."""

    def __init__(self, deaths: int, end: Exception | None = None) -> None:
        self.calls, self.deaths, self.end = 0, deaths, end

    @property
    def generate(self) -> Handle:
        return self

    def remote(self, job: Job) -> Handle:
        self.job = job
        return self

    def result(self) -> Outcome:
        import ray

        self.calls += 1
        if self.calls <= self.deaths:
            raise ray.exceptions.ActorDiedError
        if self.end is not None:
            raise ray.exceptions.RayTaskError("generate", "traceback", self.end).as_instanceof_cause()
        return Refused(state="rejected", out=self.job.out, code=Reason.NO_FACE, detail="nobody")


@pytest.mark.parametrize("deaths", [0, 2])
def test_a_job_whose_replica_dies_is_given_to_another(tmp_path: Path, deaths: int) -> None:
    from serving.handle import Client

    handle = Handle(deaths)
    (outcome,) = Client(handle, ["voxface"], "", 1).generate([Job(audio=tmp_path / "a.wav", out=tmp_path / "a.mp4")])
    assert (outcome.state, handle.calls) == ("rejected", deaths + 1)
    assert handle.job.out.is_absolute()


def test_replicas_that_keep_dying_are_given_up(tmp_path: Path) -> None:
    from serving.handle import ATTEMPTS, Client

    handle = Handle(ATTEMPTS)
    with pytest.raises(Transient, match="died 3 times"):
        Client(handle, ["voxface"], "", 1).generate([Job(audio=tmp_path / "a.wav", out=tmp_path / "a.mp4")])
    assert handle.calls == ATTEMPTS


def test_errors_of_a_replica_come_back_as_themselves(tmp_path: Path) -> None:
    from serving.handle import Client

    handle = Handle(0, Transient("NO_SPACE: full"))
    with pytest.raises(Transient, match="NO_SPACE") as caught:
        Client(handle, ["voxface"], "", 1).generate([Job(audio=tmp_path / "a.wav", out=tmp_path / "a.mp4")])
    assert type(caught.value) is Transient
    assert handle.calls == 1
