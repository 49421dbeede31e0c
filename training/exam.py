"""The frozen test: the same samples for every champion and challenger, whatever is added to the dataset."""

from __future__ import annotations

from pathlib import Path

from contracts.errors import Misuse
from contracts.selection import Selection, read_record, read_selection, write_selection
from contracts.shards import committed, dataset_digest


def freeze(selection: Path, to: Path) -> bool:
    """Keep the selection of now as the test; return whether that was done: what is frozen stays."""
    if read_record(to) is not None or read_record(selection) is None:
        return False
    write_selection(to, read_selection(selection))
    return True


def exam(frozen: Path, dataset: Path, selection: Path) -> tuple[Selection, list[str]]:
    """The frozen test over ``dataset`` as it stands, and what had to be left out of it.

    Samples that the dataset no longer has are left out, and test speakers on whose samples models are trained now
    (``selection``): they would know the answers. Both are struck from the frozen test for good, since a model that saw
    them may be the champion later. Raises ``Misuse`` where nothing was frozen.
    """
    if read_record(frozen) is None:
        raise Misuse(f"{frozen} holds no frozen test: voxface dataset select, then the same command")
    test, current = read_selection(frozen), read_selection(selection)
    shards = {key: shard.record.shard for shard in committed(dataset) for key in shard.record.keys}
    learned = {sample.speaker for sample in current.samples if sample.split == "train"}
    gone = {sample.key for sample in test.samples if sample.key not in shards}
    leaked = {s.speaker for s in test.samples if s.split == "val" and s.speaker in learned}
    kept = tuple(
        sample.model_copy(update={"shard": shards[sample.key]})
        for sample in test.samples
        if sample.key not in gone and not (sample.split == "val" and sample.speaker in leaked)
    )
    notes = []
    if gone:
        notes.append(f"{len(gone)} samples of the frozen test are no longer in the dataset and were struck from it")
    if leaked:
        notes.append(
            f"{len(leaked)} speakers of the frozen test are trained on now and were struck from it: a frozen split "
            "(selection.split in params.yaml) keeps speakers on their side"
        )
    if notes:
        write_selection(frozen, test.model_copy(update={"samples": kept}))
    return Selection(dataset=dataset_digest(dataset), samples=kept), notes
