"""One decode of a file: upright pictures at exactly 25 per second, and sound, on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contracts.limits import Limits
from preprocessing.media.probe import Probe


class Decoding:
    """A running decode of ``count`` frames; use it as a context manager, so that ffmpeg always ends.

    ::

        found = probe(path, limits)
        with decode(found, limits) as clip:
            for frame in clip:              # uint8 [H, W, 3] RGB, exactly clip.count of them, one at a time
                ...
            sound = clip.sound              # int16 [640 * clip.count], 16 kHz mono
            frames_read = clip.source_frames

    Iterating raises ``Reject`` (TRUNCATED, DECODE_ERROR, NON_FINITE, TIMEOUT) as soon as the fault shows, at the
    latest after the last frame: the clip is complete only once the loop has ended without error. ``sound`` and
    ``source_frames`` may be read after that, and raise ``RuntimeError`` before.
    """

    count: int  # T = round(25 * seconds of the overlap)
    width: int
    height: int
    start_s: float  # of frame 0, on the container's clock (0 is where the file begins to play)
    end_s: float  # start_s + count / 25

    def __enter__(self) -> Decoding:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError

    @property
    def sound(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def source_frames(self) -> int:
        """Frames decoded from the file (before the change of rate)."""
        raise NotImplementedError


def decode(
    found: Probe, limits: Limits | None = None, *, start_s: float | None = None, end_s: float | None = None
) -> Decoding:
    """Start the one decode of the file that ``probe`` looked at, or of its span ``start_s`` to ``end_s`` (seconds).

    Frame i is what a player shows at the middle of [start + i/25, start + (i+1)/25]; sound sample 640 i is heard at
    start + i/25. Time waited on ffmpeg counts against ``limits.decode_deadline_s``; the caller's own does not.

    Raises ``Reject(TOO_SHORT)`` where the overlap of picture, sound and span is shorter than ``limits.shortest_s``.
    """
    raise NotImplementedError


def decode_sound(
    path: Path, limits: Limits | None = None, *, start_s: float = 0.0, end_s: float | None = None
) -> np.ndarray:
    """Sound of a speech file (wav, flac, mp3, m4a, ogg, or a video's track): float32 [N] in -1..1, 16 kHz, mono.

    Raises ``Reject`` as ``probe`` (for sound alone) and ``decode`` do.
    """
    raise NotImplementedError
