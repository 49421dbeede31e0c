"""Write a video: frames stream into ffmpeg, equal inputs give equal bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import Transient
from contracts.files import TEMPORARY
from contracts.sample import SAMPLE_RATE
from preprocessing.media.probe import FORMATS
from preprocessing.media.process import Child, ffmpeg_binary

MEMORY_MB = 3072
CPU_S = 24 * 3600.0  # a long speech at full size
FILE_BYTES = 16 * 1024**3
END_S = 120.0  # that ffmpeg may take no data, or, after the last, to end
# one filter thread: more could give other bytes
GLOBAL = "-hide_banner -nostats -loglevel warning -xerror -filter_complex_threads 1".split()  # noqa: SIM905
BITEXACT = {"map_metadata": -1, "flags:v": "+bitexact", "flags:a": "+bitexact", "fflags": "+bitexact"}


def encode_video(
    path: Path,
    frames: Iterable[np.ndarray],
    audio: np.ndarray | Path,
    *,
    fps: float = 25,
    crf: int = 18,
    comment: str = "",
) -> None:
    """Write ``frames`` (uint8 RGB [H, W, 3], one after another) and ``audio`` to ``path`` as MP4 (H.264, AAC).

    ``audio`` is float32 [N] at 16 kHz in -1..1, or a sound file; it is cut, or padded with silence, to the length of
    the pictures. Odd widths and heights grow by one: their last column or row is repeated (4:2:0 needs even ones).
    Memory does not grow with the length. ``path`` itself is written: the caller commits it.
    ``comment`` becomes the file's own comment tag.

    Raises ``ValueError`` for frames of another shape or type or none at all, ``Transient`` where the disk is full,
    ``RuntimeError`` with ffmpeg's words otherwise; nothing is left at ``path`` then, nor where ``frames`` raises.
    """
    samples = None if isinstance(audio, Path) else np.ascontiguousarray(audio, dtype=np.float32)
    if samples is not None and (samples.ndim != 1 or not np.isfinite(samples).all()):
        raise ValueError("audio must be finite float32 [N]")
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    silent = path.with_name(f"{TEMPORARY}{path.name}.pictures.mp4")
    try:
        # pictures first, then the sound: only once they have ended is it known how long it must be
        pictures = _even(itertools.chain([first], stream))
        count = _run(path, _pictures_argv(silent, first.shape, fps, crf), pictures)
        sound = iter([samples if samples.size else np.zeros(1, np.float32)]) if samples is not None else iter(())
        _run(path, _sound_argv(path, silent, None if samples is not None else audio, count / fps, comment), sound)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        silent.unlink(missing_ok=True)


def _even(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, checked, with an even number of rows and columns."""
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.shape != shape or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frames must all be uint8 [H, W, 3] of one size, got {frame.dtype} {frame.shape}")
        rows, columns = shape[0] % 2, shape[1] % 2
        odd = rows or columns
        yield np.pad(frame, [(0, rows), (0, columns), (0, 0)], mode="edge") if odd else np.ascontiguousarray(frame)


def _run(path: Path, argv: list[str], arrays: Iterator[np.ndarray]) -> int:
    """Run ffmpeg on ``arrays``, byte after byte; return how many there were."""
    child = Child(argv, memory_mb=MEMORY_MB, cpu_s=CPU_S, file_bytes=FILE_BYTES, stdin=subprocess.PIPE)
    count = 0
    try:
        stdin = child.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ffmpeg has had enough, or failed: its status says which
            for array in arrays:
                _write(stdin.fileno(), array)
                count += 1
        stdin.close()
        status = child.wait(END_S)
        if status == 0:
            return count
        if "No space left" in child.log or "Disk quota" in child.log:
            raise Transient(f"NO_SPACE: {path.parent}: free some space, then run the same command again")
        ended = f"ended with status {status}" if status is not None else f"did not end within {END_S:g} s"
        raise RuntimeError(f"{path}: ffmpeg {ended}: {child.log.strip()[-400:]}")
    finally:
        child.kill()


def _write(pipe: int, array: np.ndarray) -> None:
    """All bytes of ``array``; raises ``RuntimeError`` where the reader hangs."""
    os.set_blocking(pipe, False)
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    rest = array.data.cast("B")
    while rest:
        if not poll.poll(END_S * 1000):
            raise RuntimeError(f"ffmpeg took no data for {END_S:g} s")
        rest = rest[os.write(pipe, rest) :]


def _pictures_argv(silent: Path, shape: tuple[int, ...], fps: float, crf: int) -> list[str]:
    import ffmpeg

    size = (shape[1] + shape[1] % 2, shape[0] + shape[0] % 2)
    source = ffmpeg.input("pipe:0", format="rawvideo", pixel_format="rgb24", video_size=size, framerate=fps)
    # the matrix that the file names, so that players and decode() give the colours back
    pictures = source["v:0"].filter("scale", out_color_matrix="bt709", out_range="tv").filter("format", "yuv420p")
    named = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709"}
    x264 = {"vcodec": "libx264", "preset": "veryfast", "crf": crf, "threads": 1}  # more threads, other bytes
    return _compile(ffmpeg.output(pictures, f"file:{silent}", format="mp4", **x264, **named, **BITEXACT))


def _sound_argv(path: Path, silent: Path, file: Path | np.ndarray | None, seconds: float, comment: str) -> list[str]:
    import ffmpeg

    pictures = ffmpeg.input(f"file:{silent}")["v:0"]
    if file is None:
        source = ffmpeg.input("pipe:0", format="f32le", sample_rate=SAMPLE_RATE, ch_layout="mono")
    else:
        source = ffmpeg.input(f"file:{file}", protocol_whitelist="file", format_whitelist=FORMATS)
    # a track that starts late in its container starts with the pictures here, as decode_sound() reads it
    sound = source["a:0"].filter("asetpts", "PTS-STARTPTS").filter("apad").filter("atrim", end=f"{seconds:.6f}")
    aac = {"acodec": "aac", "audio_bitrate": "128k"}
    kept: dict[str, Any] = {"vcodec": "copy", "movflags": "+faststart", **aac, **BITEXACT}
    if comment:
        kept["metadata"] = f"comment={comment}"
    return _compile(ffmpeg.output(pictures, sound, f"file:{path}", format="mp4", **kept))


def _compile(output: Any) -> list[str]:
    import ffmpeg

    return list(ffmpeg.compile(output.global_args(*GLOBAL), cmd=ffmpeg_binary(), overwrite_output=True))
