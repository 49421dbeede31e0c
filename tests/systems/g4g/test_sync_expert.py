"""The sync expert: its battery, and that its measures measure time."""

from typing import ClassVar

import torch
from contract import TrainedContract, build
from toy_batch import make_batch

from systems.g4g.expert import offset_and_confidence, shifted_distances
from systems.g4g.sync_expert import SHIFTS, SyncExpertStage, _accuracy, embed


class TestSyncExpert(TrainedContract):
    system = "g4g"
    stage = SyncExpertStage
    changes: ClassVar = {"frames": 12}
    items = 2


def test_distances_are_those_of_the_shifted_sound() -> None:
    v, a = torch.randn(2, 9, 4), torch.randn(2, 9 + 2 * SHIFTS, 4)
    distances = shifted_distances(v, a, SHIFTS)
    assert distances.shape == (2, 13)
    for shift in (-6, 0, 5):
        by_hand = torch.stack([(v[1, i] - a[1, i + SHIFTS + shift]).norm() for i in range(9)]).mean()
        torch.testing.assert_close(distances[1, shift + SHIFTS], by_hand)


def test_the_offset_of_vectors_that_fit_is_found() -> None:
    a = torch.nn.functional.normalize(torch.randn(1, 20 + 2 * SHIFTS, 8), dim=-1)
    for shift in range(-SHIFTS, SHIFTS + 1):
        v = a[:, SHIFTS + shift : SHIFTS + shift + 20]
        offset, lse_d, lse_c = offset_and_confidence(shifted_distances(v, a, SHIFTS))
        assert int(offset) == shift
        assert float(lse_d) == 0.0
        assert float(lse_c) > 0.5


def test_accuracy_is_one_half_for_vectors_that_say_nothing_and_one_for_those_that_fit() -> None:
    torch.manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(1, 400, 8), dim=-1)
    v = a[:, SHIFTS:-SHIFTS]
    assert float(_accuracy(v, a)) == 1.0
    assert abs(float(_accuracy(torch.randn(v.shape), a)) - 0.5) < 0.05


def test_a_delayed_sound_is_found_delayed() -> None:
    """The plumbing of frames and sound: an expert that hears its own mouths finds the shift that was made."""
    stage = SyncExpertStage.preset("tiny", frames=24)
    batch = make_batch(stage.view, 2, 1)
    expert = build(stage, {}, [batch])["sync_expert"].eval()
    with torch.no_grad():
        v, a = embed(expert, batch["frames"], batch["audio"])
        assert v.shape[1] + 2 * SHIFTS == a.shape[1]
        later = torch.nn.functional.pad(batch["audio"], (640 * 3, 0))[:, : batch["audio"].shape[1]]
        _, delayed = embed(expert, batch["frames"], later)
    torch.testing.assert_close(delayed[:, 6:], a[:, 3:-3])


def test_rest_takes_a_constant_out() -> None:
    """A person is no clue: what is added to all frames alike changes no vector."""
    stage = SyncExpertStage.preset("tiny")
    expert = build(stage, {}, [])["sync_expert"].eval()
    frames = torch.randn(1, 9, stage.settings.width)
    moved = frames + torch.randn(stage.settings.width)
    one, other = (expert.see(each, each.mean(1)) for each in (frames, moved))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
