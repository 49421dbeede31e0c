"""What nothing needs any more: bundles, datasets, checkpoints, records that no alias and no current work leads to."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.bundle import ARTIFACT_FILE, BUNDLE_FILE
from contracts.errors import Corrupt
from contracts.files import TEMPORARY, lock
from contracts.plan import PLAN_FILE
from contracts.selection import RECORD_FILE
from contracts.shards import dataset_digest
from flows.places import Places

Kind = Literal["bundle", "dataset", "checkpoints", "run"]
DAY_S = 86_400.0
STAGE_FILE = "stage.json"  # as training leaves it beside a stage: what the stage is being made of


@dataclass(frozen=True)
class Leftover:
    """Something that may go, the bytes that it holds, and the folder whose lock its writers take."""

    kind: Kind
    path: Path
    bytes: int
    why: str
    guard: Path

    def told(self) -> dict[str, Any]:
        """As a line of the result."""
        line = asdict(self) | {"path": str(self.path)}
        del line["guard"]
        return line


@dataclass(frozen=True)
class Reachable:
    """What must stay: bundles that an alias or the record of publishing names, and datasets that something names."""

    bundles: frozenset[Path]  # resolved folders
    digests: frozenset[str]  # of those bundles
    datasets: frozenset[str]  # digests


def reachable(places: Places) -> Reachable:
    """Read from the registry (raises where it does not answer: then nothing may be deleted) and from all records.

    Raises ``Corrupt`` for a bundle or an artifact that cannot be read: what it leads to cannot be told.
    """
    from training.registry import registered

    kept = {v.folder.resolve(): v.digest for v in registered(places.tracking_uri) if v.aliases}
    for record in (places.work / "published").glob("*.json"):
        told = _read(record)
        kept[Path(told["bundle"]).resolve()] = str(told["digest"])
    datasets: set[str] = set()
    for folder in kept:
        if (folder / BUNDLE_FILE).is_file():
            datasets |= {stage["lineage"]["dataset"] for stage in _read(folder / BUNDLE_FILE)["stages"].values()}
    for path in [*places.work.glob(f"training/*/*/artifact/{ARTIFACT_FILE}"), *_stages(places)]:
        datasets.add(_read(path)["lineage"]["dataset"])
    datasets |= {_read(path)["dataset"] for path in places.work.glob(f"*/{RECORD_FILE}")}
    return Reachable(frozenset(kept), frozenset(kept.values()), frozenset(datasets))


def find(places: Places, days: float) -> list[Leftover]:
    """All that may go and has not changed for ``days``."""
    stay = reachable(places)
    before = time.time() - days * DAY_S
    found = [*_bundles(places, stay), *_datasets(places, stay), *_checkpoints(places), *_runs(places, stay)]
    return [leftover for leftover in found if _newest(leftover.path) <= before]


def remove(places: Places, days: float, progress: Callable[[int, int, str], None]) -> list[Leftover]:
    """Remove what :func:`find` finds, looked at anew under the locks of its writers; what went.

    Raises ``Misuse`` where one of them is at work: nothing was removed then.
    """
    with ExitStack() as held:
        retraining = list((places.work / "retraining").glob("*/"))  # one that runs may be about to promote
        for folder in sorted({*retraining, *(leftover.guard for leftover in find(places, days))}):
            held.enter_context(lock(folder))
        found = find(places, days)
        for number, leftover in enumerate(found, start=1):
            if leftover.path.is_dir():
                doomed = leftover.path.with_name(f"{TEMPORARY}gone-{leftover.path.name}")
                leftover.path.rename(doomed)  # at once: nobody finds half of it
                shutil.rmtree(doomed)
            else:
                leftover.path.unlink(missing_ok=True)
            progress(number, len(found), leftover.path.name)
    return found


def _bundles(places: Places, stay: Reachable) -> Iterator[Leftover]:
    for folder in sorted((places.work / "bundles").glob("*/*/")):
        if folder.resolve() in stay.bundles:
            continue
        why = "left by a killed run" if folder.name.startswith(TEMPORARY) else "no alias leads to it"
        yield Leftover("bundle", folder, _size(folder), why, folder.parent)


def _datasets(places: Places, stay: Reachable) -> Iterator[Leftover]:
    for plan in sorted(places.work.glob(f"*/{PLAN_FILE}")):
        folder = plan.parent
        if folder.resolve() == places.dataset.resolve() or folder.is_symlink():
            continue
        if dataset_digest(folder) not in stay.datasets:
            yield Leftover("dataset", folder, _size(folder), "nothing standing was made of it", folder)


def _checkpoints(places: Places) -> Iterator[Leftover]:
    """Those of stages whose artifact was made of what the stage was last begun with: they have served."""
    for stage in _stages(places):
        folder = stage.with_name("checkpoints")
        artifact = stage.parent / "artifact" / ARTIFACT_FILE
        if folder.is_dir() and artifact.is_file() and _read(artifact)["lineage"] == _read(stage)["lineage"]:
            yield Leftover("checkpoints", folder, _size(folder), "the stage is finished", stage.parent.parent)


def _runs(places: Places, stay: Reachable) -> Iterator[Leftover]:
    """Records and logs of commands, and pages of retrainings, that speak of no bundle that stays."""
    needles = tuple(digest[:12].encode() for digest in stay.digests)
    for record in sorted(places.runs.glob("*.json")):
        if not any(needle in record.read_bytes() for needle in needles):
            for path in (record, record.with_suffix(".log")):
                if path.is_file():
                    yield Leftover("run", path, _size(path), "it speaks of no model that stands", places.runs)
    for folder in sorted((places.work / "retraining").glob("*/")):
        decision = folder / "decision.json"
        last = _read(decision)["time"] if decision.is_file() else ""
        for path in sorted([*folder.glob("*.html"), *folder.glob("pictures/*")]):
            if path.stem != last and not (path.is_file() and any(needle in path.read_bytes() for needle in needles)):
                yield Leftover("run", path, _size(path), "of an earlier retraining", folder)


def _stages(places: Places) -> list[Path]:
    return sorted(places.work.glob(f"training/*/*/{STAGE_FILE}"))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Corrupt(path, "cannot be read, so what it needs cannot be told: nothing was removed") from error


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.lstat().st_size for each in files)


def _newest(path: Path) -> float:
    return max((each.lstat().st_mtime for each in [path, *path.rglob("*")]), default=0.0)
