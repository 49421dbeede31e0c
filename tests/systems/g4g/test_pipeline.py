"""The pipeline over an untrained generator: what it promises holds whatever was learnt."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import build
from torch import nn

from contracts.errors import Misuse
from systems.base import Faces, Request
from systems.g4g import SYSTEM
from systems.g4g.dubbing import G4GStage
from systems.g4g.pipeline import G4GPipeline
from systems.g4g.sync_expert import SyncExpertStage

SIDE = 52


@pytest.fixture(scope="module")
def pipeline() -> G4GPipeline:
    parents = {"sync_expert": build(SyncExpertStage.preset("tiny"), {}, [])}
    model = build(G4GStage.preset("tiny", size=SIDE), parents, [])
    with torch.no_grad():  # an untrained decoder paints next to nothing, and hears nothing
        nn.init.normal_(model["generator"].paint.weight, std=0.3)
        nn.init.normal_(model["generator"].coefficients.out.weight, std=0.3)
    return G4GPipeline.from_stages({"g4g": model.eval(), **parents})


def video(seed: int = 0, parts: tuple[int, ...] = (3, 4), references: np.ndarray | None = None) -> Iterator[Faces]:
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    landmarks = rng.uniform(0.2, 0.8, (5, 478, 2)).astype(np.float32)
    first = 0
    for count in parts:
        crops = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        yield Faces(first, crops, shown if references is None else references, landmarks)
        first += count + 1  # a frame without a face between


def speech(seed: int = 0, frames: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, 640 * frames).astype(np.float32)


def dub(pipeline: G4GPipeline, *requests: Request) -> list[list[tuple[int, np.ndarray]]]:
    out: list[list[tuple[int, np.ndarray]]] = [[] for _ in requests]
    for chunk in pipeline.stream(requests):
        out[chunk.request].append((chunk.first, chunk.frames))
    return out


def test_it_asks_for_what_it_needs(pipeline: G4GPipeline) -> None:
    assert pipeline.crop_side == SIDE
    assert pipeline.references == 5
    assert SYSTEM.inputs == {"audio", "video"}


def test_a_chunk_for_each_part_with_the_crop_s_own_pixels_outside_of_the_mask(pipeline: G4GPipeline) -> None:
    given = list(video())
    (chunk, other) = list(pipeline.stream([Request(speech(), 0, video=video())]))
    assert [(chunk.first, len(chunk.frames)), (other.first, len(other.frames))] == [(0, 3), (4, 4)]
    assert chunk.frames.dtype == np.uint8
    assert chunk.mask is not None
    assert chunk.mask.shape == (SIDE, SIDE)
    assert np.array_equal(chunk.frames[:, chunk.mask == 0], given[0].crops[:, chunk.mask == 0])
    assert not np.array_equal(chunk.frames, given[0].crops)
    assert (chunk.mask[:, :6] == 0).all(), "the crop's rim is no part of the face"


def test_two_requests_together_are_two_alone(pipeline: G4GPipeline) -> None:
    requests = [(speech(1), 1, (2, 3)), (speech(2), 2, (4,))]
    together = dub(pipeline, *[Request(a, 0, video=video(s, parts)) for a, s, parts in requests])
    for (audio, seed, parts), mine in zip(requests, together, strict=True):
        (alone,) = dub(pipeline, Request(audio, 0, video=video(seed, parts)))
        assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(alone, mine, strict=True))


def test_only_the_sound_near_a_frame_is_heard(pipeline: G4GPipeline) -> None:
    """The windows are of five frames, and frames are numbered as the source's are."""
    before, changed = speech(), speech()
    changed[640 * 8 :] = 0.0
    one, other = (dub(pipeline, Request(audio, 0, video=video()))[0] for audio in (before, changed))
    assert np.array_equal(one[0][1], other[0][1])  # frames 0 to 2
    assert np.array_equal(one[1][1][0], other[1][1][0])  # frame 4
    assert not np.array_equal(one[1][1][3], other[1][1][3])  # frame 7


def test_without_a_video_it_is_misuse(pipeline: G4GPipeline) -> None:
    with pytest.raises(Misuse, match="dubs a video"):
        list(pipeline.stream([Request(speech(), 0)]))


def test_saved_and_loaded_it_dubs_the_same(pipeline: G4GPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    loaded = G4GPipeline.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    one, other = (dub(each, Request(speech(), 0, video=video()))[0] for each in (pipeline, loaded))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True))
