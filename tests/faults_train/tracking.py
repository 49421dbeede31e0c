"""F24: MLflow down, slow or erroring while a stage trains."""

from __future__ import annotations

import http.client
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from faults.material import until
from faults.row import MARK, Figure, kill_marked
from faults_train.material import Kind, Workshop, reached, workshop

from flows.train import Mirror, TrainJob
from training.record import read_record
from training.tracking import forward

FAULTS = ("down", "slow", "error")
SLOW_S = 5.0  # of each answer
SEGMENT = 12  # steps with the mirror at work, then as many without
MIRROR_S = 1.0  # between two attempts
MOST = 0.02  # of a step's time
LIPS = Kind("see_the_speaker", "lip_landmarks", {"steps": 20 * SEGMENT, "batch": 16, "checkpoint_every": 10**6})


class Gate(ThreadingHTTPServer):
    """Stands before MLflow's server: lets requests through (``open``), or is ``down``, ``slow`` or ``error``."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind, self.state, self.asked = port, "open", 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Passing(BaseHTTPRequestHandler):
    """One request."""

    server: Gate

    def handle_one_request(self) -> None:
        if self.server.state == "down":
            self.server.asked += 1
            self.close_connection = True
            return
        super().handle_one_request()

    def _answer(self) -> None:
        self.server.asked += self.server.state != "open"
        if self.server.state == "slow":
            time.sleep(SLOW_S)
        if self.server.state == "error":
            self.send_error(500)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        told = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        behind.request(self.command, self.path, body, told)
        answer = behind.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type",):
            self.send_header(name, answer.headers.get(name, "application/json"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        return None


@contextmanager
def mlflow(folder: Path) -> Iterator[Gate]:
    """MLflow's server on SQLite, behind a gate."""
    mark = secrets.token_hex(8)
    gate = Gate(_free_port())
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(gate.behind), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "a")]
    subprocess.Popen(
        [sys.executable, *words], env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    threading.Thread(target=gate.serve_forever, daemon=True).start()

    def answers() -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{gate.behind}/health", timeout=2).status == 200)
        return False

    try:
        if not until(answers, 180):
            raise RuntimeError("MLflow's server does not answer")
        yield gate
    finally:
        gate.shutdown()
        kill_marked(mark)


def lose_mlflow(folder: Path, count: int) -> Figure:
    """F24: a training per fault; the mirror is at work in every second dozen of its steps."""
    lost, sent, overheads, asked, ended = 0, 0, [], 0, 0
    with workshop(folder) as shop, mlflow(folder) as gate:
        for fault in FAULTS[:count]:
            out = folder / fault
            share = disturbed(shop, gate, fault, out)
            overheads.append(share)
            asked += gate.asked
            ended += reached(out, LIPS.stage) == LIPS.settings["steps"]
            gate.state, gate.asked = "open", 0
            sent += forward(out, gate.uri, fault)
            lost += len(recorded(out) - mirrored(gate.uri, fault))
    told = ", ".join(f"{fault} {100 * share:+.1f} %" for fault, share in zip(FAULTS, overheads))
    said = f"points lost {lost} of {sent} sent later, trained to the end {ended}/{count}; step time {told} "
    said += f"({asked} requests met the fault)"
    return Figure(said, not lost and sent > 0 and ended == count and max(overheads) < MOST and asked >= count)


def disturbed(shop: Workshop, gate: Gate, fault: str, out: Path) -> float:
    """Train while MLflow has ``fault``; by what share steps with the mirror at work take longer than those without."""
    gate.state = fault
    job = TrainJob(replace(shop.request(LIPS, out)), "local", gate.uri)
    mirror, ended, at_work = Mirror(job, lambda *_: None), threading.Event(), threading.Event()

    def send() -> None:
        while not ended.is_set():
            if at_work.wait(0.1):
                mirror.send()
                ended.wait(MIRROR_S)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    process = shop.start(LIPS, out)
    while process.is_alive():
        odd = reached(out, LIPS.stage) // SEGMENT % 2
        at_work.set() if odd else at_work.clear()
        time.sleep(0.1)
    ended.set()
    thread.join(60)
    lines = [line for line in read_record(out / LIPS.stage) if line["kind"] == "train"][SEGMENT:]
    times: dict[int, list[float]] = {0: [], 1: []}
    for line in lines:
        times[line["step"] // SEGMENT % 2].append(line["values"]["seconds/step"])
    return float(np.median(times[1]) / np.median(times[0])) - 1


def recorded(out: Path) -> set[tuple[str, int]]:
    """Names and steps of all that training recorded."""
    lines = [line for line in read_record(out / LIPS.stage) if line["kind"] != "end"]
    return {(name.replace("@", "_"), line["step"]) for line in lines for name in line["values"]}


def mirrored(uri: str, experiment: str) -> set[tuple[str, int]]:
    """The same of what MLflow holds."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name(experiment)
    return {
        (name, point.step)
        for run in client.search_runs([place.experiment_id])
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
