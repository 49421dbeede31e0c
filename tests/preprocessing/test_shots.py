"""Cuts are seen, motion and light are not taken for cuts."""

import numpy as np

from preprocessing.shots import Cuts


def _cuts(frames) -> list[int]:
    cuts = Cuts()
    return [number for number, image in enumerate(frames) if cuts.begins(image)]


def test_a_cut_is_seen_where_it_is(moving, noise):
    other = noise(10, 400, 400)
    assert _cuts([*moving(10), *other, *moving(5)]) == [10, 20]


def test_motion_and_light_are_no_cuts(moving):
    frames = list(moving(30))
    assert _cuts(frames[::3]) == []
    assert _cuts([(frame * (1 - t / 40)).astype(np.uint8) for t, frame in enumerate(frames)]) == []


def test_flat_pictures_do_not_cut():
    rng = np.random.default_rng(0)
    assert _cuts([rng.integers(0, 4, (60, 60, 3), np.uint8) for _ in range(5)]) == []
    black, white = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 255, np.uint8)
    assert _cuts([black, black, white, white]) == []  # a flash: a flat picture resembles anything
