"""Frames through a pipeline and back: order, bits outside of the mask, what waits and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from preprocessing.footage import Gathered, Shot
from serving.dubbing import Dubbing
from systems.base import Chunk

SIDE, H, W = 24, 60, 80
MATRIX = np.array([[0.8, 0.1, -10.0], [-0.1, 0.8, -4.0]])


class Made:
    """Footage of noise: three frames with a face, two without, four with."""

    def __init__(self, parts: tuple[tuple[int, bool], ...] = ((3, True), (2, False), (4, True))) -> None:
        rng = np.random.default_rng(0)
        self.frames = [rng.integers(0, 256, (H, W, 3), np.uint8) for _ in range(sum(n for n, _ in parts))]
        self.parts = parts

    def gather(self, total: int) -> Iterator[Gathered]:
        assert total == len(self.frames)
        references = np.zeros((2, SIDE, SIDE, 3), np.uint8)
        at = 0
        for count, face in self.parts:
            shot = Shot(at, np.full(count, face), None, references, np.zeros((2, 478, 2), np.float32))
            frames = self.frames[at : at + count]
            crops = np.zeros((count, SIDE, SIDE, 3), np.uint8) if face else None
            yield Gathered(shot, frames, crops, np.stack([MATRIX] * count) if face else None)
            at += count


def dub(footage: Made, mask: np.ndarray | None) -> tuple[np.ndarray, list[int]]:
    dubbing, out, sizes = Dubbing(footage, len(footage.frames)), [], []  # type: ignore[arg-type]
    dubbing.emit = lambda frames: (out.append(frames), sizes.append(len(frames)))[0]  # type: ignore[func-returns-value]
    for faces in dubbing.faces():
        dubbing.put(Chunk(0, faces.first, 255 - faces.crops, mask))
    dubbing.finish()
    return np.concatenate(out), sizes


def test_frames_come_out_in_order_and_change_under_the_mask_alone() -> None:
    footage, mask = Made(), np.zeros((SIDE, SIDE), np.float32)
    mask[8:16, 8:16] = 1.0
    result, _ = dub(footage, mask)
    assert result.shape == (9, H, W, 3)
    y, x = np.mgrid[:H, :W]
    at = np.stack([x, y, np.ones_like(x)], -1) @ MATRIX.T  # places in the crop
    outside = ((at < 6) | (at > 18)).any(-1)
    inside = ((at > 10) & (at < 14)).all(-1)
    for number, (before, after) in enumerate(zip(footage.frames, result, strict=True)):
        assert np.array_equal(before[outside], after[outside]), "a pixel outside of the mask changed"
        if number in (3, 4):
            assert np.array_equal(before, after), "a frame without a face changed"
        else:
            assert (after[inside] > 250).all()


def test_nothing_changes_under_an_empty_mask() -> None:
    footage = Made()
    result, _ = dub(footage, np.zeros((SIDE, SIDE), np.float32))
    assert np.array_equal(result, np.stack(footage.frames))


def test_frames_without_a_face_do_not_wait() -> None:
    """However long nobody is seen, memory holds one part of it."""
    _, sizes = dub(Made(((2, False), (2, False), (1, True), (2, False), (2, False))), None)
    assert sizes == [2, 2, 1, 2, 2]


@pytest.mark.parametrize(("first", "count"), [(1, 3), (0, 2)])
def test_faces_that_were_not_asked_for_are_refused(first: int, count: int) -> None:
    dubbing = Dubbing(Made(), 9)  # type: ignore[arg-type]
    dubbing.emit = lambda frames: None
    next(dubbing.faces())
    with pytest.raises(RuntimeError, match="out of turn"):
        dubbing.put(Chunk(0, first, np.zeros((count, SIDE, SIDE, 3), np.uint8)))


def test_a_face_that_never_comes_back_is_told() -> None:
    dubbing = Dubbing(Made(), 9)  # type: ignore[arg-type]
    dubbing.emit = lambda frames: None
    next(dubbing.faces())
    with pytest.raises(RuntimeError, match="frames from 0 on"):
        dubbing.finish()
