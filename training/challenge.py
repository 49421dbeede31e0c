"""Champion and challenger on the same frozen items: measures in pairs, with intervals, and pictures of both."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from contracts.bundle import ARTIFACT_FILE, Bundle, read_bundle
from contracts.errors import Misuse
from contracts.selection import Selection
from contracts.settings import canonical_json

if TYPE_CHECKING:
    from training.validation import Scores

TEST_SEED = 20_000  # of windows and draws: the same for both, whatever they were trained with
SAME = 1e-3  # relative: baselines closer than that are one and the same yardstick
Line = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """What two models are compared by. ``baseline``: a measure that stands for the size of the space it is taken in."""

    stage: str
    measure: str
    split: Literal["known", "new"]
    better: Literal["lower", "higher"]
    baseline: str | None = None


def bars(system: str) -> list[Measure]:
    """The bar of every stage that has one."""
    from systems import catalogue

    found = [(stage.name, stage.bar) for stage in catalogue.get(system).stages if stage.bar is not None]
    return [
        Measure(name, bar.measure, bar.speakers, bar.better, bar.baseline if isinstance(bar.baseline, str) else None)
        for name, bar in found
    ]


def challenge(
    champion: Path,
    challenger: Path,
    measures: Sequence[Measure],
    *,
    dataset: Path,
    test: Selection,
    pictures: Path,
    progress: Callable[[int, int, str], None],
) -> list[Line]:
    """A line per measure: ``champion``, ``challenger`` (means, each speaker counting once), and ``low``, ``high``:
    bounds of challenger - champion in 95 % of draws of ``unit`` (speakers; clips where there are fewer than three).

    ``lost`` counts items for which the champion has a value and the challenger none. A measure that a model does not
    have leaves its numbers ``None``. Pictures go to ``pictures/<stage>-<champion|challenger>.png``.
    Both are bundle folders of one system. Raises ``Corrupt`` for a damaged one, ``Misuse`` where the code of now
    cannot load one of them.
    """
    from training.data import verify

    verify(dataset, test)
    stages = list(dict.fromkeys(measure.stage for measure in measures))
    lines: list[Line] = []
    with unpacked(champion) as old, unpacked(challenger) as new:
        sides = {"champion": old, "challenger": new}
        for number, stage in enumerate(stages):
            progress(number, len(stages), stage)
            mine = [measure for measure in measures if measure.stage == stage]
            lines += _stage(stage, mine, sides, dataset, test, pictures)
    progress(len(stages), len(stages), "compared")
    return lines


@contextmanager
def unpacked(folder: Path) -> Iterator[tuple[Bundle, Path]]:
    """A bundle, all digests checked, laid out as training leaves its stages; gone afterwards."""
    bundle = read_bundle(folder)
    # beside the bundle, so that links can take the place of copies
    out = Path(tempfile.mkdtemp(prefix=".tmp-unpacked-", dir=folder.parent))
    try:
        for stage, artifact in bundle.stages.items():
            for file in artifact.files:
                target = out / stage / "artifact" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(folder / stage / file, target)
                except OSError:
                    shutil.copyfile(folder / stage / file, target)
            (out / stage / "artifact" / ARTIFACT_FILE).write_text(canonical_json(artifact.model_dump(mode="json")))
        yield bundle, out
    finally:
        shutil.rmtree(out, ignore_errors=True)


def judge(measure: Measure, champion: Scores | None, challenger: Scores | None, speaker_of: Mapping[str, str]) -> Line:
    """The line of one measure. Where the baselines show that two models measure in spaces of their own (their losses
    are of latents that each has learned), each is taken as a share of its baseline."""
    from training.metrics.bootstrap import LEAST_SPEAKERS, compare

    line: Line = {"stage": measure.stage, "measure": measure.measure, "split": measure.split, "better": measure.better}
    line |= {"champion": None, "challenger": None, "low": None, "high": None}
    line |= {"speakers": 0, "items": 0, "unit": "-", "lost": 0, "as": measure.measure}
    if champion is None or challenger is None or champion.keys != challenger.keys:
        return line
    if any(measure.measure not in scores.values for scores in (champion, challenger)):
        return line
    old, new = (np.array(scores.values[measure.measure], dtype=float) for scores in (champion, challenger))
    if _own_spaces(measure, champion, challenger):
        line["as"] = f"{measure.measure} / {measure.baseline}"
        assert measure.baseline is not None
        old = old / np.array(champion.values[measure.baseline])
        new = new / np.array(challenger.values[measure.baseline])
    line["lost"] = int((np.isfinite(old) & ~np.isfinite(new)).sum())
    both = np.isfinite(old) & np.isfinite(new)
    if not both.any():
        return line
    speakers = [speaker_of[key] for key in champion.keys]
    count = len({name for name, counts in zip(speakers, both, strict=True) if counts})
    few = count < LEAST_SPEAKERS
    found = compare(new.tolist(), old.tolist(), champion.keys if few else speakers)
    line |= {"champion": found.other, "challenger": found.ours, "items": int(both.sum()), "speakers": count}
    if found.speakers >= LEAST_SPEAKERS:  # of clips there may be too few as well: then an interval says nothing
        line |= {"low": found.difference[0], "high": found.difference[1], "unit": "clips" if few else "speakers"}
    return line


def _own_spaces(measure: Measure, champion: Scores, challenger: Scores) -> bool:
    """Whether the baselines of the two differ, and a share of them makes sense: losses, above zero."""
    name = measure.baseline
    if name is None or measure.better != "lower" or any(name not in each.values for each in (champion, challenger)):
        return False
    old, new = (np.array(scores.values[name], dtype=float) for scores in (champion, challenger))
    return bool((old > 0).all() and (new > 0).all() and not np.allclose(old, new, rtol=SAME))


def _stage(
    name: str,
    measures: Sequence[Measure],
    sides: Mapping[str, tuple[Bundle, Path]],
    dataset: Path,
    test: Selection,
    pictures: Path,
) -> list[Line]:
    """The lines of one stage. One model is in memory at a time."""
    import torch

    from systems import catalogue
    from systems.base import TrainedStage
    from training.data import Reader
    from training.stages import restore
    from training.validation import draw_picture, score

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = list(dict.fromkeys(measure.split for measure in measures))
    found: dict[tuple[str, str], Scores] = {}
    speakers: dict[str, str] = {sample.key: sample.speaker for sample in test.samples}
    views, batch = set(), 0
    for side, (bundle, out) in sides.items():
        house = catalogue.get(bundle.system)
        kind = house.stage(name)
        if name not in bundle.stages or not issubclass(kind, TrainedStage):
            continue
        try:
            stage, model = restore(house, kind, out)
        except (Misuse, RuntimeError, KeyError) as error:
            raise Misuse(f"the code of now cannot load {name} of the {side} {bundle.digest[:12]}: {error}") from error
        views.add(stage.view)
        batch = batch or stage.settings.batch  # measures may look at the whole batch: one size for both
        stage.settings = stage.settings.model_copy(update={"seed": TEST_SEED, "batch": batch})
        model.to(device)
        for split in splits:
            reader = Reader(dataset, test, stage.view, subset=split, seed=TEST_SEED, batch=batch)
            if len(reader):
                found[side, split] = score(stage, model, reader, device)
                draw_picture(stage, model, reader, device, pictures / f"{name}-{side}.png")
    if len(views) > 1:  # other items are other questions: nothing can be said
        found = {}
    return [judge(m, found.get(("champion", m.split)), found.get(("challenger", m.split)), speakers) for m in measures]
