"""The service beside a plain loop over the loaded model, and beside a process per video; same machine, same speeches.

    make bench-serve
    PYTHONPATH=.:tests python benchmarks/serve.py --videos 40 --rounds 1 --bundle work/bundles/see_the_speaker/current

Without ``--bundle`` the networks are those of see_the_speaker at preset "tiny", untrained: what they cost does not
depend on what they have learnt. The **loop** decodes a sound, lets the pipeline make its frames and encodes them: no
ledger, no mark, no signature, nothing read back. The **service** does all that, over HTTP, from sending the speeches to
the last video's being finished, once rendering video by video and once in batches. Loop and service take turns, round
by round, so that a busy machine is as busy for both; of the rounds the sums are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from scoreboard import Scoreboard, at_least_one, ended
from toys.talker import write_sound

from contracts.bundle import Lineage, read_bundle, seal_artifact, write_bundle
from flows import environment
from serving.ledger import Ledger, sqlite_url
from serving.tally import STEP_S, counted

ROOT = Path(__file__).resolve().parents[1]
TARGET = 0.9  # of the loop's items per second, at batch 1
PASSED_ON = 0.95  # of what networks gain by batches, which depends on the machine: on one core next to nothing
RATE = 16_000
LOOK_S = 0.25  # between two looks at a job: the last video's end must not wait for the next


def main() -> int:
    options = arguments()
    board = Scoreboard("bench-serve")
    with tempfile.TemporaryDirectory(prefix="vb-", dir="/tmp" if Path("/tmp").is_dir() else None) as made:
        folder = Path(made)
        environment.prepare(folder / "work")
        with mock.patch.dict(os.environ, {"VOXFACE_CREDENTIALS": str(folder / "credentials")}):
            bundle = options.bundle or untrained(folder / "untrained")
            sounds = speeches(folder / "speech", options.videos, options.seconds)
            measure(board, folder, bundle, sounds, options)
    return board.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=at_least_one, default=200)
    parser.add_argument("--seconds", type=float, default=0.6, help="of each speech")
    parser.add_argument("--steps", type=at_least_one, default=2, help="of denoising")
    parser.add_argument("--rounds", type=at_least_one, default=8, help="in which the videos are made")
    parser.add_argument(
        "--processes", type=at_least_one, default=4, help="videos made by a process of their own, first"
    )
    parser.add_argument("--bundle", type=Path, help="a bundle's folder [default: untrained networks]")
    return parser.parse_args()


def measure(board: Scoreboard, folder: Path, bundle: Path, sounds: list[Path], options: argparse.Namespace) -> None:
    import torch

    from flows.cluster import cluster

    torch.set_num_threads(1)
    # a few of them: each costs as much as many of the service's
    alone = [timed(lambda: process(bundle, sound, folder, options.steps)) for sound in sounds[: options.processes]]  # noqa: B023
    each = sum(alone) / len(alone)
    loop = Loop(bundle, folder / "loop", options.steps)
    loop.make(sounds[:2])  # what is done once
    rounds = min(options.rounds, len(sounds))
    parts = [sounds[number::rounds] for number in range(rounds)]
    spent = {"loop": 0.0, "single": 0.0, "batched": 0.0}
    loop.model_s = 0.0
    with cluster(), served(folder / "single", bundle, 1) as single, served(folder / "batched", bundle, 4) as batched:
        for service in (single, batched):
            service.make(sounds[:4], options.steps, seed=10_000)
        for service in (single, batched):
            service.steps()
        for part in parts:
            spent["loop"] += timed(lambda: loop.make(part))  # noqa: B023
            spent["single"] += timed(lambda: single.make(part, options.steps))  # noqa: B023
            spent["batched"] += timed(lambda: batched.make(part, options.steps))  # noqa: B023
        steps = {"single": single.steps(), "batched": batched.steps()}
    count = len(sounds)
    rates = {name: count / seconds for name, seconds in spent.items()}
    load = os.getloadavg()[1]
    what = f"{count} speeches of {options.seconds:g} s, {read_bundle(bundle).system}, {options.steps} steps"
    board.tell("loop", f"plain loop, {what}", f"{rates['loop']:.2f} videos/s; load {load:.1f}")
    ratio = rates["single"] / rates["loop"]
    said = f"{rates['single']:.2f} videos/s, {ratio:.2f} of the loop"
    board.check("batch-1", "the service, video by video", said, f"at least {TARGET} of the loop", ratio >= TARGET)
    gain, networks = rates["batched"] / rates["single"], steps["single"]["model"] / steps["batched"]["model"]
    said = f"{rates['batched']:.2f} videos/s, {gain:.2f} of batch 1; the networks alone {networks:.2f}"
    target = f"at least {PASSED_ON} of what the networks gain"
    board.check("batch-4", "the service, in batches of four", said, target, gain >= PASSED_ON * networks)
    outside = {name: 1 - told["model"] / spent[name] for name, told in steps.items()}
    said = f"loop {1 - loop.model_s / spent['loop']:.0%}, service {outside['single']:.0%}, in batches "
    board.tell("outside", "share of the time that no network was at work", f"{said}{outside['batched']:.0%}")
    for name, spent_on in steps.items():
        said = ", ".join(f"{step} {seconds / count:.3f}" for step, seconds in sorted(spent_on.items()))
        board.tell("steps", f"seconds a video ({name}), of two hands together", f"{said}; of {spent[name] / count:.3f}")
    said = f"{each:.1f} s a video: the service is {each * rates['single']:.1f} times as fast"
    board.tell("process", f"a process per video ({options.processes} of them tried)", said)


class Loop:
    """The loaded model, called for one sound after the other."""

    def __init__(self, bundle: Path, out: Path, steps: int) -> None:
        from serving.loader import load_pipeline

        self.pipeline, _ = load_pipeline(bundle)
        self.out, self.steps = out, steps
        self.model_s = 0.0  # in the networks alone
        out.mkdir(parents=True, exist_ok=True)

    def make(self, sounds: list[Path]) -> None:
        """A plain video of each."""
        import torch

        from contracts.limits import Limits
        from preprocessing.media import decode_sound, encode_video
        from systems.base import Request

        for sound in sounds:
            audio = decode_sound(sound, Limits())
            with torch.inference_mode():
                request = Request(audio=audio, seed=0, steps=self.steps)
                encode_video(self.out / f"{sound.stem}.mp4", self._frames(request), sound)

    def _frames(self, request: Any) -> Iterator[Any]:
        stream = self.pipeline.stream([request])
        while True:
            began = time.perf_counter()
            chunk = next(stream, None)
            self.model_s += time.perf_counter() - began
            if chunk is None:
                return
            yield from chunk.frames


class Served:
    """A service over HTTP."""

    def __init__(self, url: str, key: str, ledger: Ledger) -> None:
        self.url, self.key, self.ledger = url, key, ledger
        self._told: dict[str, float] = {}

    def steps(self) -> dict[str, float]:
        """Seconds that its replica spent on each step since this was last asked."""
        counts = counted(self.ledger)
        now = {key[-1]: seconds for key, seconds in counts.items() if key[0] == STEP_S}
        before, self._told = self._told, now
        return {step: seconds - before.get(step, 0.0) for step, seconds in now.items()}

    def make(self, sounds: list[Path], steps: int, seed: int = 0) -> None:
        """A video of each, finished."""
        from serving.client import Client

        with Client(self.url, self.key, sleep=lambda pause: time.sleep(min(pause, LOOK_S))) as http:
            items = [{"audio": sound.stem, "steps": steps, "seed": seed} for sound in sounds]
            job = http.submit_items(items, {sound.stem: sound for sound in sounds}).job
            counts = http.wait(job).counts
        if counts["done"] != len(sounds):
            raise RuntimeError(f"not all videos were made: {counts}")


@contextmanager
def served(root: Path, bundle: Path, batch: int) -> Iterator[Served]:
    """The bundle with one replica and a door, in the Ray that runs."""
    from serving.app import DoorArguments, ModelArguments, run_local
    from serving.keys import Keys

    ledger = Ledger(sqlite_url(root / "ledger.db"))
    _, key = Keys(ledger).create("bench", ["submit", "read"], unfinished=100_000, daily=1_000_000)
    model = ModelArguments(bundle=bundle, root=root, batch=batch)
    with run_local([model], DoorArguments(root=root, models={"champion": bundle})) as client:
        yield Served(client.url, key, ledger)
    ledger.close()


def process(bundle: Path, sound: Path, folder: Path, steps: int) -> None:
    """One video by a process that loads the model for it, as scripts for one video do."""
    code = "import sys; from pathlib import Path; from benchmarks.serve import Loop; "
    code += "Loop(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).make([Path(sys.argv[4])])"
    words = [str(bundle), str(folder / "alone"), str(steps), str(sound)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=os.environ | {"PYTHONPATH": path})


def speeches(folder: Path, count: int, seconds: float) -> list[Path]:
    """Sounds of which no two are equal."""
    samples = round(seconds * RATE)
    return [write_sound(folder / f"s{n:03d}.wav", samples, peak=0.2 + 0.6 * n / count) for n in range(count)]


def untrained(folder: Path) -> Path:
    """A bundle of see_the_speaker at preset "tiny" whose networks have learnt nothing."""
    sys.path.append(str(ROOT / "tests" / "systems"))
    from contract import make_artifact
    from toy_batch import make_batch

    from systems.see_the_speaker import SYSTEM

    models: dict[str, Any] = {}
    parts, digests = {}, {}
    for kind in SYSTEM.stages:
        stage, path = kind.preset("tiny"), folder / kind.name
        parents = {name: models[name] for name in kind.needs}
        models[kind.name] = make_artifact(stage, parents, [make_batch(stage.view, 4, seed) for seed in (0, 1)], path)
        made_of = {name: digests[name] for name in kind.needs}
        lineage = Lineage(dataset="0" * 64, selection="0" * 64, parents=made_of, code="", settings={"preset": "tiny"})
        digests[kind.name] = seal_artifact(path, SYSTEM.name, kind.name, lineage, {}).digest
        parts[kind.name] = path
    write_bundle(folder / "bundle", SYSTEM.name, "tiny", parts)
    return folder / "bundle"


def timed(work: Any) -> float:
    """Seconds that ``work()`` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(ended(main))
