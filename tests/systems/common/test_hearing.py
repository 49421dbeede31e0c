"""Windows over the ends of a speech hear silence there, and the speech at its place."""

import numpy as np
import pytest
import torch

from systems.common.hearing import heard

SPEECH = np.arange(1, 1701, dtype=np.float32)  # two frames and 420 samples


@pytest.mark.parametrize(("first", "frames"), [(-2, 6), (0, 2), (1, 1), (2, 3), (-5, 3), (7, 2)])
def test_a_window_is_that_part_of_the_speech_between_silence(first: int, frames: int) -> None:
    around = np.concatenate([np.zeros(6400, np.float32), SPEECH, np.zeros(12800, np.float32)])
    at = 6400 + 640 * first
    assert torch.equal(heard(SPEECH, first, frames), torch.from_numpy(around[at : at + 640 * frames]))
