"""Reading batches out of shards: every batch is a pure function of (seed, step)."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from contracts.errors import Corrupt, Misuse
from contracts.sample import FPS, SAMPLES_PER_FRAME, Frames, view_features, view_wav
from contracts.selection import Chosen, Selection
from contracts.shards import Shard, dataset_digest, read_shard
from systems.base import Batch, View
from training.pictures import as_numbers, decode_into, room_for
from training.sound import SOUNDS, sound_fields
from training.streams import Streams

Subset = Literal["train", "known", "new"]
GENDERS = {"f": 0, "m": 1, "unknown": -1}
KNOWN_SHORTEST = 80  # frames; a shorter clip is trained on whole
KNOWN_SHARE = 5  # the last fifth of a clip is kept from training
KNOWN_LEAST = 32  # frames, and at least these: the longest window of a stage at ``tiny``
KNOWN_GAP = -(-FPS // 2)  # frames; 0.5 s, rounded up
REFERENCE_GAP = KNOWN_GAP  # frames between a window and its references, at least
OPEN_MOST = 4096  # samples whose members' places are remembered
STREAM_PASS = 2**32 - 1  # stands in an epoch's place where windows of an ordered pass are drawn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """Frames ``first`` to ``end`` (exclusive) of a sample that one subset may see."""

    sample: Chosen
    first: int
    end: int


def span_of(sample: Chosen, subset: Subset) -> Span | None:
    """What ``subset`` may see of a sample; ``None``: nothing.

    ``new``: samples of the validation split, whole. ``known``: the last fifth, or 32 frames
    where that is less, of a training clip of at least 80 frames. ``train``: training samples, such a clip
    only up to 0.5 s before that part.
    """
    if (sample.split == "val") != (subset == "new"):
        return None
    if subset == "new" or sample.kind != "clip" or sample.frames < KNOWN_SHORTEST:
        return None if subset == "known" else Span(sample, 0, sample.frames)
    known = sample.frames - max(sample.frames // KNOWN_SHARE, KNOWN_LEAST)
    return Span(sample, known, sample.frames) if subset == "known" else Span(sample, 0, known - KNOWN_GAP)


class Members:
    """A sample's members as views of the mapped shard: each is looked for once, and read where it is touched."""

    def __init__(self, shard: Shard, data: memoryview, key: str) -> None:
        self._places, self._data = shard.offsets[key], data

    @cached_property
    def frames(self) -> Frames:
        """The pictures, as JPEGs."""
        return Frames(self._member("frames"))

    @cached_property
    def landmarks(self) -> np.ndarray:
        """Float32 [T, 478, 3]."""
        return view_features(self._member("npz"), "landmarks")

    @cached_property
    def sound(self) -> np.ndarray:
        """Int16 [N]."""
        return view_wav(self._member("wav"))

    def _member(self, extension: str) -> memoryview:
        offset, size = self._places[extension]
        return self._data[offset : offset + size]


def verify(dataset: Path, selection: Selection) -> None:
    """Check that the selection is of this dataset, and the digest of every shard that it uses.

    Raises ``Misuse`` for a selection of other data, ``Corrupt`` naming file and both digests.
    """
    digest = dataset_digest(dataset)
    if selection.dataset != digest:
        raise Misuse(
            f"the selection was made of a dataset {selection.dataset[:12]}, {dataset} is {digest[:12]}: "
            "select again: voxface dataset select"
        )
    for number in sorted({sample.shard for sample in selection.samples}):
        read_shard(dataset, number).verify()


class Reader:
    """Items of one subset of a selection, as a stage's view asks for them.

    Item ``p`` of the endless stream is, in epoch ``p // N``, entry ``p % N`` of a permutation drawn
    from (seed, epoch); its window is drawn from (seed, epoch, p % N). Step ``s`` takes items
    ``s * batch`` to ``(s + 1) * batch``, of which rank r of w takes its slice: the global batch is the
    same for any number of workers. An entry whose sample is excluded at that step gives way to the next one of
    the epoch's permutation that is not; all other items stay what they were.

    The sound of an item never reaches beyond its subset's span, except that ``known`` items may look
    back into the gap of 0.5 s: what a stage is asked about was never heard in training.
    """

    def __init__(
        self,
        dataset: Path,
        selection: Selection,
        view: View,
        *,
        subset: Subset,
        seed: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch < world:
            raise Misuse(f"a batch of {batch} cannot be shared by {world} workers: use --workers {max(batch, 1)}")
        self.dataset, self.view, self.subset, self.seed = dataset, view, subset, seed
        self.size, self.rank, self.world = batch, rank, world
        spans = [span_of(sample, subset) for sample in selection.samples if sample.kind in view.kinds]
        self.spans = [span for span in spans if span is not None and _serves(span, view)]
        left_out = sum(span is not None for span in spans) - len(self.spans)
        if left_out:
            logger.info("%s: %d samples are too short for windows of %d frames", subset, left_out, view.span)
        self.speakers = {name: i for i, name in enumerate(sorted({s.speaker for s in selection.samples}))}
        self.excluded: dict[str, int] = {}
        self._streams = Streams(seed)
        self._open: dict[int, tuple[Shard, memoryview]] = {}
        self._members: dict[str, Members] = {}

    def __len__(self) -> int:
        """Items per epoch: one window of each sample."""
        return len(self.spans)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_members": {}}  # open files stay with their process

    def batch(self, step: int) -> Batch:
        """This rank's slice of global batch ``step``. Raises ``Misuse`` where the subset is empty."""
        return as_numbers(self.load(step))

    def load(self, step: int) -> Batch:
        """The same, its pictures still bytes (:func:`training.pictures.as_numbers`)."""
        return self._items([self._draw(position) for position in self.positions(step)])

    def keys(self, step: int) -> list[str]:
        """Keys of the whole global batch ``step``, in order; nothing is decoded."""
        return [self._drawn(position).sample.key for position in range(step * self.size, (step + 1) * self.size)]

    def exclude(self, steps: Mapping[str, int]) -> None:
        """No longer draw these samples, each from the step on that is given with its key."""
        self.excluded = dict(steps)

    @cached_property
    def speaker_of(self) -> dict[str, str]:
        """The speaker's name by key, of this subset's samples."""
        return {span.sample.key: span.sample.speaker for span in self.spans}

    def positions(self, step: int) -> range:
        """Positions in the endless stream that this rank takes at ``step``."""
        first = step * self.size
        return range(first + self.size * self.rank // self.world, first + self.size * (self.rank + 1) // self.world)

    def item(self, position: int) -> dict[str, Any]:
        """One item of the endless stream."""
        return {name: value[0] for name, value in as_numbers(self._items([self._draw(position)])).items()}

    def window(self, position: int) -> tuple[str, np.ndarray]:
        """Key and frame numbers int64 of an item's pictures; nothing is decoded."""
        span, place = self._draw(position)
        return span.sample.key, self._choose(span, self._streams.at(*place))[1][""]

    def _draw(self, position: int) -> tuple[Span, tuple[int, int]]:
        """What the item at a position is of, and where its random numbers stand: epoch and place."""
        if not self.spans:
            raise Misuse(
                f"no {self.subset} samples of kind {' or '.join(self.view.kinds)} with {self.view.span} frames "
                "or more are selected: select more: voxface dataset select"
            )
        epoch, place = divmod(position, len(self.spans))
        return self._drawn(position), (epoch, 1 + place)

    def _drawn(self, position: int) -> Span:
        """The span at a position of the endless stream."""
        epoch, place = divmod(position, len(self.spans))
        order, step = self._order(epoch), position // self.size
        for further in range(len(order)):
            span = self.spans[order[(place + further) % len(order)]]
            if self.excluded.get(span.sample.key, step + 1) > step:
                return span
        raise Misuse(f"all {len(order)} {self.subset} samples are excluded: their losses were not finite")

    def passes(self, positions: Sequence[int] | None = None) -> Iterator[Batch]:
        """One ordered pass, a window per sample (the same ones each time), whole on every rank.

        ``positions`` picks samples, in that order. The last batch may be smaller.
        """
        chosen = range(len(self.spans)) if positions is None else positions
        for first in range(0, len(chosen), self.size):
            part = chosen[first : first + self.size]
            yield as_numbers(self._items([(self.spans[i], (STREAM_PASS, 1 + i)) for i in part]))

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._streams.at(epoch, 0).permutation(len(self.spans)))
        return self._epoch[1]

    @cached_property
    def _epoch(self) -> tuple[int, np.ndarray]:
        return 0, self._streams.at(0, 0).permutation(len(self.spans))

    def _items(self, drawn: Sequence[tuple[Span, tuple[int, int]]]) -> Batch:
        """Items together; their pictures are decoded to where they stay, as bytes."""
        view, rooms = self.view, dict[str, np.ndarray]()
        if "frames" in view.fields:
            rooms = {"frames": room_for(len(drawn), view.frames, view.size)}
            if view.references:
                rooms["references"] = room_for(len(drawn), view.references, view.size)
        items, shown_of = [], []
        for span, place in drawn:
            rng = self._streams.at(*place)
            shown, seen = self._choose(span, rng)
            items.append(self._item(span, rng, shown, seen))
            shown_of.append((span, seen))
        batch = collate(items)
        # apart from the rest: what is done many times in a row stays in the processor's cache
        for i, (span, seen) in enumerate(shown_of):
            with self._naming(span.sample):
                for name, room in rooms.items():
                    wanted = seen["" if name == "frames" else "reference_"].tolist()
                    decode_into(room[i], self._opened(span.sample).frames, wanted)
        return batch | {name: torch.from_numpy(room) for name, room in rooms.items()}

    def _choose(self, span: Span, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Numbers of the frames that landmarks and sound are of, and of those with pictures; references apart."""
        view = self.view
        index = _window(span, view, rng)
        shown = {"": index}
        if view.references:
            index, shown["reference_"] = _references(span, index, view, rng)
            shown[""] = index
        return shown, shown | {"": index[view.margin : view.margin + view.frames]}

    def _item(
        self, span: Span, rng: np.random.Generator, shown: Mapping[str, np.ndarray], seen: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """The view's fields of one window, and only those, without pictures."""
        view, sample = self.view, span.sample
        item: dict[str, Any] = {"key": sample.key, "count": sample.frames}
        item |= {f"{name}index": numbers for name, numbers in seen.items()}
        with self._naming(sample):
            members = self._opened(sample)
            if "landmarks" in view.fields:
                item |= {f"{name}landmarks": members.landmarks.take(numbers, 0) for name, numbers in shown.items()}
            if not SOUNDS.isdisjoint(view.fields):
                item |= self._heard(span, members.sound, shown[""], rng)
        if "speaker" in view.fields:
            item["speaker"] = self.speakers[sample.speaker]
        if "gender" in view.fields:
            item["gender"] = GENDERS[sample.gender]
        return item

    def _heard(
        self, span: Span, sound: np.ndarray, index: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The view's fields of sound."""
        part = (0, len(sound))
        if span.sample.kind != "speech":
            part = (span.first * SAMPLES_PER_FRAME, span.end * SAMPLES_PER_FRAME)
        back = KNOWN_GAP if span.first else 0  # only ``known`` spans begin later than their clip
        return sound_fields(self.view, sound, part, index, back, rng if self.subset == "train" else None)

    @contextmanager
    def _naming(self, sample: Chosen) -> Iterator[None]:
        """What is wrong with a sample's members is told with the shard's file and the key."""
        try:
            yield
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise Corrupt(self._shard(sample.shard)[0].tar, f"sample {sample.key}: {error}") from error

    def _shard(self, number: int) -> tuple[Shard, memoryview]:
        if number not in self._open:
            shard = read_shard(self.dataset, number)
            with shard.tar.open("rb") as file:
                self._open[number] = shard, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return self._open[number]

    def _opened(self, sample: Chosen) -> Members:
        if sample.key not in self._members:
            if len(self._members) >= OPEN_MOST:
                self._members.clear()
            self._members[sample.key] = Members(*self._shard(sample.shard), sample.key)
        return self._members[sample.key]


def collate(items: Sequence[dict[str, Any]]) -> Batch:
    """Arrays and numbers of all items together as tensors, of landmarks x and y alone; strings as lists."""
    batch: Batch = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if isinstance(first, str):
            batch[name] = values
        elif name.endswith("landmarks"):
            batch[name] = torch.from_numpy(_across(np.stack(values)))
        else:
            batch[name] = torch.from_numpy(np.stack(values))
    return batch


def _across(points: np.ndarray) -> np.ndarray:
    """Float32 [..., 2] of [..., 3]; a long row at a time, for a pair at a time takes ten times as long."""
    flat = np.empty((*points.shape[:-1], 2), np.float32)
    for axis in (0, 1):
        flat[..., axis] = points[..., axis]
    return flat


def _serves(span: Span, view: View) -> bool:
    """Whether a window of the view fits into the span and the sample's kind has its fields."""
    needs_sound = bool({"audio", "spectrogram"} & set(view.fields))
    if span.sample.kind == "face" and needs_sound:
        return False
    if span.sample.kind == "speech":
        return not {"frames", "landmarks", "audio"} & set(view.fields)
    return span.end - span.first >= view.span and (not view.references or span.end >= view.span + REFERENCE_GAP)


def _window(span: Span, view: View, rng: np.random.Generator) -> np.ndarray:
    """Frame numbers int64 [n + 2 margin] within the span; zeros for speech, which has no frames."""
    length = span.end - span.first
    if span.sample.kind == "speech":
        return np.zeros(view.frames, np.int64)
    if view.pick == "successive":
        return span.first + int(rng.integers(length - view.span + 1)) + np.arange(view.span, dtype=np.int64)
    return span.first + rng.choice(length, view.frames, replace=False).astype(np.int64)


def _references(span: Span, index: np.ndarray, view: View, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The window (moved to the span's start where nothing is far enough from it) and its references' frame numbers."""
    far = _far(span, index)
    if not far.size:
        index = span.first + np.arange(len(index), dtype=np.int64)
        far = _far(span, index)
    return index, np.sort(rng.choice(far, view.references, replace=len(far) < view.references))


def _far(span: Span, index: np.ndarray) -> np.ndarray:
    """Frame numbers of the clip, as far as ``span`` reaches, that are at least half a second from all of ``index``."""
    frames = np.arange(span.end, dtype=np.int64)
    return frames[np.abs(frames[:, None] - index).min(axis=1) >= REFERENCE_GAP]
