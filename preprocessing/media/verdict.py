"""Whether a decode was complete, judged from ffmpeg's status, its counts and the sound itself."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from contracts.errors import Reject
from contracts.reasons import Reason
from contracts.sample import SAMPLE_RATE
from preprocessing.media.probe import Probe

COUNTS = re.compile(r"\((video|audio)\): \d+ packets read .*?; (\d+) frames decoded; (\d+) decode errors")
MISSING = SAMPLE_RATE // 10  # samples by which a track may end before its packets say so: priming and rounding


class Decoded(NamedTuple):
    """What a decode has given besides pictures."""

    sound: np.ndarray  # float32 [N], 16 kHz mono
    pictures: int  # decoded, before the change of rate

    def short(self, length: int) -> bool:
        """Whether the sound ends before its ``length`` samples by more than priming and rounding explain."""
        return len(self.sound) < length - MISSING


def judge(log: str, status: int, found: Probe, *, whole: bool, place: str = "") -> dict[str, int]:
    """Frames decoded by kind of stream; raises unless ffmpeg ended cleanly and a ``whole`` file gave every picture.

    Neither is enough alone: a cut file may end without an error, and a damaged one may give every frame.
    ``place`` is where in the file that was, to be told with the cause where no decoder counted a fault.
    Raises ``Reject``: DECODE_ERROR or TRUNCATED.
    """
    counts = COUNTS.findall(log)
    if status != 0 or not counts or any(int(errors) for _, _, errors in counts):
        kind = next((kind for kind, _, errors in counts if int(errors)), "")
        raise Reject(Reason.DECODE_ERROR, (_place(kind, counts, found) or place) + _cause(log, status, kind))
    decoded = {kind: int(frames) for kind, frames, _ in counts}
    if whole and found.video is not None:
        expected = found.video.packets - found.video.discarded
        if decoded.get("video", 0) < expected:
            raise Reject(Reason.TRUNCATED, f"{decoded.get('video', 0)} of {expected} pictures could be decoded")
    return decoded


def check_sound(sound: np.ndarray, length: int) -> None:
    """Raise TRUNCATED unless ``sound`` has about ``length`` samples, NON_FINITE unless each is a number."""
    if len(sound) < length - MISSING:
        raise Reject(
            Reason.TRUNCATED, f"sound ends after {len(sound) / SAMPLE_RATE:.2f} of {length / SAMPLE_RATE:.2f} s"
        )
    if not np.isfinite(sound).all():  # ffmpeg passes them on
        raise Reject(Reason.NON_FINITE, f"{np.count_nonzero(~np.isfinite(sound))} samples of sound are not finite")


def _place(failed: str, counts: list[tuple[str, str, str]], found: Probe) -> str:
    """How far the stream came whose decoder failed: how far the other did depends on what else the machine does."""
    track, of = (found.video, "") if failed == "video" else (found.audio, " of sound")
    for kind, frames, _ in counts:
        if kind == failed and track is not None:
            return f"after {frames} of {track.packets - track.discarded} frames{of}: "
    return ""


def _cause(log: str, status: int, failed: str) -> str:
    """The first message that names a fault; where the decoder of ``failed`` has said something, of that decoder.

    The other decoder's complaints come before, after or not at all, as the machine has time for them.
    """
    lines = log.splitlines()
    if failed:
        lines = [line for line in lines if line.startswith(f"[{failed[0]}ist#")] or lines
    lines = [re.sub(r"^(\[[^]]*\] ?)+", "", line) for line in lines]
    faults = [line for line in lines if re.search(r"error|invalid|corrupt|cannot|unable|missing|fail", line, re.I)]
    faults = [line for line in faults if "0 decode errors" not in line and "file:" not in line]
    return (faults[0] if faults else f"ffmpeg ended with status {status}")[:200]
