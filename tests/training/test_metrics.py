"""Measures against values computed by hand, intervals against cases whose answer is plain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.metrics.bootstrap import compare
from training.metrics.image import psnr, ssim


def test_psnr_by_hand():
    true = torch.zeros(2, 3, 16, 16)
    made = true.clone()
    made[0] += 0.2  # mean squared error 0.04 of a range of 2: 10 log10(4 / 0.04) = 20 dB
    made[1, :, :, :8] += 0.2  # half of it: 3.01 dB more
    assert psnr(made, true).tolist() == pytest.approx([20.0, 20.0 + 10 * math.log10(2)], abs=1e-4)


def test_ssim_by_hand():
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.uniform(-0.5, 0.5, (1, 3, 32, 32)).astype(np.float32))
    assert ssim(true, true).tolist() == pytest.approx([1.0], abs=1e-5)
    flat = torch.full((1, 3, 32, 32), 0.5)
    other = torch.full((1, 3, 32, 32), -0.5)
    c1 = (0.01 * 2) ** 2  # without variance only the means' term is left: (2 m n + c1) / (m² + n² + c1)
    assert ssim(flat, other).tolist() == pytest.approx([(2 * 0.5 * -0.5 + c1) / (0.5 + c1)], abs=1e-4)


def test_a_clear_gain_on_every_speaker_is_clear():
    speakers = [f"s{i // 3}" for i in range(24)]
    other = np.linspace(1, 2, 24)
    found = compare(0.8 * other, other, speakers)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8))
    assert found.clear("lower")
    assert not found.clear("higher")
    assert found.speakers == 8


def test_one_speaker_with_many_items_does_not_decide():
    """A hundred good items of one speaker stand beside a bad one of each of four others."""
    speakers = ["many"] * 100 + ["a", "b", "c", "d"]
    found = compare([0.1] * 100 + [1.2] * 4, [1.0] * 104, speakers)
    assert found.ours == pytest.approx((0.1 + 4 * 1.2) / 5)
    assert not found.clear("lower")


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        ours = rng.normal(1.0, 0.3, 30)
        found = compare(ours, [0.0] * 30, [str(i) for i in range(30)], seed=trial)
        hits += found.difference[0] <= 1.0 <= found.difference[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_a_comparison_about_zero_has_no_ratio_but_a_verdict():
    speakers = [str(i) for i in range(10)]
    found = compare([0.3 + 0.01 * i for i in range(10)], [-0.05, 0.05] * 5, speakers)
    assert math.isnan(found.low)
    assert found.clear("higher")


def test_two_speakers_prove_nothing_and_values_that_are_not_finite_are_left_out():
    assert not compare([0.1, 0.1], [1.0, 1.0], ["a", "b"]).clear("lower")
    assert compare([0.1, math.nan, 0.3], [1.0, 1.0, 1.0], ["a", "b", "c"]).speakers == 2
    with pytest.raises(ValueError, match="no finite values"):
        compare([math.nan], [1.0], ["a"])
