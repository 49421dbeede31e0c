"""What a container declares and where its streams lie in time, read in a limited child process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.media.boxes import Index, read_index
from preprocessing.media.nursery import answer
from preprocessing.picture import SHARES

Need = Literal["video", "audio"]

# Names of ffmpeg's demuxers. Playlists, concat scripts, picture sequences and animated GIFs are not among them.
FORMATS = "mov,matroska,avi,mpeg,mpegts,wav,flac,mp3,ogg"
SCAN_BYTES = 64 * 1024 * 1024
SCAN_MEMORY_MB = 1024
# 8 bits, colour for every four pixels or for each, and the ranges (ffmpeg's numbers) in which they are handed on as is
RANGES = {"yuv420p": [0, 1], "yuvj420p": [2], "yuv444p": [0, 1], "yuvj444p": [2]}
RGB = "rgb24"
SQUARE = 0.01  # pixels are taken as square where they are so within 1 %
LATE_S = 0.025  # how far before its declared end plain sound (WAV, FLAC) may stop; others list their packets
LATE_MATROSKA_S = 0.25
LATE_MP4_S = 1.0


@dataclass(frozen=True)
class Track:
    """One stream, on the container's clock after edit lists (seconds)."""

    index: int  # of the stream in its container
    codec: str
    start_s: float  # of the first thing shown or heard
    end_s: float  # of the last
    declared: int  # frames that the container declares; 0 where it declares none
    packets: int  # packets in the file
    discarded: int  # packets that the edit list says not to show


@dataclass(frozen=True)
class Probe:
    """A container: its streams, its picture size once upright (square pixels), its rate.

    Its clock reads 0 at the container's own zero; in an MPEG stream, whose zero means nothing, where it begins to play.
    """

    path: Path
    container: str  # mov, matroska, mpeg, …
    streams: int
    duration_s: float  # from the earliest start to the latest end of the two tracks
    video: Track | None
    audio: Track | None
    width: int  # upright; 0 without video
    height: int
    rotation: int  # degrees clockwise by which stored pictures are turned: 0, 90, 180, 270
    space: int  # of colour, ffmpeg's number; 0 without video
    fps: float  # mean rate of the pictures shown; 0 without video
    origin_s: float  # the container's own time stamp at which the clock here reads 0
    shown_s: np.ndarray = field(repr=False, compare=False)  # float64 [pictures shown]: when, ascending
    pixels: str = RGB  # as which pictures are given out, ffmpeg's name

    @property
    def planar(self) -> bool:
        """Whether pictures are given out as they are, brightness and colour apart, and not as RGB."""
        return self.pixels != RGB

    @property
    def full(self) -> bool:
        """Whether planar pictures have the full range."""
        return self.pixels.startswith("yuvj")

    @property
    def halved(self) -> bool:
        """Whether their colour has half the width and height."""
        return self.pixels.endswith("420p")

    @property
    def overlap(self) -> tuple[float, float]:
        """Start and end (seconds) of the time in which there are both pictures and sound."""
        tracks = [track for track in (self.video, self.audio) if track]
        return max(track.start_s for track in tracks), min(track.end_s for track in tracks)


def probe(
    path: Path,
    limits: Limits | None = None,
    *,
    need: tuple[Need, ...] = ("video", "audio"),
    start_s: float | None = None,
    end_s: float | None = None,
) -> Probe:
    """Read what the container at ``path`` holds: every packet's time, but only one picture is decoded.

    ``need`` names the streams without which the file is of no use. ``start_s`` and ``end_s`` are the span
    wanted (seconds): the limit on length holds for it, or for the whole file where it is absent.

    Raises ``Reject``, the first that applies of: EMPTY_FILE, BAD_CONTAINER, TOO_MANY_STREAMS,
    TOO_MANY_PIXELS, TOO_LONG, NO_VIDEO, NO_AUDIO, TRUNCATED, TIMEOUT. Cover art is no video.
    """
    limits = limits or Limits()
    size = path.stat().st_size
    if size == 0:
        raise Reject(Reason.EMPTY_FILE, f"{path.name} has zero bytes")
    index = read_index(path)
    if index.samples > size:
        raise Reject(Reason.TRUNCATED, f"the index lists {index.samples} packets, the file has {size} bytes")
    found = _scan(path, limits)
    if index.cut:
        raise Reject(Reason.BAD_CONTAINER, "the file ends inside its index")
    if index.elsewhere:
        raise Reject(Reason.BAD_CONTAINER, "its index says that the media lie in another file")
    if found["streams"] > limits.streams:
        raise Reject(Reason.TOO_MANY_STREAMS, f"{found['streams']} streams, at most {limits.streams} are read")
    tracks = {track["kind"]: track for track in found["tracks"]}
    video, audio = tracks.get("video"), tracks.get("audio")
    width, height = _upright(video) if video else (0, 0)
    if width * height > limits.video_pixels:
        raise Reject(Reason.TOO_MANY_PIXELS, f"{width} x {height}, at most {limits.video_pixels} pixels are decoded")
    origin = (found["start_s"] or 0.0) if found["container"].startswith("mpeg") else 0.0
    times = {kind: _times(track, origin, found["duration_s"]) for kind, track in tracks.items()}
    _check_length(times, found["duration_s"], limits, start_s, end_s)
    if "video" in need and not width * height:
        what = "no picture stream (cover art is none)" if video is None else "pictures of no size, or beyond the limit"
        raise Reject(Reason.NO_VIDEO, what)
    if "audio" in need and audio is None:
        raise Reject(Reason.NO_AUDIO, "no sound stream")
    for kind in need:
        _check_whole(tracks[kind], found, size, index)
    shown = np.sort(np.array(video["pts"] if video else [], dtype=np.float64))
    shown = shown * (video["time_base"] if video else 0.0) - origin
    length = times["video"][1] - times["video"][0] if video else 0.0
    return Probe(
        path=path,
        container=found["container"].split(",")[0],
        streams=found["streams"],
        duration_s=max(t[1] for t in times.values()) - min(t[0] for t in times.values()) if times else 0.0,
        video=_track(video, times["video"]) if video else None,
        audio=_track(audio, times["audio"]) if audio else None,
        width=width,
        height=height,
        rotation=video["rotation"] if video else 0,
        space=video["space"] if video else 0,
        fps=len(shown) / length if length > 0 else 0.0,
        origin_s=origin,
        shown_s=shown,
        pixels=_pixels(video, width, height) if video else RGB,
    )


def _scan(path: Path, limits: Limits) -> dict[str, Any]:
    status, output = answer(
        "scan",
        [str(path.absolute()), FORMATS, limits.video_pixels],
        seconds=min(limits.decode_deadline_s, 60.0),
        memory_mb=SCAN_MEMORY_MB,
        most_bytes=SCAN_BYTES,
    )
    if status is None:
        raise Reject(Reason.TIMEOUT, "reading the container took too long")
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError:
        raise Reject(Reason.BAD_CONTAINER, f"reading it ended with status {status}") from None
    if "error" in found:
        # libav's own words are numbers and "Invalid data found": nothing to mend by
        raise Reject(Reason.BAD_CONTAINER, f"no container that is read here ({FORMATS}): save it anew as WAV or MP4")
    return found


def _upright(video: dict[str, Any]) -> tuple[int, int]:
    """Width and height once pixels are square (the shorter side grows) and the picture is turned."""
    width, height, aspect = video["width"], video["height"], video["aspect"]
    if aspect > 1 + SQUARE:
        width = round(width * aspect)
    elif 0 < aspect < 1 / (1 + SQUARE):
        height = round(height / aspect)
    return (height, width) if video["rotation"] in (90, 270) else (width, height)


def _pixels(video: dict[str, Any], width: int, height: int) -> str:
    """As which pictures are handed on: as they are where that is one of ``RANGES``, of even sizes; else as RGB."""
    plain = video["range"] in RANGES.get(video["pixels"], ()) and video["space"] in SHARES
    return str(video["pixels"]) if plain and width % 2 == height % 2 == 0 else RGB


def _times(track: dict[str, Any], origin: float, duration: float | None) -> tuple[float, float]:
    """Start and end (seconds) of what the track shows or lets hear."""
    base = track["time_base"]
    if track["end"] is None:  # not read, or nothing but discarded packets: what is declared must do
        length = track["duration"] * base if track["duration"] is not None else duration or 0.0
        start = (track["start"] or 0) * base
        return start - origin, start + length - origin
    start = min(track["pts"])
    end = track["end"]
    if track["start"] is not None:
        start = max(start, track["start"])  # the first packet may begin before the edit list does
    if track["indexed"] and track["duration"] is not None and track["start"] is not None:
        end = min(end, track["start"] + track["duration"])  # and the last end after it
    if track["kind"] == "video" and end == max(track["pts"]) and track["rate"] > 0:
        return start * base - origin, end * base + 1 / track["rate"] - origin  # the last picture is shown, too
    return start * base - origin, end * base - origin


def _track(track: dict[str, Any], times: tuple[float, float]) -> Track:
    return Track(track["index"], track["codec"], *times, track["declared"], track["packets"], track["discarded"])


def _check_length(
    times: dict[str, tuple[float, float]],
    declared: float | None,
    limits: Limits,
    start_s: float | None,
    end_s: float | None,
) -> None:
    end = max((t[1] for t in times.values()), default=declared or 0.0)
    if start_s is None and end_s is None:
        end = max(end, declared or 0.0)
    length = min(end, end_s if end_s is not None else end) - (start_s or 0.0)
    if length > limits.duration_s:
        raise Reject(Reason.TOO_LONG, f"{length:.1f} s, at most {limits.duration_s:g} s are read")


def _check_whole(track: dict[str, Any], found: dict[str, Any], size: int, index: Index) -> None:
    """Raise TRUNCATED where packets are missing that the container lists or declares."""
    kind, name = track["kind"], f"{track['kind']} stream"
    if track["last_byte"] > size:
        raise Reject(Reason.TRUNCATED, f"the {name} needs {track['last_byte']} bytes, the file has {size}")
    if track["packets"] < track["indexed"]:
        raise Reject(Reason.TRUNCATED, f"the {name} lists {track['indexed']} packets, {track['packets']} are there")
    if track["broken"]:
        raise Reject(Reason.TRUNCATED, f"{track['broken']} packets of the {name} are incomplete")
    if not found.get("whole", True):
        raise Reject(Reason.TRUNCATED, "the file ends in an error")
    if track["packets"] <= track["discarded"]:
        raise Reject(Reason.TRUNCATED, f"the {name} shows nothing" if kind == "video" else f"the {name} is empty")
    missing = 0.0
    if track["duration"] is not None and found["container"] in ("wav", "flac"):
        start = track["start"] or 0
        end = start if track["end"] is None else track["end"]  # no packet tells when it is
        missing = (start + track["duration"] - end) * track["time_base"] - LATE_S
    elif len(found["tracks"]) == found["streams"]:
        # the whole file's length alone is declared, by whichever track is the longest
        ends = [other["end"] * other["time_base"] for other in found["tracks"] if other["end"] is not None]
        if found["container"].startswith("matroska"):
            missing = (found["duration_s"] or 0.0) - max(ends, default=0.0) - LATE_MATROSKA_S
        elif found["container"].startswith("mov"):
            missing = index.seconds - max(ends, default=0.0) - LATE_MP4_S
    if missing > 0:
        raise Reject(Reason.TRUNCATED, f"the {name} ends long before its declared end")
