"""Regions: those of preprocessing's views, at every size; masks that end where they should."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from preprocessing.views import MOUTH, TALL
from systems.g4g.regions import face_of, landmarks_of, masks, mouth_of, soft_mask

SIZES = (52, 104, 208, 416)


@pytest.mark.parametrize("size", SIZES)
def test_they_are_the_views_that_preprocessing_knows(size: int) -> None:
    """A pixel of a crop of 416 px goes where ``TALL`` and ``MOUTH`` send it; smaller crops in proportion."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    crop = torch.stack([x, y]).double()
    unit = 416 / size
    for region, view in ((face_of(crop), TALL), (mouth_of(face_of(crop)), MOUTH)):
        assert region.shape[-2:] == (view.height * size // 416, view.width * size // 416)
        first = (region[:, 0, 0].numpy() + 0.5) * unit - 0.5  # of the 416 px crop
        corner = view.from_crop(416) @ np.append(first, 1.0)
        np.testing.assert_allclose(corner, [(unit - 1) / 2] * 2, atol=1e-9)


def test_a_size_without_whole_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 52"):
        face_of(torch.zeros(3, 100, 100))


def test_landmarks_follow_the_face() -> None:
    crop = torch.zeros(1, 104, 104)
    crop[0, 70, 40] = 1.0
    at = landmarks_of(torch.tensor([(40.5) / 104, 70.5 / 104]))
    face = face_of(crop)
    assert float(face[0, int(at[1] * 104), int(at[0] * 80)]) == 1.0


@pytest.mark.parametrize("size", SIZES)
def test_the_soft_mask_is_one_within_and_nothing_without(size: int) -> None:
    mask = soft_mask(size)
    square = mouth_of(mask)
    eyes = (200 - 152) * size // 416  # rows of the square down to below the lower lids
    assert mask.count_nonzero() == square[:, eyes:].numel(), "something outside of the square would change"
    assert not square[:, :eyes].any(), "eyes would be redrawn"
    shown = square[:, eyes:]
    assert float(shown[0, shown.shape[1] // 2, shown.shape[2] // 2]) == 1.0
    assert (shown > 0).all()
    torch.testing.assert_close(shown, shown.flip(1))
    row = shown[0, shown.shape[1] // 2]
    assert (row[: len(row) // 2].diff() >= 0).all()


def test_masks_lie_in_each_other_and_in_the_square() -> None:
    made = masks(104)
    for larger, smaller in pairwise(made):
        assert (smaller <= larger).all()
        assert smaller.sum() < larger.sum()
    square = torch.zeros_like(made[0])
    mouth_of(square).fill_(1.0)
    assert torch.equal(made[0], square)
