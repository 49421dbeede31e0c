"""What a container declares and where its streams lie in time, read in a limited child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.limits import Limits

Need = Literal["video", "audio"]


@dataclass(frozen=True)
class Track:
    """One stream, on the container's clock after edit lists (seconds; 0 is where the file begins to play)."""

    index: int  # of the stream in its container
    codec: str
    start_s: float  # of the first thing shown or heard
    end_s: float  # of the last
    declared: int  # frames that the container declares; 0 where it declares none
    packets: int  # packets in the file
    discarded: int  # packets that the edit list says not to show


@dataclass(frozen=True)
class Probe:
    """A container: its streams, its picture size once upright (square pixels), its rate."""

    path: Path
    container: str  # mov, matroska, mpeg, …
    streams: int
    duration_s: float  # from the earliest start to the latest end of the two tracks
    video: Track | None
    audio: Track | None
    width: int  # upright; 0 without video
    height: int
    rotation: int  # degrees clockwise by which stored pictures are turned: 0, 90, 180, 270
    fps: float  # mean rate of the pictures shown; 0 without video
    origin_s: float  # the container's own time stamp at which its clock here reads 0

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
    """Read what the container at ``path`` holds; nothing but one picture is decoded.

    ``need`` names the streams without which the file is of no use. ``start_s`` and ``end_s`` are the span
    wanted (seconds): the limit on length holds for it, or for the whole file where it is absent.

    Raises ``Reject``, the first that applies of: EMPTY_FILE, BAD_CONTAINER, TOO_MANY_STREAMS,
    TOO_MANY_PIXELS, TOO_LONG, NO_VIDEO, NO_AUDIO, TRUNCATED, TIMEOUT. Cover art is no video.
    """
    raise NotImplementedError
