"""Every stage's measures on held-out items, the bar's beside its trivial baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import Misuse
from contracts.selection import read_selection
from training.agenda import artifact_folder

if TYPE_CHECKING:
    from systems.base import Bar
    from training.validation import Scores

Line = dict[str, Any]
Subset = Literal["train", "known", "new"]
SPLITS: tuple[Subset, ...] = ("known", "new")


def evaluate_system(
    system: str, out: Path, *, dataset: Path, selection: Path, progress: Callable[[int, int, str], None]
) -> list[Line]:
    """Lines ``stage, measure, split, ours, baseline, comparison, ratio, low, high, verdict, speakers, items``.

    ``low`` and ``high`` bound the ratio in 95 % of draws of speakers. Verdicts: the bar's measure on the
    bar's split is ``PASS`` where the interval is clear of the comparison, else ``MISS``; all else ``INFO``.
    Missing numbers are ``None``. Raises ``Misuse`` where no stage stands, ``Corrupt`` where one is damaged.
    """
    import torch

    from systems import catalogue
    from systems.base import TrainedStage
    from training.data import Reader, verify
    from training.stages import restore
    from training.validation import score

    house = catalogue.get(system)
    chosen = read_selection(selection)
    verify(dataset, chosen)
    standing = [stage for stage in house.stages if artifact_folder(out, stage.name).is_dir()]
    if not standing:
        raise Misuse(f"{out} holds no trained stage: voxface train {system}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines: list[Line] = []
    for number, kind in enumerate(standing):
        progress(number, len(standing), kind.name)
        if not issubclass(kind, TrainedStage):
            continue
        stage, model = restore(house, kind, out)
        for split in SPLITS:
            settings = stage.settings
            reader = Reader(dataset, chosen, stage.view, subset=split, seed=settings.seed, batch=settings.batch)
            if len(reader):
                scores = score(stage, model.to(device), reader, device)
                lines += judge(stage.name, stage.bar, split, scores, reader.speaker_of)
    progress(len(standing), len(standing), "evaluated")
    return lines


def judge(stage: str, bar: Bar | None, split: str, scores: Scores, speaker_of: Mapping[str, str]) -> list[Line]:
    """The lines of one stage on one split, the bar's first."""
    speakers = [speaker_of[key] for key in scores.keys]
    lines: list[Line] = []
    if bar is not None:
        if bar.measure not in scores.values or (isinstance(bar.baseline, str) and bar.baseline not in scores.values):
            raise ValueError(f"{stage}: validate gives {sorted(scores.values)}, the bar names {bar}")
        ours = scores.values[bar.measure]
        other = scores.values[bar.baseline] if isinstance(bar.baseline, str) else [bar.baseline] * len(ours)
        about = {"stage": stage, "measure": bar.measure, "split": split, "baseline": str(bar.baseline)}
        lines.append(beside(about, ours, other, speakers, bar.better, bar=bar.speakers == split))
    said = {bar.measure, bar.baseline} if bar else set()
    return lines + told(stage, split, scores, speaker_of, said)


def beside(
    about: Line, ours: Sequence[float], other: Sequence[float], speakers: Sequence[str], better: str, *, bar: bool
) -> Line:
    """The line of a measure beside its trivial baseline, item by item; ``about``: stage, measure, split, baseline.

    ``low``, ``high`` bound the ratio, ``difference`` is the interval of ours - theirs; items that are not finite are
    left out. Where ``bar`` is false there is nothing to miss: ``INFO``.
    """
    from training.metrics.bootstrap import compare

    count = {"better": better, "speakers": len(set(speakers)), "items": len(speakers)}
    numbers = dict.fromkeys(("ours", "comparison", "ratio", "low", "high"), math.nan)
    clear, difference = False, None
    if any(math.isfinite(a) and math.isfinite(b) for a, b in zip(ours, other, strict=True)):
        found = compare(ours, other, speakers)
        clear, difference = found.clear(better), list(found.difference)
        numbers = {"ours": found.ours, "comparison": found.other, "ratio": found.ratio}
        numbers |= {"low": found.low, "high": found.high}
    verdict = "INFO" if not bar else "PASS" if clear else "MISS"
    finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
    return about | count | finite | {"difference": difference, "verdict": verdict}


def told(stage: str, split: str, scores: Scores, speaker_of: Mapping[str, str], said: Collection[Any]) -> list[Line]:
    """A line for each mean that stands beside nothing; those in ``said`` have been told already."""
    speakers = {speaker_of[key] for key in scores.keys}
    facts = {"stage": stage, "split": split, "speakers": len(speakers), "items": len(scores.keys)}
    empty = dict.fromkeys(("baseline", "comparison", "ratio", "low", "high", "difference", "better"))
    means = scores.means().items()
    return [facts | empty | {"measure": n, "ours": v, "verdict": "INFO"} for n, v in means if n not in said]


def table(lines: list[Line]) -> Iterator[str]:
    """The lines as text: ``stage measure split ours comparison ratio [low, high] verdict``."""
    for line in lines:
        numbers = (line[name] for name in ("ours", "comparison", "ratio", "low", "high"))
        ours, comparison, ratio, low, high = ("-" if number is None else f"{number:.4g}" for number in numbers)
        head = f"{line['stage']} {line['measure']} {line['split']}"
        yield f"{head} {ours} {comparison} {ratio} [{low}, {high}] {line['verdict']}"
