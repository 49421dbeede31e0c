"""Contact sheets."""

import torch

from systems.common.sheet import GAP, contact_sheet


def test_images_stand_in_their_rows():
    white, black = torch.ones(3, 4, 4), -torch.ones(3, 4, 4)
    sheet = contact_sheet([torch.stack([white, black]), torch.stack([black])])
    assert sheet.shape == (2 * (4 + GAP) + GAP, 2 * (4 + GAP) + GAP, 3)
    assert (sheet[GAP : GAP + 4, GAP : GAP + 4] == 255).all()
    assert (sheet[GAP : GAP + 4, GAP + 6 : GAP + 10] == 0).all()
    assert (sheet[GAP + 6 :, GAP + 6 :] == 128).all()  # the second row is short


def test_values_beyond_the_range_are_clipped():
    assert contact_sheet([torch.full((1, 3, 2, 2), 9.0)]).max() == 255
