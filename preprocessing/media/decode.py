"""One decode of a file: upright pictures at exactly 25 per second, and sound, on one clock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from contracts.sample import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from preprocessing.media.probe import FORMATS, Probe, Track, probe
from preprocessing.media.process import GRACE_S, Budget, Child, Drain, ffmpeg_binary

PIPE_BYTES = 1 << 20
HALF_FRAME_S = 0.5 / FPS
SEEK_S = 10.0  # a span that begins earlier is decoded from the start: exact, and as quick
SEEKABLE = ("mov", "matroska")  # elsewhere a seek may land behind its target
HARD_S = 0.01  # a gap or overlap in the sound's time stamps beyond this is filled or cut, so that it cannot drift
MOST_MISSING = 1  # frames that the last picture may have to stand in for: the overlap is rounded to whole frames
# verbose, for its last lines count the frames decoded; copyts, for the clock is the container's
GLOBAL = "-nostdin -hide_banner -nostats -loglevel verbose -xerror -copyts -filter_complex_threads 1".split()  # noqa: SIM905
COUNTS = re.compile(r"\((video|audio)\): (\d+) packets read .*?; (\d+) frames decoded; (\d+) decode errors")


class Decoding:
    """A running decode of ``count`` frames; use it as a context manager, so that ffmpeg always ends.

    ::

        found = probe(path, limits)
        with decode(found, limits) as clip:
            for frame in clip:              # uint8 [H, W, 3] RGB, exactly clip.count of them, one at a time
                ...
            sound = clip.sound              # int16 [640 * clip.count], 16 kHz mono
            frames_read = clip.source_frames

    Iterating raises ``Reject`` (TRUNCATED, DECODE_ERROR, NON_FINITE, TIMEOUT) as soon as the fault shows, at the
    latest after the last frame: the clip is complete only once the loop has ended without error. ``sound`` and
    ``source_frames`` may be read after that, and raise ``RuntimeError`` before.
    """

    def __init__(self, found: Probe, limits: Limits, start_s: float, count: int, whole: bool) -> None:
        self.count = count
        self.width, self.height = found.width, found.height
        self.start_s = start_s
        self.end_s = start_s + count / FPS
        self._found = found
        self._budget = Budget(limits.decode_deadline_s)
        self._whole = whole
        self._sound: np.ndarray | None = None
        self._counts: dict[str, tuple[int, int, int]] = {}
        pictures_out, pictures_in = os.pipe()
        sound_out, sound_in = os.pipe()
        self._pictures = pictures_out
        self._poll = select.poll()
        self._poll.register(pictures_out, select.POLLIN)
        try:
            with contextlib.suppress(OSError):  # a larger pipe is only quicker
                fcntl.fcntl(pictures_out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            argv = _argv(found, limits, start_s, count, whole, pictures_in, sound_in)
            self._child = Child(
                argv,
                memory_mb=limits.decode_memory_mb,
                cpu_s=limits.decode_deadline_s,
                inherit=(pictures_in, sound_in),
            )
        except BaseException:
            os.close(pictures_out)
            os.close(sound_out)
            raise
        finally:
            os.close(pictures_in)
            os.close(sound_in)
        self._sound_stream = os.fdopen(sound_out, "rb", buffering=0)
        self._listener = Drain(self._sound_stream, count * SAMPLES_PER_FRAME * 4)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End ffmpeg, whatever it is doing, and free its pipes."""
        self._child.kill()
        self._listener.join(GRACE_S)
        self._sound_stream.close()
        if self._pictures >= 0:
            os.close(self._pictures)
            self._pictures = -1

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame once, uint8 [H, W, 3]; every array is the caller's own."""
        last: np.ndarray | None = None
        given = 0
        while given < self.count and (frame := self._frame()) is not None:
            last = frame
            given += 1
            yield frame
        self._finish(given)
        while given < self.count:
            assert last is not None
            given += 1
            yield last.copy()

    def _frame(self) -> np.ndarray | None:
        """The next frame; ``None`` where there is none."""
        frame = np.empty((self.height, self.width, 3), np.uint8)
        rest = frame.data.cast("B")
        while rest:
            with self._budget.spend():
                ready = self._poll.poll(max(self._budget.left, 0.0) * 1000)
            if not ready:
                raise self._stopped(self._budget.overrun())
            size = os.readv(self._pictures, [rest])
            if size == 0:
                return None
            rest = rest[size:]
        return frame

    def _finish(self, given: int) -> None:
        """Wait for the end; raise unless all that the file promised was decoded."""
        with self._budget.spend():
            self._poll.poll(max(self._budget.left, 0.0) * 1000)  # wakes at the end of the pictures
        with self._budget.spend():
            self._listener.join(max(self._budget.left, 0.0))
            status = self._child.wait(self._budget.left)
        if status is None:
            raise self._stopped(self._budget.overrun())
        judge(self._child, status, self._found, self._counts, whole=self._whole)
        if self.count - given > (MOST_MISSING if given else 0):
            raise Reject(Reason.TRUNCATED, f"pictures end after {given} of {self.count} frames")
        self._sound = to_int16(np.frombuffer(self._listener.data, np.float32), self.count * SAMPLES_PER_FRAME)

    def _stopped(self, refusal: Reject) -> Reject:
        self._child.kill()
        return refusal

    @property
    def sound(self) -> np.ndarray:
        """int16 [640 * count], 16 kHz mono; sample 640 i is heard where frame i begins."""
        if self._sound is None:
            raise RuntimeError("the sound is complete only once every frame has been read")
        return self._sound

    @property
    def source_frames(self) -> int:
        """Frames decoded from the file, before the change of rate."""
        if self._sound is None:
            raise RuntimeError("the frames are counted only once every frame has been read")
        return self._counts["video"][1]


def decode(
    found: Probe, limits: Limits | None = None, *, start_s: float | None = None, end_s: float | None = None
) -> Decoding:
    """Start the one decode of the file that ``probe`` looked at, or of its span ``start_s`` to ``end_s`` (seconds).

    T = round(25 * seconds) of the overlap of pictures, sound and span. Frame i is what a player shows at the middle of
    [start + i/25, start + (i+1)/25], so a change is at most 20 ms early or late; sound sample 640 i is heard at
    start + i/25. The start is moved by at most 20 ms onto a picture, so that 25 frames/s pass through one to one.
    Time spent waiting on ffmpeg counts against ``limits.decode_deadline_s``; the caller's own work does not.

    Raises ``Reject(TOO_SHORT)`` where the overlap is shorter than ``limits.shortest_s``.
    """
    limits = limits or Limits()
    first, last = found.overlap
    start = max(first, start_s) if start_s is not None else first
    end = min(last, end_s) if end_s is not None else last
    if end - start < limits.shortest_s:
        raise Reject(
            Reason.TOO_SHORT,
            f"picture and sound overlap for {max(end - start, 0):.2f} s, {limits.shortest_s:g} are needed",
        )
    nearest = found.shown_s[np.abs(found.shown_s - start).argmin()]
    aligned = float(nearest) if abs(nearest - start) <= HALF_FRAME_S else start
    return Decoding(found, limits, aligned, round(FPS * (end - start)), start_s is None and end_s is None)


def decode_sound(
    path: Path, limits: Limits | None = None, *, start_s: float | None = None, end_s: float | None = None
) -> np.ndarray:
    """Sound of a speech file (wav, flac, mp3, m4a, ogg, or a video's track): float32 [N] in -1..1, 16 kHz, mono.

    Raises ``Reject`` as ``probe`` (for sound alone) does, and TRUNCATED, DECODE_ERROR, NON_FINITE, TIMEOUT, TOO_SHORT.
    """
    limits = limits or Limits()
    found = probe(path, limits, need=("audio",), start_s=start_s, end_s=end_s)
    assert found.audio is not None
    start = max(found.audio.start_s, start_s or 0.0)
    end = min(found.audio.end_s, end_s) if end_s is not None else found.audio.end_s
    if end - start < limits.shortest_s:
        raise Reject(Reason.TOO_SHORT, f"{max(end - start, 0):.2f} s of sound, {limits.shortest_s:g} are needed")
    length = round((end - start) * SAMPLE_RATE)
    sound_out, sound_in = os.pipe()
    with os.fdopen(sound_out, "rb", buffering=0) as stream:
        try:
            argv = _sound_argv(found, limits, start, sound_in)
            child = Child(argv, memory_mb=limits.decode_memory_mb, cpu_s=limits.decode_deadline_s, inherit=(sound_in,))
        finally:
            os.close(sound_in)
        listener = Drain(stream, length * 4)
        budget = Budget(limits.decode_deadline_s)
        try:
            with budget.spend():
                listener.join(budget.left)
                status = child.wait(budget.left)
            if status is None:
                raise budget.overrun()
            judge(child, status, found, {}, whole=False)
        finally:
            child.kill()
            listener.join(GRACE_S)
        sound = np.frombuffer(listener.data, np.float32)
    check_finite(sound)
    return np.clip(np.pad(sound, (0, length - len(sound))), -1.0, 1.0)


def judge(child: Child, status: int, found: Probe, counts: dict[str, tuple[int, int, int]], *, whole: bool) -> None:
    """Raise unless ffmpeg ended cleanly and, for a ``whole`` file, gave every picture that the container holds.

    Neither is enough alone: a cut file may end without an error, and a damaged one may give every frame.
    """
    for kind, packets, decoded, errors in COUNTS.findall(child.log):
        counts[kind] = (int(packets), int(decoded), int(errors))
    if status != 0 or not counts or any(errors for _, _, errors in counts.values()):
        raise Reject(Reason.DECODE_ERROR, _cause(child.log, status))
    if whole and found.video is not None:
        expected, decoded = found.video.packets - found.video.discarded, counts["video"][1]
        if decoded < expected:
            raise Reject(Reason.TRUNCATED, f"{decoded} of {expected} pictures could be decoded")


def check_finite(sound: np.ndarray) -> None:
    """Raise NON_FINITE where a sample is no number (ffmpeg passes them on)."""
    if not np.isfinite(sound).all():
        raise Reject(Reason.NON_FINITE, f"{np.count_nonzero(~np.isfinite(sound))} samples of sound are not finite")


def to_int16(sound: np.ndarray, length: int) -> np.ndarray:
    """Float sound in -1..1 as int16 [length], cut or padded with silence. Raises NON_FINITE."""
    check_finite(sound)
    samples = np.clip(np.rint(sound[:length] * 32768.0), -32768, 32767).astype(np.int16)
    return np.pad(samples, (0, length - len(samples)))


def _cause(log: str, status: int) -> str:
    lines = [re.sub(r"^(\[[^]]*\] ?)+", "", line) for line in log.splitlines()]
    faults = [line for line in lines if re.search(r"error|invalid|corrupt|cannot|unable|missing|fail", line, re.I)]
    faults = [line for line in faults if "0 decode errors" not in line and "file:" not in line]
    return (faults[0] if faults else f"ffmpeg ended with status {status}")[:200]


def _input(found: Probe, limits: Limits, **more: Any) -> Any:
    import ffmpeg

    return ffmpeg.input(
        f"file:{found.path}",
        protocol_whitelist="file,pipe",
        format_whitelist=FORMATS,
        max_pixels=limits.video_pixels,
        threads=1,
        **more,
    )


def _compile(output: Any) -> list[str]:
    import ffmpeg

    return list(ffmpeg.compile(output.global_args(*GLOBAL), cmd=ffmpeg_binary()))


def _hear(source: Any, track: Track, at: float) -> Any:
    """Filter a track into float mono at 16 kHz whose first sample is heard at time stamp ``at``."""
    return source[str(track.index)].filter(
        "aresample",
        SAMPLE_RATE,
        ochl="mono",
        osf="flt",
        **{"async": 1},
        min_hard_comp=HARD_S,
        first_pts=round(at * SAMPLE_RATE),
    )


def _argv(
    found: Probe, limits: Limits, start_s: float, count: int, whole: bool, pictures_fd: int, sound_fd: int
) -> list[str]:
    import ffmpeg

    assert found.video is not None
    assert found.audio is not None
    at = start_s + found.origin_s
    span: dict[str, Any] = {}
    if not whole:
        if start_s > SEEK_S and found.container in SEEKABLE:
            # the filters cut exactly; the second before lets sound settle and finds the picture held at the start
            span = {"seek_timestamp": 1, "noaccurate_seek": None, "ss": f"{at - 1:.6f}"}
        span["to"] = f"{at + count / FPS + 0.5:.6f}"
    source = _input(found, limits, **span)
    pictures = (
        source[str(found.video.index)]
        .filter("fps", FPS, start_time=f"{at:.6f}", round="near")
        .filter("select", f"lt(n,{count})")  # the rest is decoded, for its faults, but given to nobody
        .filter("scale", found.width, found.height)
        .output(f"pipe:{pictures_fd}", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", threads=1)
    )
    sound = _hear(source, found.audio, at).output(f"pipe:{sound_fd}", format="f32le", acodec="pcm_f32le")
    return _compile(ffmpeg.merge_outputs(pictures, sound))


def _sound_argv(found: Probe, limits: Limits, start_s: float, sound_fd: int) -> list[str]:
    assert found.audio is not None
    heard = _hear(_input(found, limits), found.audio, start_s + found.origin_s)
    return _compile(heard.output(f"pipe:{sound_fd}", format="f32le", acodec="pcm_f32le"))
