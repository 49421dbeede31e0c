"""The decode by ffmpeg, through pipes: any file that is read here, and the verdict on those that are not sound."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.sample import SAMPLES_PER_FRAME
from preprocessing.media.graph import clip_argv
from preprocessing.media.probe import Probe
from preprocessing.media.process import GRACE_S, Budget, Child, Drain
from preprocessing.media.verdict import Decoded, judge
from preprocessing.picture import Picture, in_memory, to_rgb

PIPE_BYTES = 1 << 20


class Piped:
    """A running ffmpeg that gives ``count`` pictures from ``start_s``, and sound."""

    def __init__(self, found: Probe, limits: Limits, start_s: float, count: int, whole: bool, budget: Budget) -> None:
        self._found, self._whole, self._budget = found, whole, budget
        self._count, self.given = count, 0
        self.width, self.height = found.width, found.height
        self._matrix = to_rgb(found.space, found.full) if found.planar else None
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

    @property
    def pid(self) -> int:
        """Of ffmpeg, and of the group of processes that it leads."""
        return self._child.process.pid

    def close(self) -> None:
        """End ffmpeg, whatever it is doing, and free its pipes."""
        self._child.kill()
        self._listener.join(GRACE_S)
        self._sound_stream.close()
        if self._pictures >= 0:
            os.close(self._pictures)
            self._pictures = -1

    def next(self) -> Picture | None:
        """The next picture; ``None`` where there is none. Raises ``Reject(TIMEOUT)``."""
        area = self.width * self.height
        frame = np.empty(area + area // 2 if self._found.halved else area * 3, np.uint8)
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
        self.given += 1
        if self._matrix is None:
            return Picture((frame.reshape(self.height, self.width, 3),))
        return in_memory(frame, self.height, self.width, self._matrix)

    def finish(self) -> Decoded:
        """Wait for the end; what was decoded. Raises ``Reject`` as ``judge`` does, and TIMEOUT."""
        with self._budget.spend():
            self._poll.poll(max(self._budget.left, 0.0) * 1000)  # wakes at the end of the pictures
        with self._budget.spend():
            self._listener.join(max(self._budget.left, 0.0))
        with self._budget.spend():
            status = self._child.wait(self._budget.left)
        if status is None:
            raise self._stopped(self._budget.overrun())
        place = f"after {self.given} of {self._count} frames: "
        counts = judge(self._child.log, status, self._found, whole=self._whole, place=place)
        return Decoded(np.frombuffer(self._listener.data, np.float32), counts["video"])

    def _stopped(self, refusal: Reject) -> Reject:
        self._child.kill()
        return refusal
