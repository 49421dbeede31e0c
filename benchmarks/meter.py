"""Where the processor time of an ingestion goes: each part's own, without that of the parts it calls."""

from __future__ import annotations

import functools
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from preprocessing.costs import processor

# What is timed, and the part it counts for. What none of them spends is "other" (arithmetic on points, the loop).
PLACES = {
    "hashing": ("preprocessing.build:sha256_file", "preprocessing.sources:sha256_file"),
    "probe": ("preprocessing.media:probe",),
    "decode": (
        "preprocessing.media.decode:Decoding.__init__",
        "preprocessing.media.decode:Decoding.close",
        "preprocessing.media.quick:Quick.next",
        "preprocessing.media.quick:Quick.finish",
        "preprocessing.media.pipe:Piped.next",
        "preprocessing.media.pipe:Piped.finish",
    ),
    "detect": tuple(f"preprocessing.faces:FaceFinder.{name}" for name in ("hog", "clahe", "cnn", "blaze")),
    "mesh": ("preprocessing.landmarks:FaceMesh.find", "preprocessing.landmarks:FaceMesh.reset"),
    "region": ("preprocessing.landmarks:Follower.follow",),
    "pocket": ("preprocessing.pockets:Pockets.add", "preprocessing.pockets:Spool.read"),
    "warp": ("preprocessing.picture:Picture.warped",),
    "encode": ("preprocessing.steps:encode_jpeg",),
    "cuts": ("preprocessing.picture:Picture.thin", "preprocessing.shots:Cuts.begins"),
    "scores": (
        "preprocessing.quality:Stillness.see",
        "preprocessing.quality:Sharpness.see",
        "preprocessing.likeness:Likeness.see",
        "preprocessing.steps:Measure.__call__",
    ),
    "pack": ("preprocessing.steps:encode",),
    "commit": ("preprocessing.shard:write_shard",),
}


def cpu_seconds() -> float:
    """User and system time of this process, of the children that have ended, and of its decoders."""
    return processor()


class Meter:
    """Counts, while it is :meth:`on`, the processor seconds and the calls of each part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._inside: list[float] = []  # per part on the stack, what parts within it have spent

    @property
    def total(self) -> float:
        """Processor seconds of all parts."""
        return sum(self.seconds.values())

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch the parts; everything inside that none of them spends counts as "other"."""
        replaced: list[tuple[Any, str, Any]] = []
        for part, places in PLACES.items():
            for place in places:
                module, _, name = place.partition(":")
                owner: Any = importlib.import_module(module)
                *outer, name = name.split(".")
                for each in outer:
                    owner = getattr(owner, each)
                replaced.append((owner, name, getattr(owner, name)))
                setattr(owner, name, self._timed(part, getattr(owner, name)))
        try:
            with self.part("other"):
                yield
        finally:
            for owner, name, value in replaced:
                setattr(owner, name, value)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is spent inside for ``name``."""
        children = name in ("probe", "decode", "other")
        clock = cpu_seconds if children else time.process_time
        began = clock()
        self._inside.append(0.0)
        try:
            yield
        finally:
            spent = clock() - began
            self.seconds[name] += spent - self._inside.pop()
            self.calls[name] += 1
            if self._inside:
                self._inside[-1] += spent

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **more: Any) -> Any:
            with self.part(part):
                return call(*args, **more)

        return timed
