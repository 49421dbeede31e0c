"""The two analyses of the face prior, on codes whose answer is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.errors import Misuse
from systems.see_the_speaker.prior_study import DRAWS, codes, plot, study


def made(women=64, men=80, apart=2.0, noise=1.0):
    rng = np.random.default_rng(0)
    genders = ["f"] * women + ["m"] * men
    means = np.where(np.array(genders) == "f", apart / 2, -apart / 2)[:, None]
    return means + noise * rng.standard_normal((women + men, 50)), genders, [f"k{i}" for i in range(women + men)]


def test_a_prior_settles_as_one_over_the_root_of_n():
    found = study(*made(), "codes")
    assert found.sizes == (2, 4, 8, 16, 32, 64, 128)
    assert found.steps.shape == (DRAWS, 6)
    means = found.steps.mean(0)
    assert (np.diff(means) < 0).all()
    # the mean of 2n less that of n of unit noise: standard deviation sqrt(1/2n), mean absolute value sqrt(2/pi) of it
    expected = np.sqrt(2 / np.pi / np.array(found.sizes[1:]))
    np.testing.assert_allclose(means[:4], expected[:4], rtol=0.15)


def test_drift_grows_with_the_distance_from_balance():
    found = study(*made(apart=2.0, noise=0.0), "codes")
    share = np.round(64 * np.arange(11) / 10) / 64
    np.testing.assert_allclose(found.drift, np.tile(2 * np.abs(share - 0.5), (DRAWS, 1)), atol=1e-9)


def test_only_as_many_pairs_as_there_are():
    found = study(*made(women=5, men=80), "codes")
    assert (found.faces, found.n_drift, found.sizes) == (10, 5, (2, 4, 8))
    with pytest.raises(Misuse, match="two of each"):
        study(*made(women=1), "codes")


def test_the_picture_is_drawn(tmp_path):
    plot(study(*made(), "codes"), tmp_path / "prior.png")
    with Image.open(tmp_path / "prior.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 10


def test_codes_are_the_encoders_or_the_pixels():
    faces = torch.arange(2 * 3 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 3, 4, 4)  # two frames of each are unused
    batches = [{"frames": faces}, {"frames": faces[:1]}]
    assert codes(batches, None).shape == (3, 48)
    np.testing.assert_array_equal(codes(batches, None)[0], faces[0, 0].flatten())
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
    np.testing.assert_allclose(codes(batches, encoder)[2], encoder(faces[:1, 0]).detach()[0], rtol=1e-5)
