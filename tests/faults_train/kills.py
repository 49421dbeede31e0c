"""F17, F18: training that is killed at any moment, and in the middle of saving."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from faults.material import until
from faults.row import Figure
from faults.row import reached as told
from faults_train.material import CODER, FULL, LONGEST_S, TOY, Kind, apart, losses, reached, starts, workshop

from training.agenda import artifact_folder

SEE = "see_the_speaker"
CONRE = Kind(SEE, "conre", {"steps": 10, "batch": 8, "checkpoint_every": 2, "validate_every": 0})
LIPS = Kind(SEE, "lip_landmarks", {"steps": 30, "checkpoint_every": 4, "validate_every": 0})
SPACE = Kind(
    SEE,
    "motion_space",
    {"steps": 10, "batch": 4, "checkpoint_every": 2, "validate_every": 0},
    ("conre", "lip_landmarks"),
)
DIFFUSION = Kind(
    SEE,
    "motion_diffusion",
    {"steps": 12, "checkpoint_every": 2, "validate_every": 0},
    ("conre", "lip_landmarks", "motion_space"),
)
MEAN = Kind("tones", "mean")
KINDS = {
    "coder": CODER,
    "all": FULL,
    "mouth": Kind("tones", "mouth", TOY, ("coder", "mean")),
    "mean": MEAN,
    "conre": CONRE,
    "lips": LIPS,
    "space": SPACE,
    "diffusion": DIFFUSION,
}


def kill_training(name: str) -> Any:
    """The row's function for one kind of stage."""
    return partial(_kill_training, KINDS[name], dawdle if name == "mean" else None)


def dawdle() -> None:
    """In a training process: what is computed within milliseconds takes long enough to be killed in."""
    from systems import catalogue

    kind = catalogue.get(MEAN.system).stage(MEAN.stage)
    real = kind.compute  # type: ignore[attr-defined]

    def compute(*arguments: Any) -> Any:
        time.sleep(0.3)
        found = real(*arguments)
        time.sleep(0.3)
        return found

    kind.compute = compute  # type: ignore[attr-defined]


def _kill_training(kind: Kind, before: Any, folder: Path, count: int) -> Figure:
    """F17: SIGKILL at a random moment, once or twice, then the same training to its end."""
    rng, every = random.Random(kind.stage), int(kind.settings.get("checkpoint_every", 1))
    landed = attempts = resumed = redone = ended = alike = 0
    difference = 0.0
    with workshop(folder) as shop:
        shop.begun(kind, folder / "whole")
        shop.run(kind, folder / "whole", before=before)
        while landed < count and attempts < 6 * count:
            out = shop.begun(kind, folder / f"killed-{attempts}")
            for _ in range(rng.choice((1, 1, 2))):
                attempts += 1
                process = shop.start(kind, out, before=before)
                goal = rng.randrange(int(kind.settings.get("steps", 1)))  # by steps: how long one takes varies
                until(lambda: not process.is_alive() or at_work(out, kind.stage, goal), LONGEST_S)  # noqa: B023
                process.join(rng.uniform(0.0, 0.1 if goal else 0.5))
                process.kill()
                process.join()
                if process.exitcode != -signal.SIGKILL or artifact_folder(out, kind.stage).is_dir():
                    break
                landed += 1
                told(landed, count)
                saved = max((int(path.name[5:]) for path in out.glob(f"{kind.stage}/checkpoints/step-*")), default=0)
                resumed += saved > 0
                redone = max(redone, reached(out, kind.stage) - saved)
            shop.run(kind, out)
            ended += 1
            difference = max(difference, apart(out, folder / "whole", kind.stage))
            alike += losses(out, kind.stage) == losses(folder / "whole", kind.stage)
            shutil.rmtree(out)
    said = f"max difference {difference} after {landed} kills ({resumed} went on from a checkpoint), losses alike "
    said += f"{alike}/{ended}, most steps redone {redone} of {every}"
    return Figure(said, landed >= count and difference == 0.0 and alike == ended and redone <= every)


def at_work(out: Path, stage: str, goal: int) -> bool:
    """Whether training has begun, and come as far as step ``goal``."""
    return bool(starts(out, stage)) and reached(out, stage) >= goal


def die_in_save(number: int, event: int) -> None:
    """Die of SIGKILL in save ``number`` (from 0) at its ``event``-th operation; a file being written is cut in half."""
    from training import checkpoint

    save, save_file, fsync, rename, rmtree = (
        checkpoint.save,
        checkpoint.save_file,
        os.fsync,
        Path.rename,
        shutil.rmtree,
    )
    saves, seen = -1, 0

    def now() -> bool:
        nonlocal seen
        seen += 1
        return saves == number and seen == event + 1

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def saving(*arguments: Any) -> Any:
        nonlocal saves, seen
        saves, seen = saves + 1, 0
        return save(*arguments)

    def writing(values: Any, path: Path) -> None:
        torn = now()
        save_file(values, path)
        if torn:
            os.truncate(path, path.stat().st_size // 2)
            die()

    def telling(real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if now():
                die()
            return real(*arguments, **more)

        return call

    checkpoint.save, checkpoint.save_file = saving, writing  # type: ignore[assignment]
    os.fsync, Path.rename, shutil.rmtree = telling(fsync), telling(rename), telling(rmtree)  # type: ignore[assignment]


EVENTS = 14  # two safetensors, five files and two folders synced, a rename, and old ones dropped: more than there are


def kill_saving(folder: Path, count: int) -> Figure:
    """F18: SIGKILL at each operation of a save in turn, then the same training again."""
    rng, died, usable, points = random.Random(18), 0, 0, set()
    difference, trial = 0.0, 0
    every = int(CODER.settings["checkpoint_every"])
    with workshop(folder) as shop:
        shop.run(CODER, folder / "whole")
        while died < count and trial < 6 * count:
            out, number, event = folder / f"killed-{trial}", rng.randrange(2, 9), trial % EVENTS
            trial += 1
            process = shop.start(CODER, out, before=partial(die_in_save, number, event))
            process.join()
            if process.exitcode != -signal.SIGKILL:
                continue  # this save had fewer operations
            died += 1
            told(died, count)
            points.add(event)
            shop.run(CODER, out)
            resumed = starts(out, CODER.stage)[-1]
            usable += resumed in (number * every, (number + 1) * every)
            difference = max(difference, apart(out, folder / "whole", CODER.stage))
            shutil.rmtree(out)
    said = f"{died - usable} of {died} unusable, killed at {len(points)} points of a save, max difference {difference}"
    return Figure(said, died == usable == count and difference == 0.0 and len(points) >= min(count, 6))
