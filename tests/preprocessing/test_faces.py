"""The detectors on a real face, and which of several faces is meant."""

import cv2
import numpy as np
import pytest

from contracts.errors import Reject
from contracts.reasons import Reason
from preprocessing.faces import Face, FaceFinder, choose, nearest, rivals


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


def _beside(portrait: np.ndarray, side: int) -> np.ndarray:
    """1920 x 1080: the portrait at 1080 px, and beside it at ``side``."""
    picture = np.full((1080, 1920, 3), 90, np.uint8)
    picture[:, :1080] = cv2.resize(portrait, (1080, 1080), interpolation=cv2.INTER_CUBIC)
    picture[100 : 100 + side, 1200 : 1200 + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    return picture


def test_a_small_copy_is_enough_for_a_wide_face(finder, portrait, monkeypatch):
    close = cv2.resize(portrait[:200, 100:300], (1300, 1300), interpolation=cv2.INTER_CUBIC)
    asked, plain = [], finder.hog
    monkeypatch.setattr(
        finder, "hog", lambda image, upsample, longest: asked.append(longest) or plain(image, upsample, longest)
    )
    face = finder.wide(close)[0]
    assert asked == [640]
    assert face.centre == pytest.approx(plain(close)[0].centre, abs=60)
    assert face.width == pytest.approx(plain(close)[0].width, rel=0.25)


def test_no_copy_hides_a_rival(finder, portrait):
    for look in (finder.hog, finder.wide):
        places = [face.centre for face in rivals(look(_beside(portrait, 620)))]
        for place in ((552, 351), (1513, 302)):
            assert any(place == pytest.approx(seen, abs=40) for seen in places), (look, place, places)
    few = np.full((1080, 1920, 3), 90, np.uint8)
    few[:400, :400] = portrait
    assert len(finder.hog(few)) == 1
    assert finder.wide(few) == []  # in a copy it could have rivals that do not show: the whole picture is searched


def test_hints_give_the_boxes_of_the_whole_picture(finder, portrait, monkeypatch):
    wall = np.full((720, 1280, 3), 90, np.uint8)
    assert finder.hinted(_beside(portrait, 620)) == finder.hog(_beside(portrait, 620))
    monkeypatch.setattr(finder, "hog", None)  # where the other detector sees nothing HOG is not asked at all
    assert finder.hinted(wall) == []


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
