"""What ffmpeg is told: one clock for both streams, a fixed rate and size, nothing but files of known kinds."""

from __future__ import annotations

from typing import Any

from contracts.limits import Limits
from contracts.sample import FPS, SAMPLE_RATE
from preprocessing.media.probe import FORMATS, Probe, Track
from preprocessing.media.process import ffmpeg_binary

SEEK_S = 10.0  # a span that begins earlier is decoded from the start: exact, and as quick
SEEKABLE = ("mov", "matroska")  # elsewhere a seek may land behind its target
BEYOND_S = 0.5  # decoded beyond a span's end, so that its last picture and sound are whole
HARD_S = 0.01  # a gap or overlap in the sound's time stamps beyond this is filled or cut, so that it cannot drift
# verbose, for its last lines count the frames decoded; copyts, for the clock is the container's
GLOBAL = "-nostdin -hide_banner -nostats -loglevel verbose -xerror -copyts -filter_complex_threads 1".split()  # noqa: SIM905


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


def sound_filters(start: float, end: float | None) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Filters, their arguments and options, that make of a track float mono at 16 kHz.

    It begins at time stamp ``start`` and ends at ``end``, or as far as it goes.
    """
    return [
        ("atrim", [], {"start": f"{start:.6f}", **_until(end)}),
        ("asetpts", [f"PTS-{start:.6f}/TB"], {}),  # first_pts counts samples of the input's rate, but 0 is 0
        (
            "aresample",
            [SAMPLE_RATE],
            {"ochl": "mono", "osf": "flt", "async": 1, "min_hard_comp": HARD_S, "first_pts": 0},
        ),
    ]


def _hear(source: Any, track: Track, start: float, end: float | None) -> Any:
    stream = source[str(track.index)]
    for name, arguments, options in sound_filters(start, end):
        stream = stream.filter(name, *arguments, **options)
    return stream


def _until(end: float | None) -> dict[str, str]:
    return {} if end is None else {"end": f"{end:.6f}"}


def seek_s(found: Probe, start: float) -> float | None:
    """Where to begin to read: a second before a span, so that sound has settled and the picture held there is known.

    ``None`` where that is the file's beginning.
    """
    return None if start - found.origin_s < SEEK_S or found.container not in SEEKABLE else start - 1


def _seek(found: Probe, start: float) -> dict[str, Any]:
    place = seek_s(found, start)
    if place is None:
        return {}
    # not accurate: the filters cut exactly, by time stamps, and ffmpeg's own cut would count from the key frame
    return {"seek_timestamp": 1, "noaccurate_seek": None, "ss": f"{place:.6f}"}


def clip_argv(
    found: Probe, limits: Limits, start_s: float, count: int, whole: bool, pictures_fd: int, sound_fd: int
) -> list[str]:
    """Decode ``count`` frames from ``start_s``: pictures (as ``found.pixels`` says) and float sound.

    A ``whole`` file is decoded to its end even where fewer frames are given out, for the sake of its faults.
    """
    import ffmpeg

    assert found.video is not None
    assert found.audio is not None
    start = start_s + found.origin_s
    end = None if whole else start + count / FPS + BEYOND_S
    source = _input(found, limits, **({} if whole else _seek(found, start)))
    pictures = (
        source[str(found.video.index)]
        .filter("trim", **_until(end))
        .filter("fps", FPS, start_time=f"{start:.6f}", round="near")
        .filter("select", f"lt(n,{count})")
        .filter("scale", found.width, found.height)
        .output(f"pipe:{pictures_fd}", format="rawvideo", pix_fmt=found.pixels, fps_mode="passthrough", threads=1)
    )
    sound = _hear(source, found.audio, start, end).output(f"pipe:{sound_fd}", format="f32le", acodec="pcm_f32le")
    return _compile(ffmpeg.merge_outputs(pictures, sound))


def sound_argv(found: Probe, limits: Limits, start_s: float, end_s: float | None, sound_fd: int) -> list[str]:
    """Decode the sound from ``start_s`` to ``end_s`` (or to its end) to a pipe."""
    assert found.audio is not None
    start = start_s + found.origin_s
    end = None if end_s is None else end_s + found.origin_s + BEYOND_S
    heard = _hear(_input(found, limits, **_seek(found, start)), found.audio, start, end)
    return _compile(heard.output(f"pipe:{sound_fd}", format="f32le", acodec="pcm_f32le"))
