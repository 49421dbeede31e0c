"""From a planned row to samples and ledger lines: the list of steps, and the account of how each row ended."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from contracts.consent import RECORDED, PeoplePolicy
from contracts.errors import Corrupt, Misuse, Reject, Transient
from contracts.files import reading, sha256_file
from contracts.limits import Limits
from contracts.manifest import KINDS, Kind
from contracts.plan import ROWS_PER_SHARD, PlannedRow
from contracts.reasons import FailureCode, Reason, first
from contracts.settings import Settings, canonical_digest
from preprocessing.costs import Costs
from preprocessing.sources import Sources
from preprocessing.step import Clip, Step, Tools
from preprocessing.steps import PEOPLE, Align, Listen, Look, Measure, Store
from preprocessing.watch import Watch

# reasons that one span has and its neighbour may not
OF_A_SPAN = frozenset({Reason.NO_FACE, Reason.MANY_FACES, Reason.FACE_LOST, Reason.FACE_SMALL})


class IngestSettings(Settings):
    """What shapes a dataset beside its sources."""

    limits: Limits = Limits()
    people: PeoplePolicy = RECORDED  # judged in the plan: a shard depends on it through its planned rows
    rows_per_shard: int = ROWS_PER_SHARD
    # of stored crops. On the corpus 40 to 47 dB at 12 to 48 KB a frame, a fifth of PNG. All-intra H.264 (crf 12) needs
    # half of that at 4 dB less, seven times the time to write, and seven to twelve times to read any one frame.
    jpeg_quality: int = 95

    def steps_digest(self, kind: Kind) -> str:
        """Identity of what is done to rows of ``kind``: the steps that touch it and the settings that these read.

        Rows made by others are stale. A step that leaves ``kind`` alone can change without making them so.
        """
        values = self.limits.model_dump(mode="json") | {"jpeg_quality": self.jpeg_quality}
        return canonical_digest(
            [
                [step.__name__, step.version, {name: values[name] for name in sorted(step.reads)}]
                for step in STEPS
                if kind in step.kinds
            ]
        )


STEPS: tuple[type[Step], ...] = (Watch, Look, Listen, Align, Measure, Store)  # in this order


def steps(tools: Tools, settings: IngestSettings) -> list[Step]:
    """What is done to every row: the ``STEPS``, set up."""
    limits = settings.limits
    store = Store(settings.jpeg_quality, {kind: settings.steps_digest(kind) for kind in KINDS})
    return [Watch(tools, limits), Look(tools, limits), Listen(limits), Align(limits), Measure(), store]


Mark = tuple[int, ...]
Samples = list[tuple[str, dict[str, bytes]]]
Lines = list[dict[str, Any]]


def build_row(
    planned: PlannedRow,
    data_root: Path | Sources,
    tools: Tools,
    settings: IngestSettings,
    costs: Costs | None = None,
) -> tuple[Samples, Lines]:
    """The samples of one planned row (key, members by extension), and its ledger lines: the row's, then its spans'.

    ``costs`` takes what each step spent, by its name, and what hashing the source did. Every line ends in exactly one
    state. What this row lacks becomes ``rejected``; an error of ours ``failed`` with its traceback. Raises only what
    must stop the run: ``Transient``, ``Corrupt``, ``Misuse``.
    """
    if planned.reason is not None:
        return [], [_line(planned, "row", "rejected", planned.reason, planned.detail)]
    clip = Clip(planned, Path(planned.values.file))
    ended: tuple[str, str | None, str] = ("kept", None, "")
    spans: list[Clip] = []
    costs = costs or Costs()
    try:
        with ExitStack() as stack:
            with costs.of("hashing"):
                clip.path = stack.enter_context(Sources.of(data_root).held(planned))
            with _as_planned(clip, costs):
                spans = _run(clip, steps(tools, settings), costs)
    except Reject as error:
        ended, spans = ("rejected", error.reason, error.detail), []
    except (Transient, Corrupt, Misuse):
        raise
    except Exception:  # of any kind: our bug, which costs this row alone; the exit code tells of it
        ended, spans = ("failed", FailureCode.INTERNAL, traceback.format_exc()), []
    finally:
        clip.close()
    samples = [(span.key, span.members) for span in spans if span.refusal is None]
    if spans and not samples:
        refusals = {span.refusal.reason: span.refusal.detail for span in reversed(spans) if span.refusal}
        reason = first(list(refusals))
        ended = ("rejected", reason, refusals[reason])
    lines = [_line(planned, "row", *ended) | clip.source | {"start_s": clip.start_s, "end_s": clip.end_s}]
    for span in spans:
        how = ("rejected", span.refusal.reason, span.refusal.detail) if span.refusal else ("kept", None, "")
        columns = {"key": span.key, "span": span.span, "frames": span.frames, "side": span.side or None}
        times = {"start_s": span.start_s, "end_s": span.end_s}
        lines.append(_line(planned, "span", *how) | columns | times | span.source | span.scores)
    return samples, lines


def failed(planned: PlannedRow, code: FailureCode, detail: str) -> Lines:
    """The ledger line of a row that could not be worked on at all."""
    return [_line(planned, "row", "failed", code, detail)]


def _run(clip: Clip, todo: list[Step], costs: Costs) -> list[Clip]:
    spans = [clip]
    for step in todo:
        if clip.kind not in step.kinds:
            continue
        made: list[Clip] = []
        for span in spans:
            try:
                if span.refusal is None:
                    with costs.of(type(step).__name__):
                        made += step(span)
                else:
                    made.append(span)
            except Reject as error:
                if error.reason not in OF_A_SPAN:
                    raise
                span.refusal = error
                made.append(span)
        spans = made
    return spans


@contextmanager
def _as_planned(clip: Clip, costs: Costs) -> Iterator[None]:
    """Hold what happens inside, a refusal too, against the planned bytes.

    Raises ``Reject(HASH_MISMATCH)`` where the file changed meanwhile, even if it was put back since, and ``Transient``
    where its disk fails: what a decoder makes of half a file says nothing about the clip.
    """
    refused: Reject | FileNotFoundError | None = None
    seen = _mark(clip.path)
    with reading(clip.path):
        try:
            yield
        except (Reject, FileNotFoundError) as error:
            refused = error
        with costs.of("hashing"):
            try:
                same = sha256_file(clip.path) == clip.planned.sha256 and _mark(clip.path) == seen
            except FileNotFoundError:
                same = False
    if not same:
        raise Reject(Reason.HASH_MISMATCH, f"{clip.planned.values.file} changed while it was read") from refused
    if refused is not None:
        raise refused


def _mark(path: Path) -> Mark:
    """What no write and no rename leaves as it is; the time of change cannot be set back."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _line(planned: PlannedRow, level: str, state: str, reason: str | None, detail: str) -> dict[str, Any]:
    row = planned.values
    return {
        "level": level,
        "key": planned.key,
        "row": planned.row,
        "state": state,
        "reason": None if reason is None else str(reason),
        "detail": detail,
        "file": row.file,
        "native_id": row.native_id,
        "source_sha256": planned.sha256,
        "source_bytes": planned.bytes,
        "kind": row.kind,
        **{name: getattr(row, name) for name in PEOPLE},
        **{f"extra.{name}": value for name, value in sorted(row.extra.items())},
    }
