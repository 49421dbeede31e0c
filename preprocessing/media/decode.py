"""One decode of a file: upright pictures at exactly 25 per second, and sound, on one clock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from contracts.sample import FPS, SAMPLES_PER_FRAME
from preprocessing.media.graph import clip_argv
from preprocessing.media.probe import Probe
from preprocessing.media.process import GRACE_S, Budget, Child, Drain
from preprocessing.media.verdict import check_sound, judge
from preprocessing.picture import Picture, to_rgb

PIPE_BYTES = 1 << 20
HALF_FRAME_S = 0.5 / FPS
MOST_MISSING = 1  # frames that the last picture may have to stand in for: the overlap is rounded to whole frames


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

    def __init__(self, found: Probe, limits: Limits, start_s: float, count: int, whole: bool) -> None:
        self.count = count
        self.width, self.height = found.width, found.height
        self.start_s = start_s
        self.end_s = start_s + count / FPS
        self._found = found
        self._matrix = None if found.space is None else to_rgb(found.space, found.full)
        self._budget = Budget(limits.decode_deadline_s)
        self._whole = whole
        self._sound: np.ndarray | None = None
        self._source_frames = 0
        pictures_out, pictures_in = os.pipe()
        sound_out, sound_in = os.pipe()
        self._pictures = pictures_out
        self._poll = select.poll()
        self._poll.register(pictures_out, select.POLLIN)
        try:
            with contextlib.suppress(OSError):  # a larger pipe is only quicker
                fcntl.fcntl(pictures_out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            argv = clip_argv(found, limits, start_s, count, whole, pictures_in, sound_in)
            self._child = Child(
                argv,
                memory_mb=limits.decode_memory_mb,
                cpu_s=limits.decode_deadline_s,
                inherit=(pictures_in, sound_in),
            )
        except BaseException:  # whatever ended the start, Ctrl-C too: nothing else would close them; it goes on
            os.close(pictures_out)
            os.close(sound_out)
            raise
        finally:
            os.close(pictures_in)
            os.close(sound_in)
        self._sound_stream = os.fdopen(sound_out, "rb", buffering=0)
        self._listener = Drain(self._sound_stream, count * SAMPLES_PER_FRAME * 4)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End ffmpeg, whatever it is doing, and free its pipes."""
        self._child.kill()
        self._listener.join(GRACE_S)
        self._sound_stream.close()
        if self._pictures >= 0:
            os.close(self._pictures)
            self._pictures = -1

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame once, uint8 [H, W, 3]; every array is the caller's own."""
        for picture in self.pictures():
            yield picture.rgb.copy() if picture.matrix is None else picture.rgb

    def pictures(self) -> Iterator[Picture]:
        """Each frame once as the decoder left it: three planes where the file has 4:2:0, RGB elsewhere."""
        last: Picture | None = None
        given = 0
        while given < self.count and (frame := self._frame()) is not None:
            last = frame
            given += 1
            yield frame
        self._finish(given)
        while given < self.count:
            assert last is not None
            given += 1
            yield last

    def _frame(self) -> Picture | None:
        """The next frame; ``None`` where there is none."""
        area = self.width * self.height
        frame = np.empty(area * 3 if self._matrix is None else area + area // 2, np.uint8)
        rest = frame.data
        while rest:
            with self._budget.spend():
                ready = self._poll.poll(max(self._budget.left, 0.0) * 1000)
            if not ready:
                raise self._stopped(self._budget.overrun())
            size = os.readv(self._pictures, [rest])
            if size == 0:
                return None
            rest = rest[size:]
        if self._matrix is None:
            return Picture((frame.reshape(self.height, self.width, 3),))
        colours = frame[area:].reshape(2, self.height // 2, self.width // 2)
        return Picture((frame[:area].reshape(self.height, self.width), *colours), self._matrix)

    def _finish(self, given: int) -> None:
        """Wait for the end; raise unless all that the file promised was decoded."""
        with self._budget.spend():
            self._poll.poll(max(self._budget.left, 0.0) * 1000)  # wakes at the end of the pictures
        with self._budget.spend():
            self._listener.join(max(self._budget.left, 0.0))
            status = self._child.wait(self._budget.left)
        if status is None:
            raise self._stopped(self._budget.overrun())
        counts = judge(
            self._child.log, status, self._found, whole=self._whole, place=f"after {given} of {self.count} frames: "
        )
        if self.count - given > (MOST_MISSING if given else 0):
            raise Reject(Reason.TRUNCATED, f"pictures end after {given} of {self.count} frames")
        sound = np.frombuffer(self._listener.data, np.float32)
        length = self.count * SAMPLES_PER_FRAME
        check_sound(sound, length)
        samples = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
        self._sound = np.pad(samples, (0, length - len(samples)))
        # at the end of a span ffmpeg's threads run ahead by a frame or not, as the machine has time: that count would
        # make the ledger's bytes depend on it
        self._source_frames = counts["video"] if self._whole else round(self.count / FPS * self._found.fps)

    def _stopped(self, refusal: Reject) -> Reject:
        self._child.kill()
        return refusal

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
    Time spent waiting on ffmpeg counts against ``limits.decode_deadline_s``; the caller's own work does not.

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
