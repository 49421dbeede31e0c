"""Write a video: frames stream into ffmpeg, equal inputs give equal bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from contracts.errors import Transient
from contracts.sample import SAMPLE_RATE
from preprocessing.media.probe import FORMATS
from preprocessing.media.process import Child, ffmpeg_binary

MEMORY_MB = 3072
CPU_S = 24 * 3600.0  # a long speech at full size; a hang shows as no progress to whoever feeds the frames
FILE_BYTES = 16 * 1024**3
END_S = 120.0  # after the last frame, to flush and to move the index to the front


def encode_video(
    path: Path, frames: Iterable[np.ndarray], audio: np.ndarray | Path, *, fps: int = 25, crf: int = 18
) -> None:
    """Write ``frames`` (uint8 RGB [H, W, 3], one after another) and ``audio`` to ``path`` as MP4 (H.264, AAC).

    ``audio`` is float32 [N] at 16 kHz in -1..1, or a sound file; it is cut, or padded with silence, to the length of
    the pictures. Odd widths and heights grow by one: their last column or row is repeated (4:2:0 needs even ones).
    Memory does not grow with the length. ``path`` itself is written: the caller commits it.

    Raises ``ValueError`` for frames of another shape or type or none at all, ``Transient`` where the disk is full,
    ``RuntimeError`` with ffmpeg's words otherwise; nothing is left at ``path`` then, nor where ``frames`` raises.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    height, width = _checked(first, first.shape).shape[:2]
    samples = None if isinstance(audio, Path) else np.ascontiguousarray(audio, dtype=np.float32)
    if samples is not None and (samples.ndim != 1 or not np.isfinite(samples).all()):
        raise ValueError("audio must be finite float32 [N]")
    if samples is not None and not samples.size:
        samples = np.zeros(1, np.float32)  # ffmpeg pads sound, but not the lack of it
    sound_out, sound_in = os.pipe()
    try:
        argv = _argv(path, (width + width % 2, height + height % 2), audio, sound_out, fps, crf)
        child = Child(
            argv,
            memory_mb=MEMORY_MB,
            cpu_s=CPU_S,
            file_bytes=FILE_BYTES,
            inherit=(sound_out,),
            stdin=subprocess.PIPE,
        )
    except BaseException:
        os.close(sound_in)
        raise
    finally:
        os.close(sound_out)
    feeder = threading.Thread(target=_feed, args=(sound_in, samples), daemon=True)
    feeder.start()
    done = False
    try:
        _push(child, _even(itertools.chain([first], stream), first.shape))
        status = child.wait(END_S)
        if status != 0:
            raise _failure(path, child, status)
        done = True
    finally:
        child.kill()
        feeder.join()
        if not done:
            path.unlink(missing_ok=True)


def _checked(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if frame.dtype != np.uint8 or frame.shape != shape or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frames must all be uint8 {(*shape[:2], 3)}, got {frame.dtype} {frame.shape}")
    return frame


def _even(frames: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    odd = [(0, shape[0] % 2), (0, shape[1] % 2), (0, 0)]
    for frame in frames:
        _checked(frame, shape)
        yield np.pad(frame, odd, mode="edge") if shape[0] % 2 or shape[1] % 2 else np.ascontiguousarray(frame)


def _push(child: Child, frames: Iterator[np.ndarray]) -> None:
    stdin = child.process.stdin
    assert stdin is not None
    with contextlib.suppress(BrokenPipeError):  # ffmpeg has ended early: its status says why
        for frame in frames:
            stdin.write(frame.data.cast("B"))
        stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        stdin.close()


def _feed(pipe: int, samples: np.ndarray | None) -> None:
    """Write the sound, then close the pipe; ends early where ffmpeg stops reading."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(pipe, "wb") as file:
        if samples is not None:
            file.write(samples.data.cast("B"))


def _failure(path: Path, child: Child, status: int | None) -> Exception:
    if status is None:
        return RuntimeError(f"{path}: ffmpeg did not finish within {END_S:g} s of the last frame")
    if "No space left" in child.log or "Disk quota" in child.log:
        return Transient(f"NO_SPACE: {path.parent}: free some space, then run the same command again")
    return RuntimeError(f"{path}: ffmpeg ended with status {status}: {child.log.strip()[-400:]}")


def _argv(path: Path, size: tuple[int, int], audio: np.ndarray | Path, sound_fd: int, fps: int, crf: int) -> list[str]:
    import ffmpeg

    pictures = ffmpeg.input("pipe:0", format="rawvideo", pixel_format="rgb24", video_size=size, framerate=fps)
    if isinstance(audio, Path):
        sound = ffmpeg.input(f"file:{audio}", protocol_whitelist="file,pipe", format_whitelist=FORMATS)["a:0"]
    else:
        sound = ffmpeg.input(f"pipe:{sound_fd}", format="f32le", sample_rate=SAMPLE_RATE, ch_layout="mono")["a:0"]
    output = ffmpeg.output(
        # the matrix that the file names, so that players and decode() give the colours back
        pictures["v:0"].filter("scale", out_color_matrix="bt709", out_range="tv").filter("format", "yuv420p"),
        sound.filter("apad"),
        f"file:{path}",
        format="mp4",
        vcodec="libx264",
        preset="veryfast",
        crf=crf,
        acodec="aac",
        audio_bitrate="128k",
        colorspace="bt709",
        color_primaries="bt709",
        color_trc="bt709",
        movflags="+faststart",
        map_metadata=-1,
        threads=1,  # more threads give other bytes
        shortest=None,
        **{"flags:v": "+bitexact", "flags:a": "+bitexact", "fflags": "+bitexact"},
    )
    arguments = ("-hide_banner", "-nostats", "-loglevel", "warning", "-xerror", "-filter_complex_threads", "1")
    return list(ffmpeg.compile(output.global_args(*arguments), cmd=ffmpeg_binary(), overwrite_output=True))
