"""A source video on its way through a pipeline: faces out of its frames, dubbed faces back into them, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from preprocessing.footage import Footage, Gathered
    from systems.base import Chunk, Faces

Emit = Callable[[np.ndarray], None]  # takes successive finished frames, uint8 [n, H, W, 3]


class Dubbing:
    """``total`` frames of ``footage`` at its size: those with a face wait for the pipeline, others pass as they are.

    Finished frames go to ``emit``, which must be set before the first face is asked for. Memory holds what the
    pipeline has asked for and not yet answered: eight frames, where it answers each ``Faces`` before the next.
    """

    def __init__(self, footage: Footage, total: int) -> None:
        self.footage, self.total = footage, total
        self.emit: Emit | None = None
        self.done = 0  # frames emitted
        self._waiting: deque[tuple[int, Gathered]] = deque()  # first frame's number, and the frames
        self._parts = footage.gather(total)
        self._read = 0

    def faces(self) -> Iterator[Faces]:
        """What the pipeline is asked to dub: ``Request.video``."""
        from systems.base import Faces

        while (part := self._next()) is not None:
            if part.crops is None:
                continue
            shot = part.shot
            assert shot.references is not None
            assert shot.landmarks is not None
            yield Faces(self._read - len(part.frames), part.crops, shot.references, shot.landmarks, part.points)

    def put(self, chunk: Chunk) -> None:
        """Paste dubbed faces into the frames they are of. Raises ``RuntimeError`` for others than were asked for."""
        from preprocessing.views import paste

        first, part = self._waiting[0] if self._waiting else (-1, None)
        if part is None or part.matrices is None or chunk.first != first or len(chunk.frames) != len(part.frames):
            raise RuntimeError(f"faces from frame {chunk.first} on came out of turn")
        self._waiting.popleft()
        self._give([paste(*each, chunk.mask) for each in zip(part.frames, chunk.frames, part.matrices, strict=True)])
        self._pass_on()

    def finish(self) -> None:
        """Let the rest pass. Raises ``RuntimeError`` where a face was asked for and never came back."""
        while self._next() is not None:
            pass
        if self._waiting:
            raise RuntimeError(f"frames from {self._waiting[0][0]} on were never dubbed")

    def _next(self) -> Gathered | None:
        """The next frames; those without a face are passed on as soon as nothing before them waits."""
        part = next(self._parts, None)
        if part is None:
            return None
        self._waiting.append((self._read, part))
        self._read += len(part.frames)
        self._pass_on()
        return part

    def _pass_on(self) -> None:
        while self._waiting and self._waiting[0][1].crops is None:
            self._give(self._waiting.popleft()[1].frames)

    def _give(self, frames: list[np.ndarray]) -> None:
        assert self.emit is not None
        self.done += len(frames)
        self.emit(np.stack(frames))
