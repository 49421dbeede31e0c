"""Every hostile file, made on the spot: ffmpeg's signal generators, one invented speaker, and edited bytes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from preprocessing.media.process import ffmpeg_binary

WORDS = "My good old friend, how are you doing today? We were all so very glad to see you again."
SIDE = 256  # px of the speaker's clip; the face in it is about 100 px wide


class Factory:
    """Files in ``root``, all different for different seeds. ``speaker`` is a clip of one person who talks."""

    def __init__(self, root: Path, speaker: Path, seed: int = 0) -> None:
        self.root, self.speaker, self.seed = root, speaker, seed
        self.rng = np.random.default_rng(seed)
        self._number = 0

    def fresh(self, suffix: str) -> str:
        """A name that is not taken yet."""
        self._number += 1
        return f"f{self._number:03d}{suffix}"

    def ffmpeg(self, *arguments: str, name: str, stdin: bytes | None = None) -> str:
        """Run ffmpeg; it writes ``name`` under the root, which is returned."""
        argv = [ffmpeg_binary(), *(() if stdin else ("-nostdin",)), "-v", "error", "-y", "-threads", "1", *arguments]
        done = subprocess.run([*argv, f"file:{self.root / name}"], input=stdin, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.decode(errors='replace')[-400:]}")
        return name

    def talking(
        self, name: str = "", *more: str, seconds: float = 1, rate: str = "25", size: str = "96x64", tone: int = 440
    ) -> str:
        """ffmpeg's moving test picture, in a colour of the seed's, and a tone."""
        picture = f"testsrc2=size={size}:rate={rate}:duration={seconds},hue=h={(53 * self.seed + self._number) % 360}"
        sound = f"sine=frequency={tone + self.seed}:sample_rate=44100:duration={seconds}"
        inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-pix_fmt", "yuv420p")
        return self.ffmpeg(*inputs, *more, name=name or self.fresh(".mp4"))

    def face(self, *more: str, name: str = "", source: Path | None = None) -> str:
        """The speaker's clip, changed by ffmpeg's arguments ``more``."""
        return self.ffmpeg("-i", str(source or self.speaker), *more, name=name or self.fresh(".mp4"))

    def pictures(self, frames: np.ndarray, *more: str, name: str, rate: float = 25) -> str:
        """uint8 RGB frames [n, H, W, 3] and a tone, coded as ``more`` says."""
        count, height, width, _ = frames.shape
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0")
        sound = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=16000:duration={count / rate}")
        return self.ffmpeg(*raw, *sound, "-c:a", "pcm_s16le", *more, name=name, stdin=frames.tobytes())

    def voice(self, name: str = "", seconds: float = 0.6) -> str:
        """A sound file of noise, no two alike: the cheapest row there is."""
        name = name or self.fresh(".wav")
        noise = self.rng.integers(-3000, 3000, round(16000 * seconds)).astype("<i2")
        with wave.open(str(self.root / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(noise.tobytes())
        return name

    def bytes_(self, data: bytes, suffix: str = ".mp4", name: str = "") -> str:
        """A file of exactly these bytes."""
        name = name or self.fresh(suffix)
        (self.root / name).write_bytes(data)
        return name

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


def make_speaker(path: Path) -> None:
    """A person of the demo corpus says a sentence: MP4, 25 frames/s, about 5 s."""
    from preprocessing.demo import scene
    from preprocessing.demo.cast import cast

    person = cast(2, 0)[0]
    scene.write_clip(partial(scene.performer, person, 0), person, WORDS, (0, 0, 0), 25.0, SIDE, path)


class Listener:
    """A server on 127.0.0.1 that nobody should ever talk to. ``heard`` counts connections."""

    def __init__(self) -> None:
        self.heard = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.heard += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening() -> Iterator[Listener]:
    listener = Listener()
    try:
        # it does hear: without this a count of 0 would say nothing
        socket.create_connection(("127.0.0.1", listener.port)).close()
        for _ in range(1000):
            if listener.heard:
                break
            threading.Event().wait(0.005)
        assert listener.heard == 1
        listener.heard = 0
        yield listener
    finally:
        listener.close()


def without_network(module: str, *arguments: str) -> dict[str, object] | None:
    """What ``python -m MODULE`` prints as JSON in a namespace without network; ``None`` where there can be none."""
    import sys

    if not shutil.which("unshare"):
        return None
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        return None
    argv = ["unshare", "-rn", sys.executable, "-m", module, *arguments]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    done = subprocess.run(argv, capture_output=True, check=False, env=environment, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-800:])
    found: dict[str, object] = json.loads(done.stdout)
    return found
