"""The detectors on a real face, and which of several faces is meant."""

import cv2
import numpy as np
import pytest

from contracts.errors import Reject
from contracts.reasons import Reason
from preprocessing.faces import Face, FaceFinder, choose, nearest


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


def _near(face: Face) -> bool:
    return abs(face.centre[0] - 200) < 25 and abs(face.centre[1] - 110) < 30 and 70 < face.width < 170


def test_hog_sees_the_portrait(finder, portrait):
    faces = finder.first(portrait)
    assert len(faces) == 1
    assert _near(faces[0])
    assert faces[0].detector == "hog1"


@pytest.mark.parametrize("look", ["clahe", "cnn", "blaze"])
def test_each_fallback_sees_it_too(finder, portrait, look):
    faces = getattr(finder, look)(portrait)
    assert _near(faces[0]), faces
    assert faces[0].detector != ""


def test_boxes_of_large_pictures_are_in_source_pixels(finder, portrait):
    large = cv2.resize(portrait, (2400, 2400), interpolation=cv2.INTER_CUBIC)
    face = finder.first(large)[0]
    assert face.centre == pytest.approx((1200, 660), abs=150)


def test_no_detector_sees_a_face_in_noise(finder):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    assert finder.first(noise) == []
    assert finder.fallback(noise) == []


def test_choice():
    wide, narrow, tiny = Face(0, 0, 100, 100), Face(300, 0, 380, 80), Face(500, 0, 530, 30)
    assert choose([wide, tiny], None) is wide
    assert choose([wide, narrow, tiny], (510, 20)) is tiny
    assert nearest([wide, narrow], 260, 40) is narrow
    with pytest.raises(Reject) as refused:
        choose([wide, narrow], None)
    assert refused.value.reason is Reason.MANY_FACES
    with pytest.raises(Reject) as refused:
        choose([], None)
    assert refused.value.reason is Reason.NO_FACE
