"""The quick decode: sound files with plain pictures, by PyAV in a limited child, through shared memory.

It vouches for a file or is silent: where anything is odd, :meth:`Quick.finish` says so, and ``decode`` asks ffmpeg,
whose word on what is wrong counts.
"""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import numpy as np

from contracts.limits import Limits
from contracts.sample import FPS, SAMPLES_PER_FRAME
from preprocessing.media.graph import BEYOND_S, seek_s, sound_filters
from preprocessing.media.nursery import Fork
from preprocessing.media.probe import FORMATS, RANGES, Probe
from preprocessing.media.process import Budget
from preprocessing.media.verdict import Decoded
from preprocessing.picture import Picture, in_memory, to_rgb

RING_BYTES, FEWEST, MOST = 12 << 20, 3, 32  # of pictures under way: few, so that they stay in the processor's cache
PICTURE, REPORT = b"p", b"r"


class Quick:
    """A running decode of ``count`` pictures from ``start_s``. Each is valid until the next is asked for."""

    def __init__(self, found: Probe, limits: Limits, start_s: float, count: int, whole: bool, budget: Budget) -> None:
        self._found, self._whole, self._budget = found, whole, budget
        self._size = found.height, found.width
        self._matrix = to_rgb(found.space, found.full)
        plan = _plan(found, limits, start_s, count, whole)
        self._first, self._picture, self._slots = plan["first"], plan["picture"], plan["slots"]
        handle = os.memfd_create("pictures")
        try:
            os.ftruncate(handle, plan["bytes"])
            self._memory: mmap.mmap | None = mmap.mmap(handle, plan["bytes"])
            self._child = Fork(
                "read", [plan], memory_mb=limits.decode_memory_mb, cpu_s=limits.decode_deadline_s, memory=handle
            )
        finally:
            os.close(handle)
        self._heard = bytearray()
        self.given = 0  # pictures so far
        self._done = 0  # of them, those whose slots the child was told to use again
        self._batch = plan["batch"]
        self._silent = False

    @property
    def pid(self) -> int:
        """Of the child, and of the group of processes that it leads; 0 once it was ended."""
        return self._child.pid

    def next(self) -> Picture | None:
        """The next picture; ``None`` where no more are given. Raises ``Reject(TIMEOUT)``."""
        if self.given > self._done + self._batch:  # but the last, which is looked at no more
            self._say(PICTURE * self._batch)
            self._done += self._batch
        while not self._heard and not self._silent:
            self._hear()
        if self._heard[:1] != PICTURE:
            return None
        del self._heard[:1]
        offset = self._first + self.given % self._slots * self._picture
        self.given += 1
        height, width = self._size
        assert self._memory is not None
        data = np.frombuffer(self._memory, np.uint8, self._picture, offset)
        return in_memory(data, height, width, self._matrix)

    def finish(self) -> Decoded | None:
        """What was decoded, once the file has been read to its end; ``None`` where this decode does not vouch for it.

        Raises ``Reject(TIMEOUT)``.
        """
        while not self._silent:
            self._hear()
        at = self._heard.find(REPORT)
        try:
            report: dict[str, Any] = json.loads(self._heard[at + 1 :]) if at >= 0 else {"odd": "it ended"}
        except ValueError:
            return None
        if "odd" in report or "error" in report:
            return None
        video = self._found.video
        assert self._memory is not None
        if self._whole and video is not None and report["decoded"] < video.packets - video.discarded:
            return None
        return Decoded(np.frombuffer(self._memory, np.float32, report["heard"]).copy(), report["decoded"])

    def _hear(self) -> None:
        with self._budget.spend():
            said = self._child.hear(self._budget.left)
        if said is None:
            self.close()
            raise self._budget.overrun()
        self._heard += said
        self._silent = not said

    def _say(self, word: bytes) -> None:
        try:
            self._child.line.send(word)
        except OSError:  # it has ended, and what it said last is still to be heard
            return

    def close(self) -> None:
        """End the child, whatever it is doing. Pictures that are held stay as they are."""
        self._child.close()
        self._memory = None


def _plan(found: Probe, limits: Limits, start_s: float, count: int, whole: bool) -> dict[str, Any]:
    """What ``read`` is to do; places are bytes of the shared memory: sound first, then the pictures in their slots."""
    assert found.video is not None
    assert found.audio is not None
    start = start_s + found.origin_s
    end = None if whole else start + count / FPS + BEYOND_S
    samples = count * SAMPLES_PER_FRAME
    picture = found.width * found.height * 3 // (2 if found.halved else 1)
    slots = min(max(RING_BYTES // picture, FEWEST), MOST)
    first = -(-samples * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
    return {
        "path": str(found.path.absolute()),
        "formats": FORMATS,
        "pixels": limits.video_pixels,
        "video": found.video.index,
        "audio": found.audio.index,
        "width": found.width,
        "height": found.height,
        "kind": [found.pixels, found.space],
        "ranges": RANGES[found.pixels],
        "halved": found.halved,
        "start": f"{start:.6f}",
        "end": end,
        "seek": seek_s(found, start) if not whole else None,
        "filters": [
            [name, ":".join([*map(str, arguments), *(f"{key}={value}" for key, value in options.items())])]
            for name, arguments, options in sound_filters(start, end)
        ],
        "rate": FPS,
        "count": count,
        "samples": samples,
        "first": first,
        "picture": picture,
        "slots": slots,
        "batch": max(slots // 3, 1),  # pictures that are spoken of at once: each word wakes the other side
        "bytes": first + slots * picture,
    }
