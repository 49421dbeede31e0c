"""Pictures in 4:2:0: exact colours, the same places as in RGB, and warps near the ideal."""

import cv2
import numpy as np
import pytest

from preprocessing.picture import SHARES, Picture, to_rgb
from preprocessing.warp import warp


@pytest.fixture
def planar(portrait):
    """The portrait as Y, Cb, Cr of BT.709, and as RGB."""
    small = cv2.resize(cv2.GaussianBlur(portrait, (0, 0), 2), (320, 240))
    matrix = to_rgb(1)
    turn, shift = np.linalg.inv(matrix[:, :3]), matrix[:, 3]
    yuv = np.rint((small - shift) @ turn.T).astype(np.uint8)
    colours = [cv2.resize(yuv[..., k], (160, 120), interpolation=cv2.INTER_AREA) for k in (1, 2)]
    return Picture((yuv[..., 0].copy(), *colours), matrix), small


@pytest.mark.parametrize("space", sorted(SHARES))
def test_black_white_and_red_are_what_the_standards_say(space):
    red, blue = SHARES[space]
    for y, grey in ((16, 0), (235, 255)):
        assert to_rgb(space) @ [y, 128, 128, 1] == pytest.approx([grey] * 3, abs=1e-9)
    pure = [16 + 219 * red, 128 - 112 * red / (1 - blue), 240, 1]
    assert to_rgb(space) @ pure == pytest.approx([255, 0, 0], abs=1e-9)


@pytest.mark.parametrize("space", sorted(SHARES))
def test_the_full_range_reaches_from_0_to_255(space):
    red, blue = SHARES[space]
    for y in (0, 255):
        assert to_rgb(space, full=True) @ [y, 128, 128, 1] == pytest.approx([y] * 3, abs=1e-9)
    pure = [255 * red, 128 - 127.5 * red / (1 - blue), 255.5, 1]
    assert to_rgb(space, full=True) @ pure == pytest.approx([255, 0, 0], abs=1e-9)


def test_around_a_picture_of_full_range_it_is_black_too():
    planes = np.full((8, 8), 200, np.uint8), *np.full((2, 4, 4), 128, np.uint8)
    for full in (False, True):
        wide = Picture(planes, to_rgb(2, full)).padded(4, 4, 4, 4).rgb
        assert not wide[:3].any()
        assert wide[6, 6].min() > 190


def test_rgb_is_given_back(planar):
    picture, rgb = planar
    assert np.abs(picture.rgb.astype(int) - rgb).mean() < 1.5
    assert (picture.width, picture.height) == (320, 240)
    assert picture.nbytes == 320 * 240 * 3 // 2


def test_a_part_and_a_few_pixels_lie_where_they_did(planar):
    picture, rgb = planar
    assert np.abs(picture.part(40, 60, 200, 180).rgb.astype(int) - rgb[60:180, 40:200]).mean() < 1.5
    assert np.abs(picture.thin(6).astype(int) - rgb[::6, ::6]).mean() < 3
    ideal = cv2.resize(rgb, (128, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(picture.resized(128, 96).rgb.astype(int) - ideal).mean() < 2


def test_what_is_put_around_is_black(planar):
    picture, rgb = planar
    wide = picture.padded(2, 4, 6, 8).rgb
    assert wide.shape == (246, 334, 3)
    for rim in (wide[0], wide[:, :4], wide[-2:]):
        assert not rim.any()
    assert np.abs(wide[4:240, 8:324].astype(int) - rgb[2:238, 2:318]).mean() < 1.5


def test_a_warp_of_planes_is_that_of_rgb(planar):
    picture, rgb = planar
    matrix = cv2.getRotationMatrix2D((160, 120), 9, 0.9)
    matrix[:, 2] -= (32, 0)
    moved = picture.warped(matrix, 192).astype(int)
    assert np.abs(moved - warp(rgb, matrix, (192, 192)))[8:-8, 8:-8].mean() < 2


def test_a_turn_there_and_back_changes_little(portrait):
    image = cv2.GaussianBlur(portrait, (0, 0), 1)
    there = cv2.getRotationMatrix2D((200, 200), 7.3, 1.0)
    back = cv2.invertAffineTransform(there)
    size = image.shape[:2]
    error = (warp(warp(image, there, size), back, size).astype(float) - image)[100:300, 100:300]
    keys = [cv2.INTER_CUBIC, cv2.INTER_LINEAR]
    others = [
        (cv2.warpAffine(cv2.warpAffine(image, there, size, flags=k), back, size, flags=k) - image.astype(float))
        for k in keys
    ]
    assert (error**2).mean() <= 1.001 * min((other[100:300, 100:300] ** 2).mean() for other in others)
