"""One video being encoded by its own thread, fed through a bounded queue: memory is flat in its length."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

DEPTH = 32  # frames; 25 MB at 512 pixels


class Abandoned(Exception):
    """The frames will not come: the encoder must stop and leave nothing."""


class Encoding:
    """Frames of one video on their way into an mp4 at ``path`` with the sound of the file ``audio``.

    Use as a context manager: leaving it before :meth:`finish` stops the encoder.
    """

    def __init__(self, path: Path, audio: Path, comment: str, depth: int = DEPTH) -> None:
        self.path, self.audio, self.comment = path, audio, comment
        self.count = 0  # frames taken
        self._queue: queue.Queue[np.ndarray | Abandoned | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)

    def __enter__(self) -> Encoding:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._give(Abandoned())
        self._thread.join()

    @property
    def error(self) -> BaseException | None:
        """What the encoder failed of, once it has."""
        return self._error

    def put(self, frames: np.ndarray) -> None:
        """Hand over successive frames, uint8 [n, H, W, 3]; waits while the encoder is behind.

        Once the encoder has failed, frames are counted and dropped: other videos of the batch go on.
        """
        for frame in frames:
            self.count += 1
            self._give(frame)

    def end(self) -> None:
        """No frame follows: the encoder completes the file meanwhile."""
        self._give(None)

    def finish(self) -> None:
        """Wait until the file is complete. Raises what the encoder failed of."""
        self.end()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _give(self, item: np.ndarray | Abandoned | None) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(item, timeout=0.05)
                return
            except queue.Full:
                continue

    def _frames(self) -> Iterator[np.ndarray]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Abandoned):
                raise item
            yield item

    def _run(self) -> None:
        from preprocessing.media import encode_video

        try:
            encode_video(self.path, self._frames(), self.audio, comment=self.comment)
        except BaseException as error:  # carried to the thread that waits in finish()
            self._error = error
