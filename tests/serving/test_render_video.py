"""A video and a sound in, the dubbed video out, at the size it came in: through the renderer, with an untrained G4G."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.bundle import Lineage, seal_artifact, write_bundle
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.media import decode, encode_video, probe
from serving.jobs import Job, Refused, Result
from serving.loader import load_pipeline
from serving.provenance import inspect, sidecar_path
from serving.render import Renderer

FACE, NONE = 16, 13
CONSENT = "Eileen Collins, a test"


@pytest.fixture(scope="module")
def dubber(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """Networks of the smallest size, not trained, as a bundle."""
    import torch

    from systems import catalogue

    system, folder = catalogue.get("g4g"), tmp_path_factory.mktemp("g4g")
    models: dict = {}
    parts: dict[str, Path] = {}
    for kind in system.stages:
        torch.manual_seed(0)
        model = kind.preset("tiny", size=52).build_model({name: models[name] for name in kind.needs})  # type: ignore
        if kind.name == "g4g":
            torch.nn.init.constant_(model["generator"].paint.bias, 2.0)  # a white mouth is easily seen
        kind.preset("tiny", size=52).export(model, folder / kind.name)
        models[kind.name] = kind.load(folder / kind.name)
        parents = {name: "f" * 64 for name in kind.needs}
        lineage = Lineage(dataset="d" * 64, selection="e" * 64, parents=parents, code="test", settings={})
        seal_artifact(folder / kind.name, "g4g", kind.name, lineage, {})
        parts[kind.name] = folder / kind.name
    write_bundle(folder / "bundle", "g4g", "tiny", parts)
    return Renderer(*load_pipeline(folder / "bundle"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that drifts, 361 x 300, then a cut to an empty wall."""
    data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(data.astronaut()[:320, 24:424])
    wall = np.tile(np.linspace(40, 90, 362).astype(np.uint8)[None, :, None], (300, 1, 3))
    path = tmp_path_factory.mktemp("video") / "face.mp4"
    frames = [*[image[10:310, t : t + 362] for t in range(FACE)], *[wall] * NONE]
    encode_video(path, frames, 0.1 * np.sin(np.arange((FACE + NONE) * 640) / 9).astype(np.float32))
    return path


def frames_of(path: Path) -> np.ndarray:
    with decode(probe(path), Limits(shortest_s=0.1)) as clip:
        return np.stack(list(clip)).astype(int)


def test_it_is_dubbed_looped_and_marked(
    dubber: Renderer, video: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    """36 frames of speech over a video of 29: its first frames come again."""
    job = Job(audio=speech("a.wav", 36 * 640), video=video, out=tmp_path / "dubbed.mp4", consent=CONSENT)
    seen: list[tuple[int, int]] = []
    (result,) = dubber.render([job], watch=lambda _, done, total: seen.append((done, total)))
    assert isinstance(result, Result), result
    assert result.frames == 36
    assert seen[-1] == (36, 36)
    assert inspect(result.out).state == "fits"
    assert json.loads(sidecar_path(result.out).read_text())["untouched"] == NONE
    assert result.portrait is None
    before, after = frames_of(video), frames_of(result.out)
    assert after.shape == (36, *before.shape[1:])
    change = np.abs(after - before[np.arange(36) % (FACE + NONE)]).mean(-1)
    moved = (change > 60).mean((1, 2))  # the mark and two encodings change no pixel so far
    assert (moved[:FACE] > 0.003).all()
    assert (moved[FACE : FACE + NONE] == 0).all()
    assert (moved[FACE + NONE :] > 0.003).all()
    rows, columns = np.nonzero((change[:FACE] > 60).any(0))
    # the square from the lower lids to below the chin, which is about 110 px wide here and drifts by 15
    assert 75 < rows.min() < rows.max() < 215, "more than the lower face changed"
    assert columns.max() - columns.min() < 150
    (again,) = dubber.render([job])
    assert isinstance(again, Result)
    assert again.reused


def test_what_it_does_not_take_is_refused(
    dubber: Renderer, video: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    asked = {"audio": speech("a.wav", 16_000), "out": tmp_path / "x.mp4", "consent": CONSENT}
    picture = tmp_path / "p.png"
    picture.write_bytes(b"never decoded")
    for given, told in (
        ({}, "dubs a video: give one"),
        ({"video": video, "size": 64}, "keeps the size"),
        ({"video": video, "portrait": picture}, "no portrait"),
        ({"video": asked["audio"]}, "no picture"),
    ):
        (refused,) = dubber.render([Job.read({**asked, **given}, "test")])
        assert isinstance(refused, Refused)
        assert refused.code in (Reason.BAD_MANIFEST, Reason.NO_VIDEO)
        assert told in refused.detail
    (refused,) = dubber.render([Job.read({**asked, "video": video, "consent": None}, "test")])
    assert isinstance(refused, Refused)
    assert refused.code is Reason.NO_CONSENT
