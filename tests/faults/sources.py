"""F7, F12, F13: sources that fail or change while they are read, and steps that change between two runs."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from faults.disks import FailingDisk
from faults.material import digests, record_clips
from faults.row import Figure, reached

from contracts.errors import Transient
from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.plan import PlannedRow
from contracts.shards import committed
from preprocessing import media
from preprocessing import sources as places
from preprocessing.accounts import pending, planned_shards
from preprocessing.build import STEPS, IngestSettings, build_row
from preprocessing.plan import plan_dataset
from preprocessing.shard import ShardTask, make_shard
from preprocessing.step import Tools

SETTINGS = IngestSettings(rows_per_shard=1)


def same_size(one: Path, other: Path) -> None:
    """Make two MP4 files equally long, by a free box at the end of the shorter: only their contents tell them apart."""
    larger = max(one.stat().st_size, other.stat().st_size) + 64
    for path in (one, other):
        room = larger - path.stat().st_size
        with path.open("ab") as file:
            file.write(room.to_bytes(4, "big") + b"free" + bytes(room - 8))


@contextmanager
def swapped_during_decode(path: Path, other: bytes, *, restore: bool, kept_time: bool) -> Iterator[None]:
    """Other contents while the decoder reads; ``restore`` puts the planned ones back before anybody looks again."""
    real, data, status = media.decode, path.read_bytes(), path.stat()

    def put(contents: bytes) -> None:
        path.write_bytes(contents)
        if kept_time:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def decode(*given: Any, **more: Any) -> Any:
        put(other)
        decoding = real(*given, **more)
        close = decoding.close

        def restored() -> None:
            close()
            if restore:
                put(data)

        decoding.close = restored
        return decoding

    with mock.patch.object(media, "decode", decode):
        yield
    put(data)


@contextmanager
def swapped_by_a_thread(path: Path, other: Path, rng: random.Random) -> Iterator[None]:
    """Another file is moved to its place at a random moment, and maybe the planned one back."""
    spare = path.with_name("spare.mp4")
    shutil.copy2(path, spare)

    def act() -> None:
        time.sleep(rng.uniform(0, 0.6))
        moved = path.with_name("moved.mp4")
        shutil.copy(other, moved)
        moved.replace(path)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.4))
            shutil.copy2(spare, moved)
            moved.replace(path)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        shutil.copy2(spare, path)
        spare.unlink()


def change_source(folder: Path, count: int) -> Figure:
    """F12: the file's contents change between the look at it and its decoding, in place, by rename, and back again."""
    record_clips(folder, 2)
    path, other = folder / "talk-0.mp4", folder / "talk-1.mp4"
    same_size(path, other)
    row, tools, rng = row_from({"file": path.name}), Tools(), random.Random(12)
    planned = PlannedRow(row=0, shard=0, key=row.key, sha256=sha256_file(path), bytes=path.stat().st_size, values=row)
    right = build_row(planned, folder, tools, SETTINGS)[0]
    assert right, "the clip as planned becomes a sample"
    mismatch = wrong = unhurt = 0
    for trial in range(count):
        way = trial % 4
        surely = swapped_during_decode(path, other.read_bytes(), restore=way > 0, kept_time=way > 1)
        with swapped_by_a_thread(path, other, rng) if way == 3 else surely:
            samples, lines = build_row(planned, folder, tools, SETTINGS)
        mismatch += lines[0]["reason"] == "HASH_MISMATCH"
        unhurt += samples == right
        wrong += bool(samples) and samples != right
        reached(trial + 1, count)
    said = f"HASH_MISMATCH {mismatch}, read before the change {unhurt}, wrong-content samples {wrong}"
    certain = count - count // 4  # where the decoder surely read other contents
    return Figure(said, not wrong and mismatch + unhurt == count and mismatch >= certain)


DECODERS = {"talk-0.mp4": "decode", "speech.wav": "decode_sound", "face.png": "decode_still"}


def fail_while_reading(folder: Path, count: int) -> Figure:
    """F7: while a source is decoded, or before, its disk fails: the second half gives EIO. Then it is well again.

    A decoder takes the missing half for damage, or raises: neither may become the clip's fault, or ours.
    """
    record_clips(folder / "clips", 1)
    tools, told, same, others = Tools(), 0, 0, list[str]()
    for trial in range(count):
        name = list(DECODERS)[trial % len(DECODERS)]
        disk = FailingDisk(folder / f"disk-{trial}", folder / "clips" / name)
        try:
            row = row_from({"file": name})
            size = disk.path.stat().st_size
            planned = PlannedRow(row=0, shard=0, key=row.key, sha256=sha256_file(disk.path), bytes=size, values=row)
            right = build_row(planned, disk.folder, tools, SETTINGS)
            assert right[1][0]["state"] == "kept", right[1]
            if trial // len(DECODERS) % 2:
                disk.fail()
            ended = "not at all"
            try:
                with failing_before(DECODERS[name], disk), mock.patch.object(places, "WAIT_S", 0.01):
                    ended = str(build_row(planned, disk.folder, tools, SETTINGS)[1][0])
            except Transient as error:
                ended = str(error)
            if ended.startswith(f"{disk.path} cannot be read: Input/output error: look at its disk"):
                told += 1
            else:
                others.append(f"{name}: {ended[:300]}")
            disk.mend()
            same += build_row(planned, disk.folder, tools, SETTINGS) == right
            reached(trial + 1, count)
        finally:
            disk.close()
    said = f"stopped, naming the file {told}/{count}; well again, the same sample {same}/{count}"
    said += "".join(f"; {other}" for other in others[:1])
    return Figure(said, told == same == count)


@contextmanager
def failing_before(decoder: str, disk: FailingDisk) -> Iterator[None]:
    """The disk fails when ``decoder`` is called: what was looked at before was well."""
    real = getattr(media, decoder)

    def decode(*given: Any, **more: Any) -> Any:
        disk.fail()
        return real(*given, **more)

    with mock.patch.object(media, decoder, decode):
        yield


def make_pending(dataset: Path, root: Path) -> list[int]:
    """Make what is pending in this process; the numbers of those shards."""
    planned = planned_shards(dataset)
    todo = pending(dataset, SETTINGS, planned)
    for number in todo:
        for _ in make_shard(ShardTask(dataset, root, number, planned[number], SETTINGS)):
            pass
    return todo


def change_step(folder: Path, count: int) -> Figure:
    """F13: a step's version is raised; only shards with kinds that it works on are made again."""
    root, dataset = folder / "clips", folder / "dataset"
    record_clips(root, 1)
    names = ("talk-0.mp4", "face.png", "speech.wav")
    plan_dataset(dataset, [row_from({"file": name}) for name in names], root, rows_per_shard=1)
    assert make_pending(dataset, root) == [0, 1, 2]
    kinds = {shard.record.shard: shard.ledger()["kind"][0].as_py() for shard in committed(dataset)}
    touches = {"Watch": {"clip"}, "Look": {"face"}, "Listen": {"speech"}}
    right = untouched = 0
    chosen = [kind for kind in STEPS if kind.__name__ in touches][:count]
    for step in chosen:
        before = digests(dataset)
        times = {name: (dataset / name).stat().st_mtime_ns for name in before}
        expected = [number for number, kind in kinds.items() if kind in touches[step.__name__]]
        with mock.patch.object(step, "version", step.version + 1):
            right += make_pending(dataset, root) == expected
            right += pending(dataset, SETTINGS) == []
        after = digests(dataset)
        others = [name for name in before if int(name[6:12]) not in expected]
        untouched += all(
            after[name] == before[name] and (dataset / name).stat().st_mtime_ns == times[name] for name in others
        )
        make_pending(dataset, root)
        right += digests(dataset) == before
    said = f"only what the step touches is made again {right}/{3 * len(chosen)}, "
    said += f"the others keep time and bytes {untouched}/{len(chosen)}"
    return Figure(said, right == 3 * len(chosen) and untouched == len(chosen))
