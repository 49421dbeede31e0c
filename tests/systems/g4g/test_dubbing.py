"""The g4g stage: its battery, what the mouth may not tell it, and the ablations of Table 2."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from contract import TrainedContract, build, generator
from torch import nn
from toy_batch import make_batch

from systems.base import Batch
from systems.g4g.dubbing import G4GStage, masked_l1
from systems.g4g.regions import face_of, masks
from systems.g4g.sync_expert import SyncExpertStage

SMALL: dict[str, Any] = {"size": 52, "batch": 2}


class TestG4G(TrainedContract):
    system = "g4g"
    stage = G4GStage
    lineage = (SyncExpertStage,)
    changes: ClassVar = SMALL
    items = 2

    @classmethod
    def batch(cls, stage: Any, items: int, seed: int) -> Batch:
        view = stage.view
        if isinstance(stage, SyncExpertStage):  # the parent measures its statistics; fewer frames do
            view = SyncExpertStage.preset("tiny", size=52, frames=6).view
        return make_batch(view, items, seed)


@pytest.fixture(scope="module")
def parents() -> Mapping[str, nn.ModuleDict]:
    return {"sync_expert": build(SyncExpertStage.preset("tiny"), {}, [])}


def made(parents: Mapping[str, nn.ModuleDict], **changes: Any) -> tuple[G4GStage, nn.ModuleDict, Batch]:
    stage = G4GStage.preset("tiny", **SMALL, **changes)
    assert isinstance(stage, G4GStage)
    model = build(stage, parents, [])
    with torch.no_grad():  # an untrained decoder paints next to nothing
        nn.init.normal_(model["generator"].paint.weight, std=0.1)
    return stage, model.eval(), make_batch(stage.view, 2, 3)


def test_the_source_s_mouth_tells_nothing_and_stands_outside_of_the_mask(parents: Any) -> None:
    """Noise where the mask is 1 changes no bit of the result; outside of it the source is kept to the bit."""
    stage, model, batch = made(parents)
    mask = model["generator"].mask
    before = stage._dub(model, batch)[0].face
    noisy = dict(batch)
    crop = torch.nn.functional.pad(mask, ((52 - 40) // 2,) * 2)
    noisy["frames"] = torch.where(crop == 1, torch.rand_like(batch["frames"]), batch["frames"])
    assert not torch.equal(noisy["frames"], batch["frames"])
    after = stage._dub(model, noisy)[0].face
    assert torch.equal(before, after)
    source = face_of(batch["frames"]).flatten(0, 1)
    outside = (mask == 0).expand_as(source)
    assert torch.equal(before[outside], source[outside])
    assert not torch.equal(before, source)


def test_an_untrained_mouth_is_the_references_mean_and_no_better(parents: Any) -> None:
    """Nothing of the truth shows through where results are measured: nothing learnt, nothing won."""
    stage, model, batch = made(parents, fusion=False)
    for parameter in model["generator"].paint.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        found = stage.validate(model, batch, generator(0, 0))
    for name in ("l1", "psnr", "l1_lips", "l1_moving"):
        torch.testing.assert_close(found[name], found[f"{name}_mean"], msg=name)


def test_the_sound_and_the_references_change_the_mouth(parents: Any) -> None:
    stage, model, batch = made(parents)
    with torch.no_grad():
        nn.init.normal_(model["generator"].coefficients.out.weight, std=0.2)
    before = stage._dub(model, batch)[0].face
    for name in ("audio", "references", "reference_landmarks"):
        other = batch | {name: batch[name].flip(0)}
        assert not torch.equal(before, stage._dub(model, other)[0].face), name


def test_the_losses_add_up_as_in_eq_17(parents: Any) -> None:
    stage, model, batch = made(parents, lambda_v=1.0, lambda_p=2.0, lambda_gan=3.0, lambda_r=4.0, lambda_con=5.0)
    losses = stage.loss(model, batch, "generator", generator(0, 0))
    weights = {"v": 1.0, "p": 2.0, "gan": 3.0, "r": 4.0, "con": 5.0}
    by_hand = sum(weights[name] * float(term) for name, term in losses.terms.items())
    assert set(losses.terms) == set(weights)
    assert float(losses.total.detach()) == pytest.approx(by_hand, rel=1e-5)
    paper = G4GStage.preset("paper").settings
    assert [getattr(paper, f"lambda_{name}") for name in weights] == [1, 2, 3, 4, 5]


def test_the_reconstruction_loss_is_the_mean_over_masks() -> None:
    a, b, under = torch.rand(2, 5, 3, 104, 80), torch.rand(2, 5, 3, 104, 80), masks(104)
    found = masked_l1(a, b, under)
    assert found.shape == (2, 3)
    for k, mask in enumerate(under):
        inside = mask[0].bool()
        assert float(found[1, k]) == pytest.approx(float((a[1] - b[1]).abs()[..., inside].mean()), rel=1e-5)


def test_ablations_take_away_what_they_say(parents: Any) -> None:
    _, whole, _ = made(parents)
    for change, gone, terms in (
        ("alignment", {"generator.intra.blocks", "inter"}, {"p", "gan", "r", "con"}),
        ("fusion", {"generator.blend_net"}, {"p", "gan", "r", "con", "v"}),
        ("multi_scale", set(), {"p", "gan", "r", "con", "v"}),
    ):
        stage, model, batch = made(parents, **{change: False})
        names = {name for name, _ in whole.named_parameters()} - {name for name, _ in model.named_parameters()}
        assert all(any(name.startswith(part) for part in gone) for name in names)
        assert bool(names) == bool(gone)
        losses = stage.loss(model, batch, "generator", generator(0, 0))
        assert set(losses.terms) == terms
        losses.total.backward()
    real, mean = face_of(batch["frames"]), face_of(batch["references"]).mean(1, keepdim=True)
    assert masked_l1(mean, real, masks(52)[:1]).shape == (2, 1)


def test_the_paper_deforms_256_channels_and_names_its_stand_in() -> None:
    paper = G4GStage.preset("paper")
    assert paper.settings.deformed == 256
    assert paper.view.references == 5
    assert paper.stand_ins == ("VGG19 -> sync_expert.mouth",)
    assert G4GStage.preset("paper", vgg19="weights.safetensors").stand_ins == ()
