"""Frames flow to the encoder through a bounded queue; a failing encoder neither blocks nor hides its error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import preprocessing.media
from serving.encoding import Abandoned, Encoding

FRAME = np.zeros((1, 4, 4, 3), np.uint8)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Iterable[np.ndarray]], None]], None]:
    """Sets what consumes the frames in place of ffmpeg."""

    def use(consume: Callable[[Iterable[np.ndarray]], None]) -> None:
        monkeypatch.setattr(preprocessing.media, "encode_video", lambda path, frames, audio, comment: consume(frames))

    return use


def test_the_queue_is_bounded(encoder: Callable) -> None:
    taken = 0
    go = threading.Event()

    def slow(frames: Iterable[np.ndarray]) -> None:
        nonlocal taken
        go.wait(20)
        for _ in frames:
            taken += 1

    encoder(slow)
    with Encoding(Path("x.mp4"), Path("x.wav"), "", depth=5) as encoding:
        feeder = threading.Thread(target=lambda: [encoding.put(FRAME) for _ in range(200)])
        feeder.start()
        time.sleep(0.5)
        assert encoding.count <= 6  # five wait in the queue, one is being handed over
        go.set()
        feeder.join(20)
        encoding.finish()
    assert (encoding.count, taken) == (200, 200)


def test_a_failing_encoder_does_not_stop_the_others(encoder: Callable) -> None:
    def fail(frames: Iterable[np.ndarray]) -> None:
        for number, _ in enumerate(frames):
            if number == 3:
                raise OSError(28, "No space left on device")

    encoder(fail)
    with Encoding(Path("x.mp4"), Path("x.wav"), "", depth=2) as encoding:
        for _ in range(50):
            encoding.put(FRAME)
        assert encoding.count == 50
        with pytest.raises(OSError, match="No space"):
            encoding.finish()


def test_leaving_without_finish_stops_the_encoder(encoder: Callable) -> None:
    ended = threading.Event()

    def consume(frames: Iterable[np.ndarray]) -> None:
        try:
            for _ in frames:
                pass
        except Abandoned:
            ended.set()
            raise

    encoder(consume)
    with Encoding(Path("x.mp4"), Path("x.wav"), "") as encoding:
        encoding.put(FRAME)
    assert ended.is_set()
    assert isinstance(encoding.error, Abandoned)
