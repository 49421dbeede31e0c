"""One row of the bad-input matrix at work: bad lines and good ones in one manifest, through planning and building."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hostile.factory import Factory, make_speaker

from contracts.consent import RECORDED, PeoplePolicy
from contracts.files import sha256_file
from contracts.index import account, read_index
from contracts.manifest import KEY
from contracts.reasons import Reason
from contracts.shards import open_shard
from flows.choice import choose
from flows.params import SelectionParams, read_params
from preprocessing.build import IngestSettings
from preprocessing.corpora import read_manifest
from preprocessing.plan import plan_dataset
from preprocessing.run import verify
from preprocessing.shard import ShardTask, make_shard

SECONDS, MEGABYTES = 5.0, 512.0  # that one bad file may cost
HANGS = 60.0  # seconds: the machine may be shared, so the promise is checked on processor time, a hang on the clock
ROWS = 4096  # a shard
GOOD = ("good.mp4", "good.png", "good.wav")
PEOPLE = {"consent": "given; purpose=training", "licence": "CC0"}  # of the good ones: they pass every policy
SAMPLE_S = 0.003  # between two looks at the memory of children
Check = Callable[["Ended"], list[str]]


@dataclass
class Ended:
    """How one case ended: its ledger lines, the members of its samples, and what it cost."""

    case: Case
    lines: list[dict[str, Any]]
    members: dict[str, dict[str, bytes]]
    root: Path
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0


@dataclass
class Case:
    """One bad manifest line. ``ends`` are the reasons allowed; ``kept`` where it is to be accepted."""

    says: str
    values: dict[str, Any] | None = None
    ends: tuple[str, ...] = ("kept",)
    line: bytes | None = None  # instead of values
    check: Check | None = None  # more that must hold; faults in words
    refused_by: tuple[Reason, ...] = ()  # by the default selection, of a kept one
    after_plan: Callable[[Path], None] | None = None  # what happens to the file before it is built
    seconds: float = SECONDS
    megabytes: float = MEGABYTES


@dataclass
class Matrix:
    """What a row of the matrix brings: its cases, and what must hold when all is done."""

    cases: list[Case]
    after: Callable[[], list[str]] | None = None
    extra_bytes: tuple[bytes, bytes] = (b"", b"\n")  # before the manifest, and at each line's end
    planning: Callable[[Callable[[], Any]], Any] | None = None  # how planning is run, where not plainly
    people: PeoplePolicy = RECORDED


@dataclass
class Row:
    """A row of the matrix; ``make`` gives its cases, few or all of them."""

    id: str
    name: str
    says: str
    make: Callable[[Factory, bool], Matrix]
    target: str = ""
    needs: tuple[Reason, ...] = ()  # rules of the default selection

    def __str__(self) -> str:
        return f"{self.id}-{self.name}"


@dataclass
class Outcome:
    """How a row ended. ``faults`` is empty where all is as promised."""

    row: str
    cases: int = 0
    right: int = 0
    faults: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)


class Bench:
    """The good rows, built once alone, and the place where bad ones are built beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = IngestSettings(rows_per_shard=ROWS)
        self._goods = folder / "goods"
        self._goods.mkdir(parents=True, exist_ok=True)
        self.speaker = self._goods / "speaker.mp4"
        if not self.speaker.exists():
            make_speaker(self._goods / "new.mp4")
            (self._goods / "new.mp4").rename(self.speaker)
        factory = Factory(self._goods, self.speaker, seed=1_000)  # no row's seed
        factory.face("-t", "1", name="good.mp4")
        factory.face("-ss", "1", "-frames:v", "1", name="good.png")
        factory.voice("good.wav")
        alone = self._run(self._place("alone"), Matrix([]))[1]
        self.reference = {line["file"]: alone.members[line["key"]] for line in alone.lines if line["level"] == "span"}
        assert set(self.reference) == set(GOOD), alone.lines

    def run(self, row: Row, *, seed: int = 0, full: bool = False) -> Outcome:
        """All cases of ``row``, judged."""
        place = self._place(f"{row.id}-{seed}")
        canary = place / "outside" / "canary"
        canary.parent.mkdir()
        canary.write_text("alive")
        matrix = row.make(Factory(place / "root", self.speaker, seed), full)
        before = _digests(place)
        ended, good, report = self._run(place, matrix)
        outcome = Outcome(str(row), cases=len(ended))
        if _digests(place) != before and not any(case.after_plan for case in matrix.cases):
            outcome.faults.append("files outside the dataset were made or changed")
        outcome.faults += report
        self._judge_good(good, outcome)
        refusals = self._selection(place / "dataset") if row.needs else {}
        for one in ended:
            faults = _judge(one, refusals)
            outcome.right += not faults
            outcome.faults += [f"{one.case.says}: {fault}" for fault in faults]
            outcome.cpu_s, outcome.wall_s = max(outcome.cpu_s, one.cpu_s), max(outcome.wall_s, one.wall_s)
            outcome.memory_mb = max(outcome.memory_mb, one.memory_mb)
            name = _ending(one)
            outcome.ends[name] = outcome.ends.get(name, 0) + 1
        outcome.faults += matrix.after() if matrix.after else []
        shutil.rmtree(place)
        return outcome

    def _place(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "root").mkdir(parents=True)
        for good in GOOD:
            os.link(self._goods / good, place / "root" / good)
        return place

    def _run(self, place: Path, matrix: Matrix) -> tuple[list[Ended], Ended, list[str]]:
        """Plan and build: how each case ended, the good rows' lines and members, and faults of the whole."""
        root, dataset = place / "root", place / "dataset"
        start, newline = matrix.extra_bytes
        lines = [case.line if case.line is not None else _json(case.values) for case in matrix.cases]
        goods = [_json({"file": good} | PEOPLE) for good in GOOD]
        manifest = place / "m.jsonl"
        manifest.write_bytes(start + newline.join([*lines, *goods]) + newline)

        def plan() -> Any:
            rows = read_manifest(manifest, root)
            return plan_dataset(dataset, rows, root, rows_per_shard=ROWS, people=matrix.people)

        with _Peak() as planning:
            planned = matrix.planning(plan) if matrix.planning else plan()
        manifest.unlink()
        faults = []
        if len(planned) != len(lines) + len(GOOD):
            faults.append(f"{len(planned)} rows planned of {len(lines) + len(GOOD)} lines")
        if planning.wall_s > HANGS or planning.memory_mb > MEGABYTES:
            faults.append(f"planning took {planning.wall_s:.1f} s, {planning.memory_mb:.0f} MB")
        for case, row in zip(matrix.cases, planned):
            if case.after_plan:
                case.after_plan(root / row.values.file)
        costs = []
        making = make_shard(ShardTask(dataset, root, 0, planned, self.settings))
        for _ in planned:
            with _Peak() as peak:
                next(making)
            costs.append(peak)
        if any(told.key for told in making):  # the last word, without a key, is of the commit
            raise AssertionError("more rows than planned")
        report = verify(dataset)
        account(read_index(dataset)).check()
        if report.failed:
            faults.append(f"failed rows: {report.failed}")
        shard = open_shard(dataset, 0)
        assert shard is not None
        by_row: dict[int, list[dict[str, Any]]] = {}
        for line in shard.ledger().to_pylist():
            by_row.setdefault(line["row"], []).append(line)

        def ended(case: Case, numbers: Sequence[int]) -> Ended:
            mine = [line for number in numbers for line in by_row.get(planned[number].row, [])]
            keys = [line["key"] for line in mine if line["key"] in shard.offsets]
            return Ended(case, mine, {key: shard.read(key) for key in keys}, root)

        results = []
        for number, case in enumerate(matrix.cases):
            one = ended(case, [number])
            cost = costs[number]
            one.cpu_s, one.wall_s, one.memory_mb = cost.cpu_s, cost.wall_s, cost.memory_mb
            results.append(one)
        return results, ended(Case("good"), range(len(planned) - len(GOOD), len(planned))), faults

    def _judge_good(self, good: Ended, outcome: Outcome) -> None:
        """The other clips' members are byte for byte those of a run without the bad ones."""
        spans = {line["file"]: line["key"] for line in good.lines if line["level"] == "span"}
        for name, members in self.reference.items():
            if good.members.get(spans.get(name, "")) != members:
                outcome.faults.append(f"{name} is not what it is without the bad file")

    def _selection(self, dataset: Path) -> dict[str, str]:
        """Reason by key, of the samples that the default selection refuses."""
        params = Path(__file__).resolve().parents[2] / "params.yaml"
        _, refused = choose(dataset, read_params(params).selection)
        return {line["key"]: line["reason"] for line in refused.to_pylist()}


def rules() -> set[Reason]:
    """Reasons that the default selection gives."""
    params: SelectionParams = read_params(Path(__file__).resolve().parents[2] / "params.yaml").selection
    return {Reason(reason) for reason in params.rules}


def _ending(one: Ended) -> str:
    rows = [line for line in one.lines if line["level"] == "row"]
    return (rows[0]["reason"] or rows[0]["state"]) if len(rows) == 1 else f"{len(rows)} rows"


def _judge(one: Ended, refusals: dict[str, str]) -> list[str]:
    case, name = one.case, _ending(one)
    faults = []
    detail = "; ".join(str(line["detail"])[-300:] for line in one.lines if line["detail"])
    if name not in case.ends:
        faults.append(f"{name} ({detail}), expected {' or '.join(case.ends)}")
    kept = [line["key"] for line in one.lines if line["level"] == "span" and line["state"] == "kept"]
    if sorted(kept) != sorted(one.members) or (name != "kept" and kept):
        faults.append(f"{len(one.members)} samples, {len(kept)} kept spans")
    if any(not KEY.fullmatch(line["key"]) for line in one.lines):
        faults.append("a key is not plain")
    if case.refused_by and not faults and refusals.get(kept[0]) not in case.refused_by:
        told = " or ".join(case.refused_by)
        faults.append(f"the default selection says {refusals.get(kept[0])}, expected {told}")
    if one.cpu_s > case.seconds or one.wall_s > HANGS:
        faults.append(f"took {one.wall_s:.1f} s, {one.cpu_s:.1f} s of them on a processor; {case.seconds:g} s allowed")
    if one.memory_mb > case.megabytes:
        faults.append(f"took {one.memory_mb:.0f} MB, {case.megabytes:g} allowed")
    if not faults and case.check:
        faults += case.check(one)
    return faults


def _json(values: dict[str, Any] | None) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode()


def _digests(place: Path) -> dict[str, str]:
    """What there is beside the dataset, by digest (plain files) or type."""
    found = {}
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if Path(folder, name) != place / "dataset"]
        for name in names:
            path = Path(folder, name)
            if path != place / "m.jsonl":
                plain = path.is_file() and not path.is_symlink()
                found[str(path)] = sha256_file(path) if plain else "other"
    return found


class _Peak:
    """Seconds inside the block, and megabytes: the most that a descendant used, and the growth of this process.

    Children that were there before, as the one that decoders are forked from, count with what they have grown by.
    Memory of children is looked at every few milliseconds: what a child takes in its very last ones is not seen.
    """

    def __enter__(self) -> _Peak:
        self.memory_mb = self.children_mb = 0.0
        self._before = {child: _status(child, "VmRSS") for child in _descendants()}
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        self._own = _status("self", "VmRSS")
        self._cpu, self._began = _cpu(), time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s, self.cpu_s = time.monotonic() - self._began, _cpu() - self._cpu
        self._stop.set()
        self._thread.join()
        grown = max(0.0, _status("self", "VmHWM") - self._own)
        self.memory_mb = grown + self.children_mb

    def _look(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            sizes = [_status(child, "VmHWM") for child in _descendants() if child not in self._before]
            sizes += [_status(child, "VmRSS") - size for child, size in self._before.items()]
            self.children_mb = max(self.children_mb, max(sizes, default=0.0))


def _descendants(process: str = "self") -> list[str]:
    """Process ids of the children, and of theirs."""
    found: list[str] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in listed.read_text().split():
                found += [child, *_descendants(child)]
    return found


def _status(process: str, name: str) -> float:
    """A line of a process's status, megabytes; 0 where it has gone, or is forked and not yet another program."""
    try:
        if process != "self" and Path(f"/proc/{process}/cmdline").read_bytes() == _own_command():
            return 0.0  # its memory is still ours
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(found[0]) / 1024 if found else 0.0


@cache
def _own_command() -> bytes:
    return Path("/proc/self/cmdline").read_bytes()


def _cpu() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
