"""Views and the way back: composition, inverses, and a paste that lands in place and changes nothing else."""

import cv2
import numpy as np
import pytest

from preprocessing.crop import view
from preprocessing.views import FACE, LARGE, MOUTH, TALL, compose, inverse, move, paste
from preprocessing.warp import warp

VIEWS = {"face": FACE, "large": LARGE, "tall": TALL, "mouth": MOUTH}
SIDE = 384


@pytest.fixture
def crop_from_source() -> np.ndarray:
    """A crop of 384 px out of a picture of 640 x 480, turned by 11 degrees."""
    turn = cv2.getRotationMatrix2D((330, 220), 11, 1.15)
    turn[:, 2] += (SIDE / 2 - 330, 0.42 * SIDE - 220)
    return turn


@pytest.fixture
def source() -> np.ndarray:
    """Soft blobs, uint8 [480, 640, 3]: what warping twice keeps."""
    noise = np.random.default_rng(0).normal(128, 900, (480, 640, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 8), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_the_source_is_the_view_of_the_crop(name, crop_from_source, source):
    chosen = VIEWS[name]
    points = np.random.default_rng(1).uniform(100, 300, (20, 2))
    matrix = chosen.from_source(crop_from_source, SIDE)
    by_crop = move(chosen.from_crop(SIDE), move(crop_from_source, points))
    assert np.allclose(move(matrix, points), by_crop)
    assert np.allclose(move(inverse(matrix), move(matrix, points)), points)
    size = (chosen.height, chosen.width)
    direct = warp(source, matrix, size).astype(int)
    twice = warp(warp(source, crop_from_source, (SIDE, SIDE)), chosen.from_crop(SIDE), size).astype(int)
    assert np.abs(direct - twice)[8:-8, 8:-8].mean() < 1.5


def test_many_frames_compose_at_once(crop_from_source):
    clip = np.stack([crop_from_source + np.array([[0, 0, t], [0, 0, -t]]) for t in range(5)])
    assert np.allclose(LARGE.from_source(clip, SIDE)[3], LARGE.from_source(clip[3], SIDE))
    assert np.allclose(compose(clip, inverse(clip)), np.eye(2, 3), atol=1e-9)


def test_the_mouth_is_a_part_of_the_tall_view():
    points = np.random.default_rng(2).uniform(0, SIDE, (9, 2))
    tall, mouth = move(TALL.from_crop(SIDE), points), move(MOUTH.from_crop(SIDE), points)
    assert np.allclose(tall - mouth, (MOUTH.left, MOUTH.top))
    assert 0 <= MOUTH.left <= TALL.width - MOUTH.width
    assert 0 <= MOUTH.top <= TALL.height - MOUTH.height
    assert np.array_equal(FACE.from_crop(SIDE), view(SIDE, 256))


@pytest.mark.parametrize("name", VIEWS)
def test_a_paste_lands_where_it_came_from_and_changes_nothing_else(name, crop_from_source, source):
    chosen = VIEWS[name]
    matrix = chosen.from_source(crop_from_source, SIDE)
    seen = warp(source, matrix, (chosen.height, chosen.width))
    pasted = paste(source, seen, matrix)
    y, x = np.mgrid[:480, :640]
    at = move(matrix, np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(480, 640, 2)
    outside = ((at < 0) | (at > (chosen.width - 1, chosen.height - 1))).any(axis=-1)
    assert outside.any()
    assert np.array_equal(pasted[outside], source[outside])
    deep = ((at > 12) & (at < (chosen.width - 13, chosen.height - 13))).all(axis=-1)
    assert deep.sum() > 5000
    assert np.abs(pasted.astype(int) - source)[deep].mean() < 2.0
    window = np.where(deep, 1.0, 0.0)
    before, after = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) * window for p in (source, pasted))
    (dx, dy), _ = cv2.phaseCorrelate(before, after)
    assert np.hypot(dx, dy) < 0.1


@pytest.mark.parametrize("name", VIEWS)
def test_a_mark_in_the_view_appears_within_half_a_pixel(name, crop_from_source):
    """A dot drawn in the view, pasted on black: its centre is where the inverse says."""
    chosen = VIEWS[name]
    matrix = chosen.from_source(crop_from_source, SIDE)
    spot = np.array([chosen.width * 0.4, chosen.height * 0.55])
    y, x = np.mgrid[: chosen.height, : chosen.width]
    dot = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 9.0**2))
    pasted = paste(np.zeros((480, 640, 3), np.uint8), np.repeat(dot[..., None], 3, 2).astype(np.uint8), matrix)
    light = pasted[..., 0].astype(float)
    light[light < 8] = 0
    yy, xx = np.mgrid[:480, :640]
    centre = np.array([(xx * light).sum(), (yy * light).sum()]) / light.sum()
    assert np.hypot(*(centre - move(inverse(matrix), spot[None])[0])) < 0.5


def test_a_view_beyond_the_picture_changes_only_what_is_there(source):
    away = np.array([[1.0, 0, -600], [0, 1.0, -400]])
    pasted = paste(source, np.full((256, 256, 3), 255, np.uint8), away)
    assert np.array_equal(pasted[:400], source[:400])
    assert np.array_equal(pasted[400:, :600], source[400:, :600])
    assert (pasted[410:, 610:] == 255).all()
    nowhere = np.array([[1.0, 0, -2000], [0, 1.0, 0]])
    assert np.array_equal(paste(source, np.full((256, 256, 3), 255, np.uint8), nowhere), source)
