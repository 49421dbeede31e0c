"""F28, F32: replicas killed under load, and bundles that change on disk while they are served."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from faults.material import until
from faults.row import Figure
from outages.outputs import inspected
from outages.standing import Publications, Standing, standing, toys, unfit
from toys import talker

from contracts.bundle import read_bundle
from contracts.errors import Corrupt
from serving.orders import item_place
from serving.provenance import inspect

JOBS = 20  # for each kill
APART = 10  # videos finished between two kills
LONGEST_S = 1200.0  # patience: on a busy machine a replica may take minutes to come back
WAITED_S = 12.0  # in which a replica that should not start would have rendered


def kill_replicas(folder: Path, count: int) -> Figure:
    """F28: two replicas at work; now this, now that one gets SIGKILL with a batch in hand."""
    rng, landed, jobs = random.Random(28), 0, JOBS * count
    pending: list[tuple[float, set[str]]] = []
    recovered: list[float] = []
    with (
        standing(folder, replicas=2) as service,
        service.http() as http,
        Publications(service.results) as seen,
        ThreadPoolExecutor(4) as pool,
    ):
        sound = talker.write_sound(folder / "talk.wav", 24_000)
        asked = [pool.submit(http.submit, sound, seed=seed) for seed in range(jobs)]  # and killed meanwhile
        goal, end = APART, time.monotonic() + LONGEST_S
        while time.monotonic() < end:
            rows = service.rows()
            done = {row["digest"] for row in rows if row["state"] == "done"}
            now = time.monotonic()
            recovered += [now - killed for killed, hand in pending if hand <= done]
            pending = [(killed, hand) for killed, hand in pending if not hand <= done]
            if len(done) == jobs or len(done) + sum(row["state"] in ("failed", "rejected") for row in rows) == jobs:
                break
            if landed < count and len(done) >= goal:
                held = _held(rows)
                victims = sorted(held.keys() & service.replicas())
                if victims:
                    victim = rng.choice(victims)
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        landed += 1
                        pending.append((time.monotonic(), held[victim]))
                        goal = len(done) + APART  # else what comes back is killed at once, with the same videos in hand
            time.sleep(rng.uniform(0.02, 0.2))
        rows = service.rows()
        receipts = {each.result().job for each in asked}
        states = [http.status(job).counts["done"] for job in receipts]
        lost = unfit(service, rows) + jobs - len(rows) + len(receipts) - sum(states)
        valid = sum(inspected(folder, item_place(service.results, row["digest"])) == 0 for row in rows)
    twice = sum(row["rendered"] > 1 for row in rows)
    slowest = f"median {np.median(recovered):.0f} s, p99 {np.percentile(recovered, 99):.0f} s" if recovered else "none"
    said = (
        f"{landed} kills over {jobs} jobs: lost {lost}, published twice {len(seen.doubled)}, rendered twice {twice}; "
    )
    said += f"what was in hand done again after {slowest}; voxface inspect: {valid}/{jobs} valid"
    return Figure(said, landed == count and not lost and not seen.doubled and valid == jobs and not pending)


def change_bundle(folder: Path, count: int) -> Figure:
    """F32: weights, configuration, or the whole bundle change on disk under a replica; then the replica dies."""
    kinds: list[Callable[[Path], None]] = [_flip_weights, _flip_config, _other_bundle]
    kept = refused = waited = wrong = back = 0
    with toys(folder) as made, standing(folder, bundle=Path(shutil.copytree(made, folder / "own"))) as service:
        own, digest = service.bundle, read_bundle(made).digest
        sound = talker.write_sound(folder / "talk.wav", 16_000)
        with service.http() as http:
            http.wait(http.submit(sound, seed=999).job, timeout_s=120)
            for number, change in enumerate((kinds * count)[:count]):
                change(own)
                first = http.submit(sound, seed=2 * number).job
                kept += http.wait(first, timeout_s=120).counts["done"] == 1  # what was loaded goes on
                refused += _refused(own) or change is _other_bundle
                _kill(service)
                second = http.submit(sound, seed=2 * number + 1).job
                time.sleep(WAITED_S)
                waited += http.status(second).counts["done"] == 0
                shutil.rmtree(own)
                shutil.copytree(made, own)
                _kill(service)
                with suppress(TimeoutError):
                    back += http.wait(second, timeout_s=180).counts["done"] == 1
        for row in service.rows():
            found = inspect(item_place(service.results, row["digest"])) if row["state"] == "done" else None
            stated = found.credentials.statement if found is not None else None
            wrong += stated is not None and stated.bundle != digest
    said = f"the loaded one went on {kept}/{count}; the changed one refused {refused}/{count}, "
    said += f"not a video by it {waited}/{count}; wrong-model videos {wrong}; put right, it served again {back}/{count}"
    return Figure(said, kept == refused == waited == back == count and wrong == 0)


def _held(rows: list[Any]) -> dict[int, set[str]]:
    """Digests in hand, by the process that has them."""
    held: dict[int, set[str]] = {}
    for row in rows:
        if row["state"] == "running" and row["owner"]:
            held.setdefault(int(row["owner"].split(":")[1]), set()).add(row["digest"])
    return held


def _kill(service: Standing) -> None:
    for process in service.replicas():
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    until(lambda: not service.replicas(), 10)


def _refused(bundle: Path) -> bool:
    from serving.app import ModelArguments, build_model

    try:
        build_model(ModelArguments(bundle=bundle))
    except Corrupt:
        return True
    return False


def _flip_weights(bundle: Path) -> None:
    path = bundle / "mouth" / "gain" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 8
    path.write_bytes(data)


def _flip_config(bundle: Path) -> None:
    path = bundle / "face" / "canvas" / "config.json"
    path.write_text(path.read_text().replace("32", "34"))


def _other_bundle(bundle: Path) -> None:
    """A bundle that is as good, and not the one that was asked for."""

    def louder(models: dict) -> None:
        models["mouth"]["gain"].gain.weight.data.fill_(9.0)

    other = talker.make_bundle(bundle.with_name(f"other-{time.monotonic_ns()}"), louder)
    shutil.rmtree(bundle)
    shutil.copytree(other, bundle)
