"""From a dataset's scores to a selection: rules refuse, speakers are split, nothing is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import Misuse
from contracts.index import read_index, samples
from contracts.query import matching
from contracts.reasons import Reason
from contracts.selection import REFUSED_SCHEMA, Chosen, Selection
from contracts.shards import committed, dataset_digest
from contracts.split import Side, Split, fraction, read_split
from flows.params import SelectionParams

LEAST_VAL_SPEAKERS = 2
COPY_OF = "copy_of"  # beside the ledger's columns: it depends on the other samples


def choose(dataset: Path, params: SelectionParams) -> tuple[Selection, pa.Table]:
    """The selection that ``params`` describe over ``dataset``, and why each other sample is refused.

    A rule refuses the samples for which it is false; where a score is null (a still has no loudness) the rule
    breaks nothing. Rules may name ``copy_of`` too: the key of the sample that this one repeats, or null.
    Several rules broken: the reason that comes first in ``Reason`` counts.
    Raises ``Misuse`` for a rule that is not in the grammar, ``Corrupt`` for a damaged dataset.
    """
    from preprocessing.likeness import copies

    kept = samples(read_index(dataset))
    found = copies(kept.select(["key", "kind", "picture_digest", "sound_digest"]).to_pylist())
    repeats = pa.array([found.get(key) for key in kept["key"].to_pylist()], pa.string())
    kept = kept.append_column(COPY_OF, repeats)
    why: dict[str, tuple[Reason, str]] = {}
    if params.where.strip():
        inside = set(matching(kept, params.where)["key"].to_pylist())
        for key in kept["key"].to_pylist():
            if key not in inside:
                why[key] = (Reason.NOT_SELECTED, f"not: {params.where}")
    order = list(Reason)
    for reason, rule in sorted(params.rules.items(), key=lambda item: order.index(item[0]), reverse=True):
        broken = matching(kept, f"not ({rule})")
        for line in broken.to_pylist():
            why[line["key"]] = (reason, f"not: {rule}")
    shard_of = {key: shard.record.shard for shard in committed(dataset) for key in shard.record.keys}
    lines = [line | {"speaker": speaker_of(line)} for line in kept.to_pylist()]
    chosen = [line for line in lines if line["key"] not in why]
    split = frozen_split(params)
    val = (
        {line["speaker"] for line in chosen if split.side(line["speaker"]) == "val"}
        if split is not None
        else val_speakers(chosen, params.val_share, params.seed)
    )
    selection = Selection(
        dataset=dataset_digest(dataset),
        samples=tuple(
            Chosen(
                key=line["key"],
                shard=shard_of[line["key"]],
                kind=line["kind"],
                frames=line["frames"] or 0,
                speaker=line["speaker"],
                gender=line["gender"] or "unknown",
                split="val" if line["speaker"] in val else "train",
            )
            for line in chosen
        ),
        refused=dict(sorted(Counter(str(reason) for reason, _ in why.values()).items())),
        rules={str(reason): rule for reason, rule in params.rules.items()}
        | ({str(Reason.NOT_SELECTED): params.where} if params.where.strip() else {}),
        split=split.digest() if split is not None else "",
    )
    refused = [
        {"key": line["key"], "reason": str(why[line["key"]][0]), "detail": why[line["key"]][1]}
        for line in lines
        if line["key"] in why
    ]
    return selection, pa.Table.from_pylist(refused, schema=REFUSED_SCHEMA)


def frozen_split(params: SelectionParams) -> Split | None:
    """The split that ``params`` name, or ``None`` where they name none. Raises ``Misuse`` where it is not there."""
    if not params.split:
        return None
    split = read_split(Path(params.split))
    if split is None:
        raise Misuse(f"{params.split} does not exist: freeze a split by voxface dataset split, or set no split")
    return split


def freeze(lines: Iterable[dict[str, Any]], params: SelectionParams, before: Split | None) -> Split:
    """The split of the samples' speakers: ``before`` with new ones added, or a first one."""
    named = list(lines)
    if before is None:
        val = val_speakers(named, params.val_share, params.seed)
        sides: dict[str, Side] = {line["speaker"]: "val" if line["speaker"] in val else "train" for line in named}
        before = Split(seed=params.seed, share=params.val_share, speakers=sides)
    return before.extended(line["speaker"] for line in named)


def val_speakers(lines: Iterable[dict[str, Any]], share: float, seed: int) -> set[str]:
    """Speakers kept out of training: those whose hash falls below ``share``, topped up to two and to both genders.

    A speaker's own hash decides, so that new speakers do not move old ones. At least one speaker, and one
    of each gender where there are two of it, stays in training.
    """
    gender: dict[str, str] = {}
    for line in lines:
        if line["kind"] == "clip":  # stills and sounds cannot be validated on; they go where their speaker goes
            gender[line["speaker"]] = line["gender"] or "unknown"
    ranked = sorted(gender, key=lambda speaker: (fraction(speaker, seed), speaker))
    val = {speaker for speaker in ranked if fraction(speaker, seed) < share}
    for wanted in ("f", "m"):
        of_it = [speaker for speaker in ranked if gender[speaker] == wanted]
        if len(of_it) > 1 and not val & set(of_it):
            val.add(of_it[0])
        if len(of_it) > 1 and set(of_it) <= val:
            val.discard(of_it[-1])

    def last(speaker: str) -> bool:
        """Whether training would lose its last speaker of a gender."""
        others = (gender[other] for other in ranked if other not in val and other != speaker)
        return gender[speaker] != "unknown" and gender[speaker] not in others

    while len(val) < min(LEAST_VAL_SPEAKERS, len(ranked) - 1):
        left = [speaker for speaker in ranked if speaker not in val]
        val.add(next((speaker for speaker in left if not last(speaker)), left[0]))
    if ranked and set(ranked) <= val:
        val.discard(ranked[-1])
    return val


def speaker_of(line: dict[str, Any]) -> str:
    """The speaker; where unknown a name shared by all samples of one source, so that none crosses the split."""
    return str(line["speaker"] or f"unknown-{line['source_sha256'][:12]}")
