"""One decode of a file: upright pictures at exactly 25 per second, and sound, on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from contracts.sample import FPS, SAMPLES_PER_FRAME
from preprocessing.media.pipe import Piped
from preprocessing.media.probe import Probe
from preprocessing.media.process import Budget
from preprocessing.media.quick import Quick
from preprocessing.media.verdict import check_sound
from preprocessing.picture import Picture

HALF_FRAME_S = 0.5 / FPS
MOST_MISSING = 1  # frames that the last picture may have to stand in for: the overlap is rounded to whole frames


class Decoding:
    """A running decode of ``count`` frames; use it as a context manager, so that its child always ends.

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

    def __init__(self, found: Probe, limits: Limits, start_s: float, count: int, whole: bool) -> None:
        self.count = count
        self.width, self.height = found.width, found.height
        self.start_s = start_s
        self.end_s = start_s + count / FPS
        self._found, self._whole = found, whole
        self._job = (found, limits, start_s, count, whole, Budget(limits.decode_deadline_s))
        self._sound: np.ndarray | None = None
        self._source_frames = 0
        plain = found.planar and found.rotation == 0
        self._source: Quick | Piped = Quick(*self._job) if plain else Piped(*self._job)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder, whatever it is doing."""
        self._source.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame once, uint8 [H, W, 3]; every array is the caller's own."""
        for picture in self.pictures():
            yield picture.rgb.copy() if picture.matrix is None else picture.rgb

    def pictures(self) -> Iterator[Picture]:
        """Each frame once as the decoder left it: three planes where the file has 4:2:0, RGB elsewhere.

        A frame is valid until the next is asked for; :meth:`Picture.copy` is so for good.
        """
        last: Picture | None = None
        given = 0
        while self._sound is None:
            while given < self.count and (picture := self._source.next()) is not None:
                last = picture
                given += 1
                yield picture
            self._finish()
        while given < self.count:
            assert last is not None
            given += 1
            yield last

    def _finish(self) -> None:
        """Wait for the end; raise unless all that the file promised was decoded. Or let ffmpeg go on, from here."""
        decoded, length = self._source.finish(), self.count * SAMPLES_PER_FRAME
        missing = self.count - self._source.given > (MOST_MISSING if self._source.given else 0)
        if decoded is None or (isinstance(self._source, Quick) and (missing or decoded.short(length))):
            given = self._source.given
            self._source.close()
            self._source = Piped(*self._job)
            while self._source.given < given and self._source.next() is not None:
                pass
            return
        if missing:
            raise Reject(Reason.TRUNCATED, f"pictures end after {self._source.given} of {self.count} frames")
        check_sound(decoded.sound, length)
        samples = np.clip(np.rint(decoded.sound * 32768.0), -32768, 32767).astype(np.int16)
        self._sound = np.pad(samples, (0, length - len(samples)))
        # at the end of a span decoders run ahead by a frame or not: that count would make the ledger's bytes depend on
        # how it was decoded
        self._source_frames = decoded.pictures if self._whole else round(self.count / FPS * self._found.fps)

    @property
    def sound(self) -> np.ndarray:
        """int16 [640 * count], 16 kHz mono; sample 640 i is heard where frame i begins."""
        if self._sound is None:
            raise RuntimeError("the sound is complete only once every frame has been read")
        return self._sound

    @property
    def source_frames(self) -> int:
        """Frames decoded from the file, before the change of rate; of a span, those it holds at the file's rate."""
        if self._sound is None:
            raise RuntimeError("the frames are counted only once every frame has been read")
        return self._source_frames


def decode(
    found: Probe, limits: Limits | None = None, *, start_s: float | None = None, end_s: float | None = None
) -> Decoding:
    """Start the one decode of the file that ``probe`` looked at, or of its span ``start_s`` to ``end_s`` (seconds).

    T = round(25 * seconds) of the overlap of pictures, sound and span. Frame i is what a player shows at the middle of
    [start + i/25, start + (i+1)/25], so a change is at most 20 ms early or late; sound sample 640 i is heard at
    start + i/25. The start is moved by at most 20 ms onto a picture, so that 25 frames/s pass through one to one.
    Time spent waiting on the decoder counts against ``limits.decode_deadline_s``; the caller's own work does not.

    Raises ``Reject(TOO_SHORT)`` where the overlap is shorter than ``limits.shortest_s``.
    """
    limits = limits or Limits()
    first, last = found.overlap
    start = max(first, start_s) if start_s is not None else first
    end = min(last, end_s) if end_s is not None else last
    if end - start < limits.shortest_s:
        raise Reject(
            Reason.TOO_SHORT,
            f"picture and sound overlap for {max(end - start, 0):.2f} s, {limits.shortest_s:g} are needed",
        )
    nearest = found.shown_s[np.abs(found.shown_s - start).argmin()]
    aligned = float(nearest) if abs(nearest - start) <= HALF_FRAME_S else start
    return Decoding(found, limits, aligned, round(FPS * (end - start)), start_s is None and end_s is None)
