"""Speech in, marked video out: frame counts, batches, refusals one by one, the same job twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Misuse, Transient
from contracts.limits import Limits
from contracts.reasons import FailureCode, Reason
from preprocessing.media import decode, decode_sound, probe
from serving import render as module
from serving.jobs import Job, Refused, Result
from serving.loader import load_pipeline
from serving.provenance import inspect
from serving.render import Renderer, resize


@pytest.fixture(scope="module")
def renderer(bundle: Path) -> Renderer:
    return Renderer(*load_pipeline(bundle))


def frames_of(path: Path) -> np.ndarray:
    with decode(probe(path), Limits(shortest_s=0.1)) as clip:
        return np.stack(list(clip))


def test_a_video_with_the_sound_of_the_input(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    sound = speech("talk it's -i.wav", 48_000 * 2, rate=48_000, channels=2)
    seen: list[tuple[int, int, str]] = []
    (result,) = renderer.render(
        [Job(audio=sound, out=tmp_path / "deep" / "talk.mp4", seed=5)], lambda *p: seen.append(p)
    )
    assert isinstance(result, Result)
    assert not result.reused
    assert seen[-1] == (50, 50, "talk.mp4")
    found = probe(result.out, Limits())
    assert found.video is not None
    assert found.audio is not None
    assert (found.video.codec, found.audio.codec, found.fps) == ("h264", "aac", 25.0)
    assert found.video.packets - found.video.discarded == result.frames == 50
    heard, given = decode_sound(result.out, Limits()), decode_sound(sound, Limits())
    length = min(len(heard), len(given))
    assert abs(len(heard) - len(given)) <= 1600
    assert np.corrcoef(heard[:length], given[:length])[0, 1] > 0.99
    assert result.portrait is not None
    assert result.portrait.name == "talk.portrait.png"
    assert inspect(result.out).state == "fits"
    assert {path.name for path in result.out.parent.iterdir()} == {"talk.mp4", "talk.mp4.json", "talk.portrait.png"}
    assert b"trainedAlgorithmicMedia" in result.out.read_bytes()  # the comment tag says it too


def test_the_mouth_moves_with_the_sound(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    (result,) = renderer.render([Job(audio=speech("a.wav", 32_000), out=tmp_path / "a.mp4", size=64)])
    frames = frames_of(result.out).astype(float)
    assert frames.shape == (50, 64, 64, 3)
    mouth = frames[:, 34:62, 24:40].mean((1, 2, 3))
    energy = np.sqrt((decode_sound(tmp_path / "a.wav", Limits()).reshape(50, 640) ** 2).mean(1))
    assert np.corrcoef(mouth, energy)[0, 1] < -0.9  # an open mouth is dark


@pytest.mark.parametrize("samples", [8_000, 15_999, 16_001, 16_319, 16_321, 20_480, 23_457])
def test_frames_are_25_per_second(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, samples: int
) -> None:
    (result,) = renderer.render([Job(audio=speech("a.wav", samples), out=tmp_path / "a.mp4")])
    assert isinstance(result, Result)
    assert result.frames == round(25 * samples / 16_000) == len(frames_of(result.out))
    assert result.seconds == samples / 16_000


def test_a_bad_job_is_refused_alone(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound at all")
    jobs = [
        Job(audio=speech("one.wav", 16_000), out=tmp_path / "one.mp4"),
        Job(audio=tmp_path / "text.wav", out=tmp_path / "text.mp4"),
        Job(audio=tmp_path / "none.wav", out=tmp_path / "none.mp4"),
        Job(audio=speech("short.wav", 4_000), out=tmp_path / "short.mp4"),
        Job(audio=speech("loud.wav", 16_000, peak=1.0), out=tmp_path / "loud.mp4"),  # the toy fails on it
        Job(audio=speech("two.wav", 24_000), out=tmp_path / "two.mp4", seed=2),
        Job(audio=speech("face.wav", 24_000), out=tmp_path / "face.mp4", portrait=tmp_path / "p.png"),
    ]
    outcomes = Renderer(renderer.pipeline, renderer.bundle, batch=len(jobs)).render(jobs)
    assert [outcome.out.name for outcome in outcomes] == [job.out.name for job in jobs]
    codes = {outcome.out.stem: outcome.code for outcome in outcomes if isinstance(outcome, Refused)}
    assert codes == {
        "text": Reason.BAD_CONTAINER,
        "none": Reason.MISSING_FILE,
        "short": Reason.TOO_SHORT,
        "loud": FailureCode.INTERNAL,
        "face": Reason.NO_CONSENT,
    }
    assert all("text.wav" in o.detail for o in outcomes if o.out.stem == "text" and isinstance(o, Refused))
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["one.mp4", "two.mp4"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_sound_beyond_the_limit(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    strict = Renderer(renderer.pipeline, renderer.bundle, limits=renderer.limits.model_copy(update={"duration_s": 1.0}))
    (outcome,) = strict.render([Job(audio=speech("a.wav", 32_000), out=tmp_path / "a.mp4")])
    assert isinstance(outcome, Refused)
    assert outcome.code is Reason.TOO_LONG


def test_a_batch_equals_its_members(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, unsigned: Callable[[Path], bytes]
) -> None:
    sounds = [speech(f"{n}.wav", n) for n in (9_000, 24_000, 16_001)]
    together = renderer.render([Job(audio=s, out=tmp_path / f"t{i}.mp4", seed=i) for i, s in enumerate(sounds)])
    alone = [renderer.render([Job(audio=s, out=tmp_path / f"a{i}.mp4", seed=i)])[0] for i, s in enumerate(sounds)]
    for one, other in zip(together, alone, strict=True):
        assert unsigned(one.out) == unsigned(other.out)
        assert one.job == other.job


@pytest.fixture
def streams(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each call of the pipeline got."""
    calls: list[int] = []
    original = renderer.pipeline.stream

    def counted(requests: list) -> object:
        calls.append(len(requests))
        return original(requests)

    monkeypatch.setattr(renderer.pipeline, "stream", counted)
    return calls


def test_the_same_job_twice_is_one_execution(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, streams: list[int]
) -> None:
    sound = speech("a.wav", 16_000)
    job, elsewhere = Job(audio=sound, out=tmp_path / "a.mp4"), Job(audio=sound, out=tmp_path / "b.mp4")
    first, again, other = renderer.render([job, job, elsewhere])
    assert streams == [1]
    assert first == again
    assert other.out.read_bytes() == first.out.read_bytes()
    assert other.sidecar.read_bytes() == first.sidecar.read_bytes()
    assert inspect(other.out).state == "fits"

    stamp = first.out.stat().st_mtime_ns
    (later,) = renderer.render([job])
    assert streams == [1]
    assert later == first.model_copy(update={"reused": True})
    assert first.out.stat().st_mtime_ns == stamp


def test_what_does_not_fit_is_rendered_again(
    renderer: Renderer,
    speech: Callable[..., Path],
    tmp_path: Path,
    streams: list[int],
    unsigned: Callable[[Path], bytes],
) -> None:
    job = Job(audio=speech("a.wav", 16_000), out=tmp_path / "a.mp4")
    (first,) = renderer.render([job])
    whole = unsigned(first.out)
    first.out.write_bytes(first.out.read_bytes()[:-1])
    (second,) = renderer.render([job])
    assert second.job == first.job
    assert not second.reused
    assert unsigned(first.out) == whole
    first.sidecar.unlink()
    assert renderer.render([job])[0].job == first.job
    assert renderer.render([job.model_copy(update={"seed": 1})])[0].video != first.video
    assert streams == [1, 1, 1, 1]
    assert json.loads(first.sidecar.read_text())["inputs"]["seed"] == 1


def test_two_jobs_for_one_place(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    sound = speech("a.wav", 16_000)
    with pytest.raises(Misuse, match="two different jobs"):
        renderer.render([Job(audio=sound, out=tmp_path / "a.mp4", seed=seed) for seed in (1, 2)])


def test_a_sound_that_changes_meanwhile(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = speech("a.wav", 16_000)
    original = renderer.pipeline.portrait

    def change(request: object) -> object:
        speech("a.wav", 16_000, peak=0.2)
        return original(request)

    monkeypatch.setattr(renderer.pipeline, "portrait", change)
    (outcome,) = renderer.render([Job(audio=sound, out=tmp_path / "a.mp4")])
    assert isinstance(outcome, Refused)
    assert outcome.code is Reason.HASH_MISMATCH
    assert not (tmp_path / "a.mp4").exists()


def test_a_full_disk_ends_the_run(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "publish", full)
    with pytest.raises(Transient, match="NO_SPACE"):
        renderer.render([Job(audio=speech("a.wav", 16_000), out=tmp_path / "a.mp4")])
    assert not list(tmp_path.glob("*.mp4*"))
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_pipeline_that_gives_too_few_frames(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = renderer.pipeline.stream
    monkeypatch.setattr(renderer.pipeline, "stream", lambda requests: iter(list(original(requests))[:-1]))
    (outcome,) = renderer.render([Job(audio=speech("a.wav", 16_000), out=tmp_path / "a.mp4")])
    assert isinstance(outcome, Refused)
    assert outcome.code is FailureCode.INTERNAL
    assert "20 frames, 25 were asked for" in outcome.detail
    assert not (tmp_path / "a.mp4").exists()


def test_memory_is_flat_in_the_length(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    import ctypes

    import psutil

    # glibc raises this limit by itself and then keeps what was freed: the plateau is level but 150 MB higher
    ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD
    process = psutil.Process()

    def peak_mb(seconds: int) -> float:
        name, seen = f"{seconds}s", [0.0]
        job = Job(audio=speech(f"{name}.wav", 16_000 * seconds), out=tmp_path / f"{name}.mp4", size=384)
        (result,) = renderer.render([job], lambda *_: seen.append(process.memory_info().rss / 2**20))
        assert result.frames == 25 * seconds
        return max(seen)

    before = peak_mb(4)
    assert peak_mb(30) - before < 60  # its pixels are 332 MB


def test_resize() -> None:
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[:, :, 4:] = 200
    assert resize(frames, None) is frames
    assert resize(frames, 8) is frames
    large = resize(frames, 16)
    assert large.shape == (2, 16, 16, 3)
    assert (large[:, :, :5] <= 2).all()
    assert (abs(large[:, :, 11:].astype(int) - 200) <= 4).all()


@pytest.fixture
def astronaut(tmp_path: Path) -> Path:
    """A portrait in the public domain, as a file."""
    from PIL import Image
    from skimage import data

    path = tmp_path / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def test_a_portrait_with_consent_is_animated(
    renderer: Renderer, speech: Callable[..., Path], astronaut: Path, tmp_path: Path
) -> None:
    from PIL import Image

    from contracts.files import sha256_file

    job = Job(
        audio=speech("a.wav", 16_000),
        out=tmp_path / "a.mp4",
        portrait=astronaut,
        consent="Eileen Collins (picture by NASA), a test of this software",
    )
    (result,) = renderer.render([job])
    assert isinstance(result, Result)
    sidecar = inspect(result.out).sidecar
    assert sidecar is not None
    assert sidecar.inputs.consent is not None
    assert sidecar.inputs.consent.who.startswith("Eileen Collins")
    assert sidecar.inputs.portrait == sha256_file(astronaut)
    assert result.portrait is not None
    picture = np.asarray(Image.open(result.portrait)).astype(float)
    assert picture.std() > 30  # a face, not the toy's plain canvas
    first = frames_of(result.out)[0].astype(float)
    assert np.abs(first[:16] - picture[:16]).mean() < 25  # the upper half is the portrait's


def test_portraits_that_cannot_be_used(renderer: Renderer, speech: Callable[..., Path], tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "gray").save(tmp_path / "nobody.png")
    Image.new("1", (9_000, 9_000)).save(tmp_path / "huge.png")
    (tmp_path / "text.png").write_text("no picture")
    sound = speech("a.wav", 16_000)
    jobs = [
        Job(audio=sound, out=tmp_path / f"{name}.mp4", portrait=tmp_path / f"{name}.png", consent="nobody, a test")
        for name in ("nobody", "huge", "text")
    ]
    outcomes = renderer.render(jobs)
    assert [outcome.code for outcome in outcomes] == [Reason.NO_FACE, Reason.TOO_MANY_PIXELS, Reason.BAD_CONTAINER]
    assert all(f"{job.portrait}: " in outcome.detail for job, outcome in zip(jobs, outcomes, strict=True))


def test_sound_that_starts_late_keeps_its_place(
    renderer: Renderer, speech: Callable[..., Path], tmp_path: Path
) -> None:
    """A video's sound track may start after its pictures; the result starts with the sound."""
    import subprocess

    import imageio_ffmpeg

    path = tmp_path / "late.mp4"
    source = ["-f", "lavfi", "-i", "color=c=gray:s=64x64:r=25:d=3", "-itsoffset", "0.8", "-i"]
    tail = ["-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-c:a", "aac"]
    sound = speech("a.wav", 32_000)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source, str(sound), *tail, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    (result,) = renderer.render([Job(audio=path, out=tmp_path / "a.mp4")])
    assert isinstance(result, Result)
    heard, given = decode_sound(result.out), decode_sound(path)
    length = min(len(heard), len(given))
    assert np.corrcoef(heard[:length], given[:length])[0, 1] > 0.99
