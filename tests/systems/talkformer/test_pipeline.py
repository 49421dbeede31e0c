"""The pipeline over untrained networks: what it promises holds whatever they have learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import make_artifact
from toy_batch import make_batch

from contracts.errors import Misuse
from contracts.face import JAW_17, LIPS
from systems.base import Faces, Request
from systems.talkformer.autoencoder import Autoencoder
from systems.talkformer.blending import face_mask, fill
from systems.talkformer.face_points import split_points
from systems.talkformer.pipeline import TalkFormerPipeline
from systems.talkformer.talkformer import TalkFormerStage

SIDE = 16
TOY: dict[str, Any] = {
    "size": SIDE,
    "completion": (16, 1, 2, 32),
    "channels": (4, 8),
    "groups": 2,
    "width": 8,
    "sampling_steps": 2,
}


def make(folder: Path, **changes: Any) -> TalkFormerPipeline:
    stage = TalkFormerStage.preset("tiny", **{**TOY, **changes})
    small = Autoencoder.preset("tiny", channels=(4, 8, 8), groups=2)
    parents = {"autoencoder": make_artifact(small, {}, [], folder / "a")}
    made = parents | {"talkformer": make_artifact(stage, parents, [make_batch(stage.view, 2)], folder / "t")}
    filled = torch.Generator().manual_seed(5)
    with torch.no_grad():  # what starts at nothing is filled, so that all depends on all
        for network in made["talkformer"].values():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.copy_(torch.randn(parameter.shape, generator=filled))
    made["talkformer"]["denoiser"].spread.fill_(1.0)  # faces far from their references
    return TalkFormerPipeline.from_stages(made)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> TalkFormerPipeline:
    return make(tmp_path_factory.mktemp("pipeline"))


def speech(frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(frames * 640)).astype(np.float32)


def video(frames: int, cut: int | None = None, gap: int | None = None, seed: int = 0) -> Iterator[Faces]:
    """Up to eight frames at a time; another shot from ``cut`` on, nobody in frame ``gap``."""
    shots = []
    for first, end in ((0, cut or frames), (cut or frames, frames)):
        view = TalkFormerStage.preset("tiny", size=SIDE, frames=max(end - first, 1), margin=0).view
        batch = make_batch(view, 1, seed + first)
        pixels = {n: ((batch[n][0].permute(0, 2, 3, 1) + 1) * 127.5).byte().numpy() for n in ("frames", "references")}
        shots.append((first, end, pixels, batch["landmarks"][0].numpy(), batch["reference_landmarks"][0].numpy()))
    for first, end, pixels, points, known in shots:
        start = first
        while start < end:
            stop = min(start + 8, end)
            if gap is not None and start <= gap < stop:
                stop = gap
            part = slice(start - first, stop - first)
            if stop > start:
                yield Faces(start, pixels["frames"][part], pixels["references"], known, points[part])
            start = stop + (stop == gap)


def render(pipeline: TalkFormerPipeline, *requests: Request) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {number: [] for number in range(len(requests))}
    for chunk in pipeline.stream(list(requests)):
        found[chunk.request].append(chunk)
    return found


def frames(chunks: list[Any]) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


def test_every_face_is_answered_and_only_lower_halves_change(pipeline: TalkFormerPipeline) -> None:
    chunks = render(pipeline, Request(speech(21), 1, video=video(21, cut=11, gap=16)))[0]
    asked = list(video(21, cut=11, gap=16))
    assert [(c.first, len(c.frames)) for c in chunks] == [(f.first, len(f.crops)) for f in asked]
    for chunk, faces in zip(chunks, asked):
        assert chunk.frames.dtype == np.uint8
        assert np.array_equal(chunk.frames[:, : SIDE // 2], faces.crops[:, : SIDE // 2])
        assert (chunk.frames[:, SIDE // 2 :] != faces.crops[:, SIDE // 2 :]).any()
        assert chunk.mask.shape == (SIDE, SIDE)
        assert 0 <= chunk.mask.min() <= chunk.mask.max() <= 1


def test_what_is_in_the_lower_half_changes_no_bit(pipeline: TalkFormerPipeline) -> None:
    """The source's mouth, in pixels and in points, is never looked at."""

    def other(noise: int) -> Iterator[Faces]:
        rng = np.random.default_rng(noise)
        for faces in video(10):
            crops, points = faces.crops.copy(), faces.points.copy()
            crops[:, SIDE // 2 :] = rng.integers(0, 255, crops[:, SIDE // 2 :].shape)
            points[:, [*LIPS, *JAW_17]] += rng.uniform(-0.2, 0.2, (len(points), 57, 2))
            yield Faces(faces.first, crops, faces.references, faces.landmarks, points)

    first, second = (frames(render(pipeline, Request(speech(10), 1, video=other(n)))[0]) for n in (1, 2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("temporal", [False, True])
def test_two_together_are_two_alone_and_seeds_differ(tmp_path: Path, temporal: bool) -> None:
    pipeline = make(tmp_path, temporal=temporal)

    def ask(number: int, seed: int) -> Request:
        return Request(speech(9 + number, number), seed, video=video(9 + number, seed=number))

    together = render(pipeline, ask(0, 5), ask(1, 6))
    alone = [frames(render(pipeline, ask(number, 5 + number))[0]) for number in (0, 1)]
    for number in (0, 1):
        assert np.array_equal(frames(together[number]), alone[number])
    assert not np.array_equal(alone[0], frames(render(pipeline, ask(0, 7))[0]))


def test_the_sound_and_the_steps_change_the_mouth(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    with torch.no_grad():  # as if much were learnt: lips that move far, and eyes for them
        pipeline.completion.lip_head.weight.mul_(20)
        for block in pipeline.denoiser.talkformers.values():
            for layer in (block.align_motion.query[2], block.align_motion.key, block.align_motion.value):
                layer.weight.mul_(10)
    plain, other, finer = (
        frames(render(pipeline, Request(speech(8, seed), 1, video=video(8), steps=steps))[0])
        for seed, steps in ((0, None), (1, None), (0, 5))
    )
    assert not np.array_equal(plain, other)
    assert not np.array_equal(plain, finer)


def test_a_shot_is_looked_at_once(pipeline: TalkFormerPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference features do not depend on frame or step: computed once for each of two shots."""
    seen = []
    features = pipeline.denoiser.features
    monkeypatch.setattr(pipeline.denoiser, "features", lambda z: seen.append(len(z)) or features(z))
    render(pipeline, Request(speech(40), 1, video=video(40, cut=20), steps=7))
    assert seen == [1, 1]


def test_landmarks_can_be_shown(pipeline: TalkFormerPipeline) -> None:
    pipeline.show = "landmarks"
    try:
        shown = frames(render(pipeline, Request(speech(5), 1, video=video(5)))[0])
    finally:
        pipeline.show = "face"
    assert (shown[:, SIDE // 2 :] == 128).mean() > 0.3, "the mask is grey"
    assert (shown[..., 0].astype(int) - shown[..., 1] > 100).any(), "lips are red"


def test_without_a_video_or_with_other_crops_it_refuses(pipeline: TalkFormerPipeline) -> None:
    with pytest.raises(Misuse, match="name one"):
        list(pipeline.stream([Request(speech(5), 1)]))
    with pytest.raises(Misuse, match="shorter than one frame"):
        list(pipeline.stream([Request(np.zeros(100, np.float32), 1, video=video(5))]))
    large = Faces(0, *[np.zeros((5, 2 * SIDE, 2 * SIDE, 3), np.uint8)] * 2, *[np.zeros((5, 478, 2), np.float32)] * 2)
    with pytest.raises(Misuse, match="crops of 16 px"):
        list(pipeline.stream([Request(speech(5), 1, video=iter([large]))]))


def test_saved_and_loaded_it_renders_the_same(pipeline: TalkFormerPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    loaded = TalkFormerPipeline.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    assert (loaded.references, loaded.crop_side) == (5, SIDE)
    before, after = (frames(render(p, Request(speech(6), 4, video=video(6)))[0]) for p in (pipeline, loaded))
    assert np.array_equal(before, after)


# ------------------------------------------------------------------ the mask
def test_outlines_are_filled() -> None:
    square = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]])
    inside = fill(square, 8)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(inside, expected)


def test_the_mask_is_soft_covers_the_mouth_and_leaves_the_eyes() -> None:
    batch = make_batch(TalkFormerStage.preset("tiny").view, 1)
    angle = torch.linspace(0, np.pi, 25)
    full = split_points(batch["landmarks"][0]).full.clone()
    full[:, -25:] = torch.stack([0.5 + 0.3 * angle.cos(), 0.5 + 0.4 * angle.sin()], -1)  # the lower oval
    mask = face_mask([full], 128)
    assert mask[90, 64] > 0.999
    assert mask[:52].max() == 0
    assert mask[:, :10].max() == 0
    assert mask.diff(dim=0).abs().max() < 0.15, "no edge is to be seen"
