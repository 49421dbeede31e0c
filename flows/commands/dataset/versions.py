"""``voxface dataset diff``, ``trace`` and ``forget``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Exit
from flows.commands.dataset.arguments import Dataset, SelectionFolder, require_dataset
from flows.commands.options import command
from flows.running import Ended, Run

SHOWN = 20  # entries of a list on a terminal; --json has all


@command("dataset diff")
def diff(
    run: Run,
    before: Annotated[Path, typer.Argument(help="A dataset.")],
    after: Annotated[Path, typer.Argument(help="Another version of it.")],
) -> None:
    """Say how two versions differ: rows added, removed or ended otherwise, samples whose bytes changed.

    Example: voxface dataset diff work/dataset work/dataset-2
    """
    from flows.history import difference

    require_dataset(before)
    require_dataset(after)
    found = difference(before, after)
    run.finish(found if run.json else _shortened(found))


@command("dataset trace")
def trace(
    run: Run,
    dataset: Dataset,
    what: Annotated[str, typer.Argument(help="Key of a sample or row, or a source: file, id or SHA-256.")],
    selection: SelectionFolder = None,
) -> None:
    """Follow a sample to its manifest row (shard, source bytes, time span), or a source to its samples.

    Example: voxface dataset trace work/dataset clips/ada-1.mp4
    """
    from contracts.shards import dataset_digest
    from flows.history import trace as follow

    require_dataset(dataset)
    found = follow(dataset, what, selection or run.places.selection)
    digest = dataset_digest(dataset)
    if run.json:
        run.finish({"dataset": str(dataset), "digest": digest, "found": found})
    else:
        run.finish({"dataset": digest} | {entry["key"]: entry for entry in found})


@command("dataset forget", dry=True)
def forget(
    run: Run,
    dataset: Dataset,
    speaker: Annotated[str, typer.Option(help="Speaker, as the manifest names them.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the new version.")] = None,
) -> None:
    """Write a version without a person, prove that nothing of them is in it, and list all that saw them.

    Models are listed, not changed: train them again on the new version. The old version is not deleted.

    Example: voxface dataset forget work/dataset --speaker ada --out work/dataset-2
    """
    from contracts.shards import dataset_digest
    from flows.forgetting import find_person, search
    from flows.forgetting import forget as without
    from flows.witnesses import witnesses
    from preprocessing.run import verify

    require_dataset(dataset)
    target = out or dataset.with_name(f"{dataset.name}-without")
    person = find_person(dataset, speaker)
    result: dict[str, Any] = {
        "speaker": speaker,
        "rows": len(person.rows),
        "rows_of_others": [row.key for row in person.rows if row.values.speaker != speaker],
        "samples": len(person.samples),
        "sources": len(person.sources),
        "before": {"dataset": str(dataset), "digest": dataset_digest(dataset)},
        "saw": witnesses(run.places.work, set(person.samples)),
    }
    if run.dry:
        run.finish(result | {"would_write": str(target)})
        return
    with run.progress("forget") as progress:
        counts = without(dataset, person, target, progress)
    accounts = verify(target)
    left = search(target, person)
    result["after"] = {"dataset": str(target), "digest": dataset_digest(target), "rows": accounts.read}
    result["shards"] = counts
    result["absence"] = left
    result["still_holding"] = [str(dataset), *(found["path"] for found in result["saw"]["selections"])]
    run.finish(result)
    if left["found"]:
        raise Ended(Exit.FAILED, f"{target} still names {speaker}: {'; '.join(left['found'][:3])}")


def _shortened(found: dict[str, Any]) -> dict[str, Any]:
    """For a terminal: the first entries of every list, and how many more there are."""

    def cut(entries: list[Any]) -> list[Any]:
        more = len(entries) - SHOWN
        texts = [e if isinstance(e, str) else " ".join(str(v) for v in e.values()) for e in entries[:SHOWN]]
        return [*texts, f"and {more} more (--json lists all)"] if more > 0 else texts

    shorter = {level: {how: cut(entries) for how, entries in found[level].items()} for level in ("rows", "samples")}
    return found | shorter
