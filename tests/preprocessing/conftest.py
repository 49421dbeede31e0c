"""Media made on the spot: ffmpeg's own signal generators, small arrays, and a real face (public domain) that moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import Site

from preprocessing.media.process import Child, ffmpeg_binary

FACE_FRAMES = 30  # of the clips in ``clip_folder``


@pytest.fixture
def ffmpeg(tmp_path: Path) -> Callable[..., Path]:
    """Run ffmpeg with the given arguments; the last names the file made under ``tmp_path``, which is returned."""

    def run(*arguments: str) -> Path:
        target = tmp_path / arguments[-1]
        argv = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", *arguments[:-1], f"file:{target}"]
        child = Child(argv, memory_mb=4096, cpu_s=60, file_bytes=1 << 30)
        try:
            assert child.wait(60) == 0, child.log
        finally:
            child.kill()
        return target

    return run


@pytest.fixture
def talking(ffmpeg: Callable[..., Path]) -> Callable[..., Path]:
    """A test picture and a tone: ``talking("x.mp4", seconds=2, rate=25, size="128x96", more=[...])``."""

    def make(
        name: str, *, seconds: float = 2, rate: str = "25", size: str = "128x96", more: tuple[str, ...] = ()
    ) -> Path:
        picture = f"testsrc2=size={size}:rate={rate}:duration={seconds}"
        tone = f"sine=frequency=440:sample_rate=44100:duration={seconds}"
        return ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, "-pix_fmt", "yuv420p", *more, name)

    return make


@pytest.fixture
def flash_and_beep(ffmpeg: Callable[..., Path]) -> Callable[..., Path]:
    """White pictures and a 1 kHz beep from ``at`` to ``at`` + 0.4 s of a 2 s clip, black and silent elsewhere."""

    def make(name: str, *, rate: str, at: float = 1.0, more: tuple[str, ...] = ()) -> Path:
        picture = (
            f"color=black:size=64x64:rate={rate}:duration=2,"
            f"drawbox=color=white:t=fill:enable='between(t,{at}-1e-4,{at}+0.4)'"
        )
        beep = f"aevalsrc='0.5*sin(2*PI*1000*t)*between(t,{at},{at}+0.4)':sample_rate=48000:duration=2"
        return ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", beep, "-pix_fmt", "yuv420p", *more, name)

    return make


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Blocky pictures that move, uint8 [n, height, width, 3]."""

    def make(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        still = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
        return np.stack([np.roll(still, 2 * i, axis=1) for i in range(n)])

    return make


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """uint8 RGB [400, 400, 3]: one face about 110 px wide, from scikit-image's wheel."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:400, 24:424])


@pytest.fixture(scope="session")
def moving(portrait: np.ndarray) -> Callable[[int], Iterator[np.ndarray]]:
    """The portrait, swaying and nodding: ``moving(n)`` yields n frames uint8 RGB [400, 400, 3]."""
    import cv2

    def frames(count: int) -> Iterator[np.ndarray]:
        for t in range(count):
            turn = cv2.getRotationMatrix2D((200, 120), 8 * np.sin(t / 6), 1 + 0.05 * np.sin(t / 9))
            turn[:, 2] += (10 * np.sin(t / 7), 5 * np.cos(t / 5))
            yield cv2.warpAffine(portrait, turn, (400, 400), borderMode=cv2.BORDER_REFLECT)

    return frames


@pytest.fixture(scope="session")
def clip_folder(
    tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray, moving: Callable[[int], Iterator[np.ndarray]]
) -> Path:
    """``talk.mp4`` (one face), ``two.mp4`` (the same face twice), ``wall.mp4`` (none), ``face.png``, ``speech.wav``."""
    import cv2

    from contracts.sample import encode_wav
    from preprocessing.media import encode_video

    t = np.arange(640 * FACE_FRAMES) / 16000
    speech = 0.3 * np.sin(2 * np.pi * 180 * t) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
    speech = speech.astype(np.float32)
    folder = tmp_path_factory.mktemp("clips")
    encode_video(folder / "talk.mp4", moving(FACE_FRAMES), speech)
    twice = (np.concatenate([frame, frame[:, ::-1]], axis=1) for frame in moving(FACE_FRAMES))
    encode_video(folder / "two.mp4", twice, speech)
    wall = np.full((240, 320, 3), 128, np.uint8)
    wall[::16] = 60
    encode_video(folder / "wall.mp4", (wall for _ in range(FACE_FRAMES)), speech)
    cv2.imwrite(str(folder / "face.png"), portrait[..., ::-1])
    (folder / "speech.wav").write_bytes(encode_wav((speech * 32767).astype(np.int16)))
    return folder


@pytest.fixture
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies of a test lie under its own folder; no waiting between tries."""
    from preprocessing import copies, sources

    monkeypatch.setattr(copies, "_base", lambda: tmp_path / "copies")
    copies._own.cache_clear()
    monkeypatch.setattr(sources, "WAIT_S", 0.001)
    yield
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.is_file() and path.name != copies.HELD]


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty store in this process."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    """Start web servers with the given answers; all of them end with the test."""
    made: list[Site] = []

    def start(answers: dict[str, Any] | None = None) -> Site:
        server = Site(answers or {})
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.shutdown()
        server.server_close()
