"""Items of the loader, of its limit, and of a plain ``Dataset`` that opens a video for each item."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.ingest import ingest, source
from contracts.sample import FPS, Frames, decode_features, decode_meta
from contracts.selection import Chosen, Selection
from contracts.shards import committed, dataset_digest
from preprocessing.plan import plan_dataset
from systems.base import View
from training.data import Reader
from training.feed import feed
from training.pictures import as_numbers, decode

LEAST_OF_LIMIT = 0.8  # of the limit's samples per second
TIMES_PLAIN = 3
BATCH = 8
VIEWS = {
    "two": View(("frames", "landmarks", "audio"), frames=2, pick="random", context=2),
    "five": View(("frames", "landmarks", "audio"), frames=5, pick="successive", context=2),
    "five128": View(("frames", "landmarks", "audio"), frames=5, pick="successive", context=2, size=128),
}


@dataclass(frozen=True)
class Clips:
    """A dataset of some clips, all of them for training, and where their videos lie."""

    dataset: Path
    root: Path
    selection: Selection
    name: str
    sides: str  # of the stored crops, smallest to largest

    @classmethod
    def ingested(cls, folder: Path, count: int) -> Clips:
        """Ingest ``count`` clips of the corpus into ``folder``."""
        root, rows, name = source(Namespace(files=count, only=None))
        for row in plan_dataset(folder, rows, root, rows_per_shard=1):
            if row.reason is None:
                ingest(folder, root, row)
        return cls.standing(folder, root, name)

    @classmethod
    def standing(cls, folder: Path, root: Path, name: str) -> Clips:
        """All clips of a dataset that stands; their videos lie under ``root``."""
        chosen, sides = [], set()
        for shard in committed(folder):
            for key in shard.record.keys:
                meta = decode_meta(shard.read(key, ("json",))["json"])
                if meta.kind != "clip":
                    continue
                facts = {"kind": meta.kind, "frames": meta.frames, "speaker": meta.speaker or meta.source_sha256}
                chosen.append(Chosen(key=key, shard=shard.record.shard, split="train", gender="unknown", **facts))
                sides.add(meta.side)
        selection = Selection(dataset=dataset_digest(folder), samples=tuple(chosen))
        return cls(folder, root, selection, name, f"{min(sides)} to {max(sides)}")

    def reader(self, view: View, batch: int = BATCH) -> Reader:
        """What training reads."""
        return Reader(self.dataset, self.selection, view, subset="train", seed=0, batch=batch)


class PlainVideos(Dataset[dict[str, Any]]):
    """What one would write first: each item opens its clip, seeks, decodes up to its frames and crops them.

    The sound is not even read. Where the crop lies is known (what ingestion has found).
    """

    def __init__(self, clips: Clips, reader: Reader) -> None:
        self.reader, self.view, self.root = reader, reader.view, clips.root
        self.samples = {}
        for shard in committed(clips.dataset):
            for key in set(shard.record.keys) & reader.speaker_of.keys():
                members = shard.read(key, ("json", "npz"))
                matrices = decode_features(members["npz"], ("crop_from_source",))["crop_from_source"]
                self.samples[key] = decode_meta(members["json"]), matrices

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.frames_of(*self.reader.window(position))

    def frames_of(self, key: str, index: np.ndarray) -> dict[str, Any]:
        """Frames float32 [n, 3, S, S] in [-1, 1], as the loader's."""
        meta, matrices = self.samples[key]
        size, pictures = self.view.size, {}
        times = {int(i): meta.start_s + i / FPS for i in index}
        with av.open(str(self.root / meta.file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            start = (stream.start_time or 0) * stream.time_base
            for i, at in sorted(times.items(), key=lambda pair: pair[1]):
                container.seek(int((at + start) / stream.time_base), stream=stream)
                last = None
                for frame in container.decode(stream):
                    if last is not None and frame.time - start > at + 0.5 / FPS:
                        break
                    last = frame
                assert last is not None
                scale = size / meta.side
                matrix = scale * matrices[i] + [[0, 0, (scale - 1) / 2]] * 2  # pixel centres are at integers
                picture = last.to_ndarray(format="rgb24")
                pictures[i] = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_AREA)
        stacked = np.stack([pictures[int(i)] for i in index])
        return {"key": key, "frames": torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(127.5).sub(1)}


class Limit:
    """The JPEGs of an item's frames read from the tar and decoded as the loader decodes them, and nothing else."""

    def __init__(self, clips: Clips, reader: Reader) -> None:
        self.reader, self.size = reader, reader.view.size
        self.places: dict[str, tuple[int, int, int, np.ndarray]] = {}  # file, side, first byte, offsets of frames
        for shard in committed(clips.dataset):
            file = os.open(shard.tar, os.O_RDONLY)
            for key, members in shard.offsets.items():
                if key not in reader.speaker_of:
                    continue
                offset, length = members["frames"]
                frames = Frames(os.pread(file, length, offset))
                first = offset + length - sum(map(len, frames))
                self.places[key] = file, frames.side, first, np.cumsum([0, *map(len, frames)])

    def item(self, key: str, index: np.ndarray) -> list[np.ndarray]:
        """The frames, uint8, at the side to which the decoder can halve them."""
        file, side, first, offsets = self.places[key]
        return [
            decode(os.pread(file, int(offsets[i + 1] - offsets[i]), first + int(offsets[i])), side, self.size)
            for i in index
        ]


@dataclass(frozen=True)
class Loading:
    """Processor seconds per item."""

    says: str
    ours: float
    limit: float
    numbers: float  # ours, with pictures as float32 planes, which is what the plain one gives
    plain: float
    apart: float  # mean difference of the pictures of loader and plain, of 255


def measure_loading(clips: Clips, view: View, items: int, repeat: int) -> Loading:
    """Loader, limit and plain on the same items, in turn; of ``repeat`` times the least counts for each."""
    reader = clips.reader(view)
    limit, plain = Limit(clips, reader), PlainVideos(clips, reader)
    wanted = [reader.window(position) for position in range(items)]
    few = wanted[: max(BATCH, items // 8)]  # the plain one is slow
    steps = -(-items // BATCH)
    best = dict.fromkeys(("ours", "limit", "numbers", "plain"), np.inf)
    for _ in range(repeat):
        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            "ours": (steps * BATCH, lambda: [None for _ in feed(reader, 0, steps)]),
            "numbers": (steps * BATCH, lambda: [as_numbers(batch) and None for batch in feed(reader, 0, steps)]),
            "limit": (items, lambda: [limit.item(*each) and None for each in wanted]),
            "plain": (len(few), lambda: [plain.frames_of(*each) and None for each in few]),
        }
        for name, (count, call) in ways.items():
            began = time.process_time()
            call()
            best[name] = min(best[name], (time.process_time() - began) / count)
    batches = islice(feed(reader, 0, steps), -(-len(few) // BATCH))
    ours = [frames for batch in batches for frames in as_numbers(batch)["frames"]]
    pairs = [(mine, plain.frames_of(*each)["frames"]) for mine, each in zip(ours, few)]
    apart = float(np.mean([(mine - other).abs().mean() for mine, other in pairs])) * 127.5
    said = f"{view.frames} {view.pick} frames of {view.size} px with landmarks and sound"
    return Loading(said, **best, apart=apart)
