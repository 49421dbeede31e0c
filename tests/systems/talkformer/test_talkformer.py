from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from contract import TrainedContract, build, generator, make_artifact
from torch import nn
from toy_batch import make_batch

from contracts.errors import Misuse
from contracts.face import JAW_17, LIPS
from systems.base import Batch
from systems.talkformer.ablations import TABLES, Row
from systems.talkformer.autoencoder import Autoencoder
from systems.talkformer.diffusion import sample
from systems.talkformer.latents import lower_half
from systems.talkformer.talkformer import TalkFormerStage

TOY: dict[str, Any] = {
    "size": 16,
    "margin": 5,
    "windows": 2,
    "completion": (16, 1, 2, 32),
    "channels": (8, 8),
    "width": 8,
    "samples": 1,
    "sampling_steps": 2,
}


class TestTalkFormer(TrainedContract):
    system = "talkformer"
    stage = TalkFormerStage
    lineage = (Autoencoder,)
    changes: ClassVar = TOY | {"leads": False}  # from nothing: a loss of 1
    items = 2
    paper_parameters = 388.601


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.ModuleDict]:
    stage = Autoencoder.preset("tiny", channels=(4, 8, 8), groups=2)
    return {"autoencoder": make_artifact(stage, {}, [], tmp_path_factory.mktemp("autoencoder"))}


def toy(**changes: Any) -> TalkFormerStage:
    stage = TalkFormerStage.preset("tiny", **{**TOY, "channels": (4, 8), "groups": 2, **changes})
    assert isinstance(stage, TalkFormerStage)
    return stage


def awake(
    stage: TalkFormerStage, parents: dict[str, nn.ModuleDict], dtype: torch.dtype = torch.float32
) -> nn.ModuleDict:
    """The stage's networks with every layer that starts at nothing filled, so that all depends on all."""
    model = build(stage, copy.deepcopy(parents), [make_batch(stage.view, 2)]).to(dtype).eval()
    filled = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=filled))
    return model


def double(batch: Batch) -> Batch:
    return {n: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for n, v in batch.items()}


def test_total_is_the_denoising_loss_and_ten_times_l_1(parents: Any) -> None:
    stage = toy()
    model, batch = build(stage, parents, []), make_batch(stage.view, 2)
    losses = stage.loss(model, batch, "main", generator(0, 0))
    torch.testing.assert_close(losses.total.detach(), losses.terms["l_ldm"] + 10 * losses.terms["l_1"])  # eq. (6)


@pytest.mark.parametrize("way", ["keys", "keys and values"])
def test_the_denoising_loss_teaches_the_completion_through_attention(parents: Any, way: str) -> None:
    """The gradient's value: L_ldm changes along a direction of the completion module's weights as it says."""
    stage = toy(weight=0.0, windows=1)  # no L_1: what reaches the completion module comes from the pictures
    model, batch = awake(stage, parents, torch.float64), double(make_batch(stage.view, 2))
    if way == "keys":  # V_1 is held where it is
        for block in model["denoiser"].talkformers.values():
            attention, held = block.align_motion, []

            def project(source: Any, attention: Any = attention, held: list[Any] = held) -> Any:
                if not held:
                    held.append(attention.value(source).detach())
                return attention.key(source), held[0]

            attention.project = project

    def loss() -> torch.Tensor:
        return stage.loss(model, batch, "main", generator(0, 0)).total

    completion = dict(model["completion"].named_parameters())
    loss().backward()
    directions = {n: torch.randn(p.shape, generator=generator(1, 0)).double() for n, p in completion.items()}
    said = sum(float((p.grad * directions[n]).sum()) for n, p in completion.items() if p.grad is not None)
    step, found = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for name, parameter in completion.items():
                parameter += sign * step * directions[name]
            found.append(float(loss()))
            for name, parameter in completion.items():
                parameter -= sign * step * directions[name]
    assert abs(said) > 1e-6
    assert said == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-4)


def test_without_end2end_nothing_of_the_pictures_reaches_it(parents: Any) -> None:
    stage = toy(weight=0.0, end_to_end=False)
    model = awake(stage, parents)
    stage.loss(model, make_batch(stage.view, 2), "main", generator(0, 0)).total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model["completion"].parameters())
    assert any(p.grad is not None and p.grad.any() for p in model["denoiser"].parameters())


@pytest.mark.parametrize("seen", ["masked", "full"])
def test_the_mouth_that_is_replaced_changes_no_bit(parents: Any, seen: str) -> None:
    """Noise in the lower half of the frames: what the denoiser sees is the same, unless told to look (``full``)."""
    stage = toy(seen=seen)
    model, batch = awake(stage, parents), make_batch(stage.view, 2)
    other = {**batch, "frames": batch["frames"].clone()}
    lower_half(other["frames"]).normal_(generator=generator(2, 0))
    results = []
    for each in (batch, other):
        with torch.no_grad():
            face = stage._complete(model, each, 1)[0]
            _, clip = stage._clip(model, each, face.full[:, 0])
            noise = torch.randn(lower_half(clip.context).shape, generator=generator(3, 0))
            results.append(sample(model["denoiser"], clip, noise))
    assert torch.equal(*results) is (seen == "masked")


def test_the_true_lips_and_jaw_are_not_given(parents: Any) -> None:
    stage = toy()
    model, batch = awake(stage, parents), make_batch(stage.view, 2)
    other = {**batch, "landmarks": batch["landmarks"].clone()}
    other["landmarks"][:, :, [*LIPS, *JAW_17]] += 0.3
    with torch.no_grad():
        ours, theirs = (stage._complete(model, each, 2)[1:] for each in (batch, other))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_references_alone_make_the_first_guess_of_the_picture(parents: Any) -> None:
    """Where nothing is learnt yet, sampling ends near a copy of the reference: nearer than to another's."""
    stage = toy(sampling_steps=8)
    model, batch = build(stage, parents, [make_batch(stage.view, 4)]).eval(), make_batch(stage.view, 2)
    with torch.no_grad():
        face, *_ = stage._complete(model, batch, 1)
        _, clip = stage._clip(model, batch, face.full[:, 0])
        z = sample(model["denoiser"], clip, torch.randn(lower_half(clip.context).shape, generator=generator(3, 0)))
    z = z.unflatten(0, (2, -1)).mean(1)
    own, other = ((z - lower_half(clip.z_r.roll(shift, 0))).square().mean() for shift in (0, 1))
    assert own < other


@pytest.mark.parametrize("row", [*TABLES["III"], *TABLES["IV"]], ids=lambda row: row.name)
def test_every_row_of_the_ablations_learns(parents: Any, row: Row) -> None:
    own = row.stage("tiny").settings
    assert set(row.changes) <= set(type(own).model_fields)
    stage = toy(**row.changes)
    model, batch = awake(stage, parents), make_batch(stage.view, 2)
    losses = stage.loss(model, batch, "main", generator(0, 0))
    losses.total.backward()
    silent = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert not silent
    with torch.no_grad():
        assert all(torch.isfinite(value).all() for value in stage.validate(model, batch, generator(0, 0)).values())


def test_rows_are_the_constructions_of_the_paper() -> None:
    rows = {row.name: row.stage("paper") for row in TABLES["III"]}
    with torch.device("meta"):
        autoencoder = Autoencoder.preset("paper").build_model({})
        made = {name: stage.build_model({"autoencoder": autoencoder})["denoiser"] for name, stage in rows.items()}
    ours = made["Ours"]
    millions = {name: sum(p.numel() for p in net.parameters()) / 1e6 for name, net in made.items()}
    assert not any("align_motion" in name for name, _ in made["Ours w/o M-Align"].named_parameters())
    assert made["Ours w/o R-Align"].appearance_encoder is None
    assert made["Ours w/o R-Align"].entry.in_channels == 2 * ours.entry.in_channels
    assert millions["Ours w/o B-Sequential"] == millions["Ours w/o End2End"] == millions["Ours"]
    assert (
        millions["Ours w/o R-Align"]
        < millions["Ours"]
        < min(millions[f"Ours + {x}"] for x in ("CompleteRef", "TempAttn"))
    )
    assert ours.scale_of.count(0) == 2 + 3
    assert all(ours.scale_of[int(number)] > 0 for number in ours.talkformers), "the first scale has none"
    assert set(map(int, ours.talkformers)) >= {i for i, s in enumerate(ours.scale_of[:8]) if s > 0}


def test_a_size_that_does_not_halve_is_refused(parents: Any) -> None:
    with pytest.raises(Misuse, match="need a size"):
        toy(size=24).build_model(parents)


def test_the_bar_s_splits_have_windows(parents: Any) -> None:
    """At ``tiny`` the span fits into the unseen seconds of a clip (32 frames)."""
    assert TalkFormerStage.preset("tiny").view.span <= 32
    assert dataclasses.replace(toy().view, size=8).references == 5


def test_exported_networks_are_safe_tensors(parents: Any, tmp_path: Path) -> None:
    stage = toy(temporal=True)
    model = build(stage, parents, [])
    stage.export(model, tmp_path)
    assert set(stage.load(tmp_path)) == {"completion", "denoiser"}
