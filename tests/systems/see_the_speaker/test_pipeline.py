"""The pipeline over untrained networks: what it promises holds whatever they have learnt."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import make_artifact
from torch import nn
from toy_batch import make_batch

from contracts.errors import Misuse
from systems.base import Request
from systems.see_the_speaker import SYSTEM
from systems.see_the_speaker.pipeline import SeeTheSpeakerPipeline, leave_as_it_is

SIDE = 128  # of the pictures at preset "tiny"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> SeeTheSpeakerPipeline:
    made: dict[str, nn.ModuleDict] = {}
    for kind in SYSTEM.stages:
        stage = kind.preset("tiny")
        parents: Mapping[str, nn.ModuleDict] = {name: made[name] for name in kind.needs}
        batches = [make_batch(stage.view, 4, seed) for seed in (0, 1)]
        made[kind.name] = make_artifact(stage, parents, batches, tmp_path_factory.mktemp(kind.name))
    pipeline = SeeTheSpeakerPipeline.from_stages(made)
    # Untrained heads are zero; these make motion and mouth depend on codes, noise and sound.
    torch.manual_seed(1)
    for layer in (
        *[head for head in pipeline.motion_wrapper.heads if isinstance(head, nn.Conv2d)],
        pipeline.lip_refiner.flow_out,
        pipeline.lip_predictor.out,
        pipeline.motion_unet.out,
    ):
        nn.init.normal_(layer.weight, std=0.05)
    return pipeline


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """A hum that swells four times a second, float32 [16000 seconds]."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    hum = np.sin(2 * np.pi * (120 + 40 * seed) * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))
    return (0.3 * hum).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.05, 0.83, 1.28, 1.3, 2.41])
def test_frames_are_25_per_second(pipeline: SeeTheSpeakerPipeline, seconds: float) -> None:
    face = pipeline(audio=speech(seconds), seed=3, steps=1)
    assert face.frames.shape == (round(25 * seconds), SIDE, SIDE, 3)
    assert face.frames.dtype == np.uint8
    assert face.portrait is not None


def test_chunks_follow_each_other_and_stay_small(pipeline: SeeTheSpeakerPipeline) -> None:
    reached = 0
    for chunk in pipeline.stream([Request(speech(3.0), seed=0, steps=1)]):
        assert chunk.request == 0
        assert chunk.first == reached
        assert 0 < len(chunk.frames) <= 16, "memory must not grow with the length of the speech"
        reached += len(chunk.frames)
    assert reached == 75


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pipeline: SeeTheSpeakerPipeline) -> None:
    first, again, other = (pipeline(audio=speech(1.5), seed=seed, steps=2).frames for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_two_requests_together_are_two_alone(pipeline: SeeTheSpeakerPipeline) -> None:
    requests = [Request(speech(1.0), seed=1, steps=2), Request(speech(2.0, 1), seed=2, steps=2)]
    together: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for chunk in pipeline.stream(requests):
        together[chunk.request].append(chunk.frames)
    for number, request in enumerate(requests):
        alone = pipeline(audio=request.audio, seed=request.seed, steps=2).frames
        assert np.array_equal(np.concatenate(together[number]), alone)


def test_longer_speech_begins_alike(pipeline: SeeTheSpeakerPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows look ahead no further than their own sound, once the voice is known."""
    monkeypatch.setattr("contracts.speech.VOICE", 50 * 640)
    portrait = np.full((SIDE, SIDE, 3), 90, np.uint8)
    short, long = (pipeline(audio=speech(s), seed=1, steps=2, portrait=portrait).frames for s in (3.0, 4.0))
    assert np.array_equal(short[:40], long[:40])


def test_the_sound_changes_the_picture(pipeline: SeeTheSpeakerPipeline) -> None:
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    loud, silent = (
        pipeline(audio=sound, seed=1, steps=2, portrait=portrait).frames.astype(int)
        for sound in (speech(1.2), np.zeros(19_200, np.float32))
    )
    assert np.abs(loud - silent).max() > 0


def test_a_portrait_of_the_request_is_used(pipeline: SeeTheSpeakerPipeline) -> None:
    portrait = np.zeros((200, 160, 3), np.uint8)
    portrait[..., 0] = 200
    face = pipeline(audio=speech(0.4), seed=1, steps=1, portrait=portrait)
    assert face.portrait is portrait
    red, green = face.frames[..., 0].mean(), face.frames[..., 1].mean()
    assert red - green > 50


def test_the_editor_sees_portraits_that_were_made(pipeline: SeeTheSpeakerPipeline) -> None:
    request = Request(speech(0.4), seed=9, steps=1)
    plain = pipeline.portrait(request)
    pipeline.portrait_editor = lambda picture: 255 - picture
    pipeline._portraits.clear()
    try:
        assert np.array_equal(pipeline.portrait(request), 255 - plain)
    finally:
        pipeline.portrait_editor = leave_as_it_is
        pipeline._portraits.clear()


def test_speech_shorter_than_a_frame_is_refused(pipeline: SeeTheSpeakerPipeline) -> None:
    with pytest.raises(Misuse, match="shorter than one frame"):
        pipeline(audio=np.zeros(100, np.float32), seed=0)


def test_saved_and_loaded_it_renders_the_same(pipeline: SeeTheSpeakerPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    loaded = SeeTheSpeakerPipeline.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    before, after = (p(audio=speech(1.0), seed=4, steps=2) for p in (pipeline, loaded))
    assert np.array_equal(before.frames, after.frames)
    assert np.array_equal(before.portrait, after.portrait)
