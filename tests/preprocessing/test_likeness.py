"""Digests: a copy is found through compression, another recording never passes for one."""

import cv2
import numpy as np
import pytest

from preprocessing.likeness import SAME_PICTURE_ALONE, Likeness, copies, distance, sound_digest


def _speech(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Int16 noise in bands that come and go, four times a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16000 * seconds)) / 16000
    voices = [
        np.sin(2 * np.pi * hertz * t)
        * np.interp(t, np.arange(0, seconds + 1, 0.12), rng.random(len(np.arange(0, seconds + 1, 0.12))) ** 3)
        for hertz in (150, 300, 600, 900, 1400, 2100, 3000, 4200)
    ]
    return (3000 * np.sum(voices, axis=0) + rng.normal(0, 20, len(t))).astype(np.int16)


def _digest(image: np.ndarray) -> str:
    likeness = Likeness()
    likeness.see(image)
    assert likeness.value is not None
    return likeness.value


@pytest.fixture
def grey(portrait) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), (256, 256), interpolation=cv2.INTER_AREA)


def test_a_compressed_picture_has_nearly_the_same_digest(grey):
    coarse = cv2.resize(cv2.resize(grey, (96, 96), interpolation=cv2.INTER_AREA), (256, 256))
    _, data = cv2.imencode(".jpg", coarse, [cv2.IMWRITE_JPEG_QUALITY, 30])
    copy = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert distance(_digest(grey), _digest(copy)) <= SAME_PICTURE_ALONE
    assert distance(_digest(grey), _digest(np.clip(0.7 * copy + 30, 0, 255).astype(np.uint8))) <= SAME_PICTURE_ALONE
    assert distance(_digest(grey), _digest(np.ascontiguousarray(grey[:, ::-1]))) > 2 * SAME_PICTURE_ALONE
    assert Likeness().value is None


def test_quieter_noisier_sound_has_nearly_the_same_digest():
    sound = _speech(0)
    copy = 0.3 * sound + np.random.default_rng(9).normal(0, 3, len(sound))
    assert distance(sound_digest(sound), sound_digest(copy.astype(np.int16))) < 40
    others = [distance(sound_digest(sound), sound_digest(_speech(seed))) for seed in range(1, 21)]
    assert min(others) > 85


def test_silence_and_scraps_have_no_digest():
    assert sound_digest(np.zeros(32000, np.int16)) is None
    assert sound_digest(_speech(0)[:9600]) is None


def test_copies_name_the_first(grey):
    other = np.ascontiguousarray(grey[:, ::-1])
    one, two = sound_digest(_speech(0)), sound_digest(_speech(1))

    def line(key: str, picture: str | None, sound: str | None, kind: str = "clip") -> dict:
        return {"key": key, "kind": kind, "picture_digest": picture, "sound_digest": sound}

    lines = [
        line("a", _digest(grey), one),
        line("dubbed", _digest(grey), two),
        line("b", _digest(grey), one),
        line("other", _digest(other), two),
        line("still", _digest(grey), None, "face"),
        line("still-again", _digest(grey), None, "face"),
        line("speech", None, one, "speech"),
        line("speech-again", None, one, "speech"),
        line("nothing", None, None),
        line("nothing-too", None, None),
    ]
    assert copies(lines) == {"b": "a", "still-again": "still", "speech-again": "speech"}
