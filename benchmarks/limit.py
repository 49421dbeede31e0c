"""What ingestion is held against: one decode, one pass of the mesh over each frame, one encode, and nothing else.

**The limit** is what one would write in a few lines: every picture at 25 per second, as RGB at the source's size, goes
to ``FaceMesh.process`` as it comes, which searches and cuts the face out by itself; what ingestion stores is encoded
once, at its side and quality. It cannot know which clips will be refused: their pictures pass the mesh, too. A large
picture costs the mesh more (it is copied inside: 1080p about 1.5 ms); one in which it sees no face costs less.

**The strict limit** has the crops beforehand: the mesh sees only the frames that ingestion stores, cut out and made
small for nothing. No program can reach it, for where the face is has to be found first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.meter import cpu_seconds
from contracts.sample import FPS, Frames
from preprocessing.landmarks import MESH_SIDE, quiet
from preprocessing.media.process import ffmpeg_binary


@dataclass
class Limit:
    """Processor seconds of each of the three, for one file."""

    piped: float  # decode by ffmpeg into a pipe
    bound: float  # decode by PyAV in this process
    mesh: float  # over every picture, at the source's size
    small: float  # over the stored frames alone, from crops prepared for nothing
    encode: float

    @property
    def decode(self) -> float:
        """Whichever is cheaper."""
        return min(self.piped, self.bound)

    @property
    def seconds(self) -> float:
        """The limit."""
        return self.decode + self.mesh + self.encode

    @property
    def strict(self) -> float:
        """The strict limit."""
        return self.decode + self.small + self.encode

    def least(self, other: Limit) -> Limit:
        """Of two measurements, the smaller of each."""
        return Limit(*(min(a, b) for a, b in zip(vars(self).values(), vars(other).values())))


class LimitBench:
    """Measures the limit of one file after another; the mesh is loaded once."""

    def __init__(self) -> None:
        with quiet():
            import mediapipe

            self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=False, max_num_faces=1, refine_landmarks=True
            )
            self._mesh.process(np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8))

    def measure(self, path: Path, samples: list[bytes], quality: int) -> Limit:
        """The limit of ``path``, from which the ``.frames`` members ``samples`` were made at JPEG ``quality``.

        Frames the ingestion kept none of are not encoded, and the strict limit's mesh does not see them.
        """
        piped = _spent(lambda: decode_piped(path))
        bound = _spent(lambda: decode_bound(path, lambda _: None))
        mesh = small = encode = 0.0

        def see(picture: np.ndarray) -> None:
            nonlocal mesh
            before = cpu_seconds()
            self._mesh.process(picture)
            mesh += cpu_seconds() - before

        self._begin(MESH_SIDE)
        decode_bound(path, see)
        for sample in samples:
            stored = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in Frames(sample)]
            side = (MESH_SIDE, MESH_SIDE)
            regions = [
                cv2.cvtColor(cv2.resize(c, side, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB) for c in stored
            ]
            self._begin(MESH_SIDE)
            small += _spent(lambda: [self._mesh.process(region) for region in regions])  # noqa: B023 (called at once)
            how = [cv2.IMWRITE_JPEG_QUALITY, quality]
            encode += _spent(lambda: [cv2.imencode(".jpg", crop, how) for crop in stored])  # noqa: B023
        return Limit(piped, bound, mesh, small, encode)

    def _begin(self, side: int) -> None:
        with quiet():
            self._mesh.reset()
            self._mesh.process(np.zeros((side, side, 3), np.uint8))


def decode_piped(path: Path) -> int:
    """Every picture at 25 per second as RGB at the source's size, through a pipe; how many there were."""
    width, height = _size(path)
    argv = [
        ffmpeg_binary(),
        "-nostdin",
        "-v",
        "error",
        "-threads",
        "1",
        "-filter_complex_threads",
        "1",
        "-i",
        str(path),
    ]
    argv += ["-map", "0:v:0", "-vf", f"fps={FPS}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-threads", "1", "pipe:1"]
    frame = bytearray(width * height * 3)
    count = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        rest = memoryview(frame)
        while size := child.stdout.readinto(rest):  # type: ignore[attr-defined]
            rest = rest[size:]
            if not rest:
                rest = memoryview(frame)
                count += 1
    return count


def decode_bound(path: Path, see: Callable[[np.ndarray], None]) -> int:
    """The same by PyAV, each given to ``see``: what 25 per second do not show is decoded, and never turned into RGB."""
    given = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        reformatter = av.video.reformatter.VideoReformatter()
        start: float | None = None
        picture: np.ndarray | None = None
        for frame in container.decode(stream):
            time = frame.time or 0.0
            start = time if start is None else start
            due = round((time - start) * FPS) + 1  # frames that begin up to now
            if due > given or picture is None:
                picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
                for _ in range(max(due - given, 1)):
                    see(picture)
                given = max(due, given)
    return given


def _size(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def _spent(call: object) -> float:
    before = cpu_seconds()
    call()  # type: ignore[operator]
    return cpu_seconds() - before
