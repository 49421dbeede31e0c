"""Pockets: a crop cut from one equals a crop cut from the whole frame, in memory and on disk."""

import errno
import io

import numpy as np
import pytest

from contracts.errors import Transient
from preprocessing import pockets
from preprocessing.crop import align, crop_side
from preprocessing.faces import FaceFinder
from preprocessing.landmarks import FaceMesh, Follower
from preprocessing.pockets import Pockets, Spool
from preprocessing.warp import warp


@pytest.fixture(scope="module")
def followed(moving):
    frames = list(moving(8))
    finder = FaceFinder()
    face = finder.first(frames[0])[0]
    follower = Follower(FaceMesh(), finder, face)
    return frames, face, np.stack([follower.follow(frame) for frame in frames])


@pytest.mark.parametrize("in_memory", [1 << 30, 1000])
def test_crops_are_those_of_the_whole_frames(followed, monkeypatch, in_memory):
    monkeypatch.setattr(pockets, "IN_MEMORY", in_memory)
    frames, face, points = followed
    spool = Spool()
    kept = Pockets(face, spool)
    for image, place in zip(frames, points):
        kept.add(image, place)
    side = crop_side(points)
    matrices = align(points, side)
    crops = list(kept.crops(matrices, side))
    assert len(crops) == len(kept) == 8
    for image, matrix, crop in zip(frames, matrices, crops):
        assert np.abs(warp(image, matrix, (side, side)).astype(int) - crop).mean() < 1.0
    spool.close()


def test_a_lost_frame_keeps_the_last_place(followed):
    frames, face, points = followed
    spool = Spool()
    kept = Pockets(face, spool)
    kept.add(frames[0], None)  # nothing known but the detector's box
    kept.add(frames[1], points[1])
    kept.add(frames[2], None)
    side = crop_side(points)
    crops = list(kept.crops(align(points[:3], side), side))
    for image, matrix, crop in zip(frames, align(points[:3], side), crops):
        middle = np.s_[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4]
        assert np.abs(warp(image, matrix, (side, side)).astype(int) - crop)[middle].mean() < 1.5
    spool.close()


def test_a_face_at_the_border_has_a_pocket(followed):
    frames, face, points = followed
    spool = Spool()
    kept = Pockets(face, spool)
    kept.add(frames[0], points[0] - (400, 300, 0))  # wholly outside
    side = crop_side(points)
    (crop,) = kept.crops(align(points[:1] - (400, 300, 0), side), side)
    assert crop.shape == (side, side, 3)
    spool.close()


def test_a_large_face_is_kept_no_finer_than_its_crop(followed):
    _, face, points = followed
    spool = Spool()
    kept = Pockets(face, spool)
    kept.add(np.zeros((4000, 4000, 3), np.uint8), points[0] * 8)
    assert spool.size < 3 * 900 * 900
    spool.close()


def test_a_full_disk_is_transient(followed, monkeypatch):
    frames, face, points = followed
    spool = Spool()

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pockets, "IN_MEMORY", 0)
    monkeypatch.setattr(spool, "_file", Full())
    with pytest.raises(Transient, match="NO_SPACE"):
        Pockets(face, spool).add(frames[0], points[0])
