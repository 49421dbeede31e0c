"""Alignment: eyes in place, lips without influence, views that are affines, warps without aliasing."""

import cv2
import numpy as np
import pytest

from contracts import face
from contracts.sample import EYES_DISTANCE, EYES_MIDPOINT
from preprocessing.crop import align, aligned, aligned_portrait, apply, crop_side, encode_jpeg, view
from preprocessing.warp import from_part, reach, warp


@pytest.fixture
def head() -> np.ndarray:
    """Points of a made-up head seen from the front, [478, 3]: eyes level, 60 px apart."""
    points = np.random.default_rng(0).normal((200, 240, 0), 10, size=(face.POINTS, 3))
    for (outer, inner), x in (
        ((face.RIGHT_EYE_OUTER, face.RIGHT_EYE_INNER), 170.0),
        ((face.LEFT_EYE_OUTER, face.LEFT_EYE_INNER), 230.0),
    ):
        points[outer], points[inner] = (x - 10, 200, 0), (x + 10, 200, 0)
    return points


def _turned(points: np.ndarray, degrees: float, about=(200.0, 200.0)) -> np.ndarray:
    turn = cv2.getRotationMatrix2D(about, degrees, 1.0)
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ turn[:, :2].T + turn[:, 2]
    return moved


def test_eyes_end_level_in_place_and_at_their_distance(head):
    clip = np.stack([np.add(_turned(head, a), (x, 0, 0)) for a, x in zip(np.linspace(-20, 20, 60), range(60))])
    side = 256
    landmarks = apply(align(clip, side), clip, side)
    eyes = face.eye_centres(landmarks)[..., :2]
    assert aligned(landmarks).all()
    middle = slice(10, -10)  # at the ends of a clip smoothing leans inwards
    assert np.allclose(eyes.mean(axis=1)[middle], EYES_MIDPOINT, atol=0.002)
    assert np.allclose(np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=1), EYES_DISTANCE, atol=1e-3)


def test_lips_and_jaw_move_no_crop(head):
    clip = np.stack([head] * 10)
    opened = clip.copy()
    opened[:, [*face.LIPS, *face.LOWER_OVAL]] += (0, 25, 5)
    assert np.array_equal(align(clip, 256), align(opened, 256))
    assert crop_side(clip) == crop_side(opened)


def test_a_turned_head_keeps_its_scale(head):
    yaw = np.radians(60)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    profile = (head - (200, 200, 0)) @ turn.T + (200, 200, 0)
    front, side = align(head[None], 256)[0], align(profile[None], 256)[0]
    assert np.linalg.norm(front[:, 0]) == pytest.approx(np.linalg.norm(side[:, 0]))


def test_smoothing_calms_jitter_and_keeps_motion(head):
    rng = np.random.default_rng(1)
    clip = np.stack([np.add(head, (t, 0, 0)) for t in range(50)])
    shaken = clip + rng.normal(0, 1.0, size=(50, 1, 3)) * (1, 1, 0)
    steady = align(clip, 256)[10:-10, :, 2]
    calm = align(shaken, 256)[10:-10, :, 2]
    rough = np.stack([align(points[None], 256)[0] for points in shaken])[10:-10, :, 2]
    assert np.diff(calm - steady, axis=0).std() < 0.25 * np.diff(rough - steady, axis=0).std()
    assert np.abs(calm - steady).max() < 0.02 * 256


@pytest.mark.parametrize(("distance", "side"), [(5, 128), (28, 128), (44, 192), (60, 256), (100, 448), (300, 512)])
def test_side_follows_the_face(head, distance, side):
    assert crop_side((head * distance / 60)[None]) == side


@pytest.mark.parametrize("size", [256, 512, (416, 320)])
def test_views_show_the_middle_of_the_crop(size):
    side = 384
    matrix = view(side, size)
    height, width = (size, size) if isinstance(size, int) else size
    centre = matrix @ ((side - 1) / 2, (side - 1) / 2, 1)
    assert np.allclose(centre, ((width - 1) / 2, (height - 1) / 2))
    top = matrix @ (0, -0.5, 1)
    assert top[1] == pytest.approx(-0.5)
    assert matrix[0, 0] == matrix[1, 1] == height / side


def test_warp_maps_pixel_centres():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10, 20] = 255
    moved = warp(image, np.array([[1.0, 0, 3], [0, 1, -4]]), (40, 40))
    assert np.argwhere(moved[..., 0] > 200).tolist() == [[6, 23]]


@pytest.mark.parametrize("scale", [0.1, 0.24, 0.5, 0.74, 1.0, 2.0])
def test_warp_keeps_place_at_every_scale(scale):
    y, x = np.mgrid[:240, :240]
    blob = 255 * np.exp(-((x - 130) ** 2 + (y - 90) ** 2) / (2 * 25.0**2))
    image = np.repeat(blob[..., None], 3, 2).astype(np.uint8)
    matrix = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
    small = warp(image, matrix, (round(240 * scale), round(240 * scale)))[..., 0].astype(float)
    small[small < 5] = 0
    yy, xx = np.mgrid[: small.shape[0], : small.shape[1]]
    centre = np.array([(xx * small).sum(), (yy * small).sum()]) / small.sum()
    assert np.allclose(centre, matrix @ (130, 90, 1), atol=0.15)


def test_shrinking_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp(stripes, np.array([[0.13, 0, 0], [0, 0.13, 0]]), (52, 52))
    assert small[5:-5, 5:-5].std() < 6  # a sampled stripe pattern would have 127


def test_a_part_gives_the_same_pixels():
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    matrix = np.array([[0.9, 0.1, -20], [-0.1, 0.9, 4]])
    low, high = reach(matrix, (60, 60))
    x0, y0 = np.maximum(np.floor(low).astype(int) - 4, 0)
    part = image[y0 : int(high[1]) + 5, x0 : int(high[0]) + 5]
    whole = warp(image, matrix, (60, 60))
    cut = warp(part, from_part(matrix, x0, y0), (60, 60))
    assert np.abs(whole.astype(int) - cut.astype(int))[2:-2, 2:-2].max() <= 2


def test_jpeg_is_deterministic_and_close():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), (0, 0), 3)
    data = encode_jpeg(image)
    assert data == encode_jpeg(image)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - image).mean() < 2


def test_a_portrait_is_aligned_like_a_crop(clip_folder):
    from preprocessing.landmarks import FaceMesh

    image = aligned_portrait(clip_folder / "face.png", 256)
    assert image.shape == (256, 256, 3)
    points = FaceMesh().find(image)
    assert points is not None
    assert aligned(points[None] / 256).all()
