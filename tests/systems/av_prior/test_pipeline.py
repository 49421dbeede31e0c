"""The pipeline over untrained networks: what it promises holds whatever they have learnt."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import make_artifact
from torch import nn
from toy_batch import draw_face, make_batch

from contracts.errors import Misuse
from systems.av_prior import SYSTEM
from systems.av_prior.pipeline import AvPriorPipeline
from systems.base import Request

SIDE = 64  # of the pictures at preset "tiny"
PORTRAIT = ((draw_face(80, np.zeros(3), 0.3, 0.0).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> AvPriorPipeline:
    made: dict[str, nn.ModuleDict] = {}
    for kind in SYSTEM.stages:
        stage = kind.preset("tiny")
        parents: Mapping[str, nn.ModuleDict] = {name: made[name] for name in kind.needs}
        made[kind.name] = make_artifact(stage, parents, [make_batch(stage.view, 2, 0)], tmp_path_factory.mktemp("s"))
    pipeline = AvPriorPipeline.from_stages(made)
    torch.manual_seed(1)
    nn.init.normal_(pipeline.generator.paint.weight)  # untrained it paints nothing
    return pipeline


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """A hum that swells four times a second, float32 [16000 seconds]."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    hum = np.sin(2 * np.pi * (120 + 40 * seed) * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))
    return (0.3 * hum).astype(np.float32)


def ask(seconds: float, seed: int = 0) -> Request:
    return Request(speech(seconds), seed, PORTRAIT, steps=2)


def collect(pipeline: AvPriorPipeline, request: Request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in pipeline.stream([request])])


@pytest.mark.parametrize("seconds", [0.05, 1.28, 1.32, 2.6])
def test_frames_are_25_per_second_in_order_and_few_at_a_time(pipeline: AvPriorPipeline, seconds: float) -> None:
    reached = 0
    for chunk in pipeline.stream([ask(seconds)]):
        assert chunk.first == reached
        assert chunk.frames.dtype == np.uint8
        assert chunk.frames.shape[1:] == (SIDE, SIDE, 3)
        assert 0 < len(chunk.frames) <= 16, "memory must not grow with the length of the speech"
        reached += len(chunk.frames)
    assert reached == round(25 * seconds)


def test_another_seed_is_another_video_with_the_same_lips(pipeline: AvPriorPipeline) -> None:
    first, again, other = (pipeline.motion(ask(1.6, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other)[1:].norm(dim=1).min() > 0
    assert torch.equal(pipeline.lips(speech(1.6)), pipeline.lips(speech(1.6)))
    assert not np.array_equal(collect(pipeline, ask(1.6, 1)), collect(pipeline, ask(1.6, 2)))


def test_stream_is_motion_and_lips_put_together(pipeline: AvPriorPipeline) -> None:
    request = ask(1.6, 3)
    parts = pipeline.film(PORTRAIT, pipeline.motion(request), pipeline.lips(request.audio))
    apart = np.concatenate(list(parts)).astype(int)
    assert np.abs(apart - collect(pipeline, request)).max() <= 1


def test_two_requests_together_are_two_alone(pipeline: AvPriorPipeline) -> None:
    requests = [ask(0.6, 1), ask(1.8, 2)]
    together: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for chunk in pipeline.stream(requests):
        together[chunk.request].append(chunk.frames)
    for number, request in enumerate(requests):
        assert np.array_equal(np.concatenate(together[number]), collect(pipeline, request))


def test_windows_go_on_from_the_last_frame(pipeline: AvPriorPipeline) -> None:
    """The second window is drawn with the first one's last frame known, and it is not drawn again."""
    request, length = ask(2.4), pipeline.prior.config.frames
    film = pipeline._start(0, request)
    _, before = pipeline._next_window(film)
    assert torch.equal(film.known[0], before[-1])
    first, after = pipeline._next_window(film)
    assert first == len(before) == length
    assert torch.equal(torch.cat([before, after]), pipeline.motion(request))


def test_a_span_drawn_again_changes_nothing_outside(pipeline: AvPriorPipeline) -> None:
    request = ask(3.6)
    motion = pipeline.motion(request)
    for first, end in ((0, 5), (20, 31), (10, 70), (80, 90)):
        edited = pipeline.edit(request, motion, first, end, seed=9)
        assert torch.equal(edited[:first], motion[:first])
        assert torch.equal(edited[end:], motion[end:])
        changed = (edited - motion)[first:end].abs().sum(1)
        assert (changed[first == 0 :] > 0).all(), "a relative prior's first frame is the portrait's"
        assert torch.equal(edited, pipeline.edit(request, motion, first, end, seed=9))
    with pytest.raises(Misuse, match="cannot be drawn again"):
        pipeline.edit(request, motion, 80, 91, seed=9)


def test_lips_alone_and_the_rest_alone(pipeline: AvPriorPipeline) -> None:
    request = ask(0.8)
    motion, lips = pipeline.motion(request), pipeline.lips(request.audio)
    still, silent = motion[:1].expand_as(motion), lips[:1].expand_as(lips)
    both, only_lips, only_rest, neither = (
        np.concatenate(list(pipeline.film(PORTRAIT, n, f_l))).astype(int)
        for n, f_l in ((motion, lips), (still, lips), (motion, silent), (still, silent))
    )
    assert np.abs(neither - neither[:1]).max() <= 1, "nothing moves"
    assert np.abs(only_lips - neither).max() > 0
    assert np.abs(only_rest - neither).max() > 0
    assert not np.array_equal(both, only_lips)
    with pytest.raises(Misuse, match="make no film"):
        next(pipeline.film(PORTRAIT, motion, lips[:-1]))


def test_guidance_and_the_rival_draw_otherwise(pipeline: AvPriorPipeline) -> None:
    request = ask(0.8)
    plain = pipeline.motion(request)
    try:
        pipeline.guidance = 3.0
        assert not torch.equal(pipeline.motion(request), plain)
        pipeline.guidance, pipeline.kind = None, "autoregressive"
        rival = pipeline.motion(request)
        assert rival.shape == plain.shape
        assert not torch.equal(rival, plain)
        assert torch.equal(rival, pipeline.motion(ask(0.8, 5))), "it does not draw: every seed is one video"
    finally:
        pipeline.guidance, pipeline.kind = None, "diffusion"


def test_seeds_side_by_side(pipeline: AvPriorPipeline) -> None:
    sheet = pipeline.diversity_sheet(ask(0.8), seeds=(0, 1), moments=3)
    assert sheet.shape == (2 * (SIDE + 2) + 2, 3 * (SIDE + 2) + 2, 3)


def test_what_it_cannot_do_it_says(pipeline: AvPriorPipeline) -> None:
    with pytest.raises(Misuse, match="shorter than one frame"):
        next(pipeline.stream([Request(np.zeros(100, np.float32), 0, PORTRAIT)]))
    with pytest.raises(Misuse, match="portrait"):
        next(pipeline.stream([Request(speech(1.0), 0)]))


def test_saved_and_loaded_it_renders_the_same(pipeline: AvPriorPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    loaded = AvPriorPipeline.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    assert np.array_equal(collect(pipeline, ask(0.8, 4)), collect(loaded, ask(0.8, 4)))
