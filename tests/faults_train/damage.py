"""F20, F22: checkpoints that were damaged, and data that changed since."""

from __future__ import annotations

import random
import re
import shutil
from functools import partial
from pathlib import Path

from faults.row import Figure
from faults.row import reached as told_of
from faults_train.material import (
    CODER,
    FULL,
    Kind,
    Workshop,
    apart,
    heard,
    reached,
    refusal,
    starts,
    train_stages,
    workshop,
)
from toys.drawn import Small

from contracts.selection import Selection, write_selection
from contracts.shards import committed, dataset_digest, open_shard, write_shard
from training.checkpoint import Identity, newest
from training.data import verify

STOP = 4  # checkpoints that were made before training was stopped
DIGESTS = re.compile(r"\b[0-9a-f]{12,64}\b")


def stop_after(steps: int) -> None:
    """In a training process: end it, as a kill would, once a checkpoint of that step stands."""
    import os

    from training import checkpoint

    save = checkpoint.save

    def saving(*arguments: object, **more: object) -> object:
        path = save(*arguments, **more)  # type: ignore[arg-type]
        if int(path.name.removeprefix("step-")) >= steps:
            os._exit(9)
        return path

    checkpoint.save = saving  # type: ignore[assignment]


def stopped(shop: Workshop, out: Path, kind: Kind = CODER) -> Path:
    """A training that ended, as if killed, right after checkpoint number ``STOP``."""
    shop.start(kind, out, before=partial(stop_after, STOP * int(kind.settings["checkpoint_every"]))).join()
    return out


def damage_checkpoint(folder: Path, count: int) -> Figure:
    """F20: one bit flipped, or the file cut, anywhere in any file of the newest checkpoint."""
    rng, every = random.Random(20), int(FULL.settings["checkpoint_every"])
    silent = told = 0
    difference, resumed = 0.0, 0
    with workshop(folder) as shop:
        shop.run(FULL, folder / "whole")
        half = stopped(shop, folder / "half", FULL)
        identity = identity_of(half)
        for trial in range(count):
            out = folder / f"damaged-{trial}"
            shutil.copytree(half, out)
            folders = sorted((out / "coder" / "checkpoints").glob("step-*"))
            files = sorted(folders[-1].iterdir())
            file = files[trial % len(files)]
            data, place = bytearray(file.read_bytes()), 0
            if trial % 10 < 5:
                place = rng.randrange(len(data))
                data[place] ^= 1 << rng.randrange(8)
            else:
                data = data[: rng.randrange(len(data))]
            file.write_bytes(data)
            with heard() as said:
                found = newest(folders[-1].parent, identity)
            silent += found is None or found.state.step != (STOP - 1) * every
            told += any(str(file) in line and folders[-2].name in line for line in said)
            if trial % 10 in (0, 9):  # that training goes on from the one before, to the same weights
                shop.run(FULL, out)
                resumed += starts(out, "coder")[-1] == (STOP - 1) * every
                difference = max(difference, apart(out, folder / "whole", "coder"))
            shutil.rmtree(out)
            told_of(trial + 1, count)
    tried = sum(trial % 10 in (0, 9) for trial in range(count))
    said = f"silent loads {silent}/{count}, file and fallback named {told}/{count}; of {tried} trained on, {resumed} "
    said += f"from the checkpoint before, max difference {difference}"
    return Figure(said, not silent and told == count and resumed == tried and difference == 0.0)


def identity_of(out: Path) -> Identity:
    """What the checkpoints of a stopped training belong to."""
    import json

    manifest = next((out / "coder" / "checkpoints").glob("step-*/manifest.json"))
    return Identity(**json.loads(manifest.read_bytes())["body"]["identity"])


def change_data(folder: Path, count: int) -> Figure:
    """F22: one sample less in a shard, the selection made again or not; or another byte under the same record."""
    rng = random.Random(22)
    refused = both = moved = 0
    with workshop(folder) as shop:
        half = stopped(shop, folder / "half")
        for trial in range(count):
            out, data = folder / f"changed-{trial}", folder / f"data-{trial}"
            shutil.copytree(half, out)
            shutil.copytree(shop.small.dataset, data)
            shards = [shard.record.shard for shard in committed(data)]
            small = Small(data, shop.small.selection_folder, shop.small.selection)
            if trial % 3 == 2:
                tar = open_shard(data, rng.choice(shards)).tar  # type: ignore[union-attr]
                content = bytearray(tar.read_bytes())
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
                tar.write_bytes(content)
            else:
                small = without_one(small, rng.choice(shards), folder / f"selection-{trial}", again=trial % 3 == 1)
            before = reached(out, "coder")
            request = Workshop(folder, shop.context, small).request(CODER, out)

            def go_on(request=request, small=small) -> None:  # type: ignore[no-untyped-def]
                request.digests()
                verify(small.dataset, small.selection)
                train_stages(request, ["coder"])

            error = refusal(go_on)
            refused += error is not None
            both += error is not None and len(set(DIGESTS.findall(str(error)))) >= 2
            moved += reached(out, "coder") != before
            shutil.rmtree(out)
            shutil.rmtree(data)
            told_of(trial + 1, count)
    said = f"refused {refused}/{count}, both fingerprints named {both}/{count}, silent continuations {count - refused}"
    return Figure(f"{said}, records that moved {moved}", refused == both == count and not moved)


def without_one(small: Small, number: int, folder: Path, *, again: bool) -> Small:
    """The dataset with a shard made anew that lacks its first sample; ``again``: selected anew, too."""
    shard = open_shard(small.dataset, number)
    assert shard is not None
    gone, *keys = shard.record.keys
    lines = [line for line in shard.ledger().to_pylist() if line["key"] not in (gone, gone.removesuffix("-s00"))]
    samples = [(key, shard.read(key)) for key in keys]
    for path in small.dataset.glob(f"shard-{number:06d}.*"):
        path.unlink()
    write_shard(small.dataset, number, samples, lines, steps="drawn", rows=f"drawn-{number}-again")
    if not again:
        return small
    left = tuple(sample for sample in small.selection.samples if sample.key != gone)
    selection = Selection(dataset=dataset_digest(small.dataset), samples=left)
    write_selection(folder, selection)
    return Small(small.dataset, folder, selection)
