"""One file of the demo corpus at a time: a clip with its sound, a still, or something that must be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from preprocessing.demo.cast import Speaker
from preprocessing.demo.look import room
from preprocessing.demo.motion import Motion, move
from preprocessing.demo.portrait import SIDE
from preprocessing.demo.render import Performer
from preprocessing.demo.voice import RATE, Utterance, Voice, speak
from preprocessing.media import encode_video

_LEAD_S, _TAIL_S = 0.30, 0.35  # of room tone around the words
_ROOM_TONE = 0.0015  # -56 dB: no microphone is silent
_CRF = 18
_KEPT_OF_CUT_FILE = 0.55
_TOGETHER = "We are both talking now."
_ALONE = "There is nobody here."


@lru_cache(maxsize=1)
def performer(speaker: Speaker, seed: int) -> Performer:
    """The speaker, ready to act; the last one is kept."""
    return Performer(speaker, seed)


def spoken(text: str, voice: Voice, rng: np.random.Generator) -> Utterance:
    """``text`` with a moment of room tone before and after."""
    said = speak(text, voice)
    lead, tail = round(_LEAD_S * RATE), round(_TAIL_S * RATE)
    sound = np.pad(said.sound / max(np.abs(said.sound).max(), 1e-6) * 0.6, (lead, tail))
    sound = sound + rng.uniform(-_ROOM_TONE, _ROOM_TONE, len(sound))
    return Utterance(sound.astype(np.float32), tuple((start + _LEAD_S, name) for start, name in said.phonemes))


def write_clip(
    stage: Callable[[], Performer],
    speaker: Speaker,
    text: str,
    seeds: tuple[int, ...],
    fps: float,
    side: int,
    path: Path,
) -> None:
    """The speaker says ``text``: MP4 at ``fps``, ``side`` px square."""
    rng = np.random.default_rng(seeds)
    said = spoken(text, speaker.voice, rng)
    frames = stage().frames(move(said, fps, rng, speaker.vigour), side)
    encode_video(path, frames, said.sound, fps=fps, crf=_CRF)


def write_still(stage: Callable[[], Performer], seeds: tuple[int, ...], pose: int, path: Path) -> None:
    """A still: at rest (``pose`` 0) or in the middle of a word (1)."""
    rng = np.random.default_rng([*seeds, 101, pose])
    mouth = {"jaw": 0.0, "wide": 0.3} if pose == 0 else {"jaw": rng.uniform(0.4, 0.8), "round": rng.uniform(0, 0.5)}
    turn = {"yaw": rng.uniform(-0.1, 0.1), "pitch": rng.uniform(-0.04, 0.04), "roll": rng.uniform(-0.05, 0.05)}
    values = {name: 0.0 for name in Motion.__dataclass_fields__} | mouth | turn | {"brow": rng.uniform(0, 1)}
    frame = stage().frame(Motion(**{name: np.array([value]) for name, value in values.items()}), 0)
    encoded, data = cv2.imencode(path.suffix, frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not encoded:
        raise RuntimeError(f"{path}: OpenCV cannot write {path.suffix}")
    path.write_bytes(data.tobytes())


def write_without_sound(clip: Path, path: Path) -> None:
    """The pictures of ``clip`` alone, copied packet by packet."""
    import av

    with av.open(str(clip)) as source, av.open(str(path), "w", options={"fflags": "+bitexact"}) as sink:
        pictures = source.streams.video[0]
        stream = sink.add_stream_from_template(pictures)
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)


def write_truncated(clip: Path, path: Path) -> None:
    """The first part of ``clip``, as a broken download leaves it."""
    data = clip.read_bytes()
    path.write_bytes(data[: round(_KEPT_OF_CUT_FILE * len(data))])


def write_empty(path: Path) -> None:
    """No bytes at all."""
    path.write_bytes(b"")


def write_room(speaker: Speaker, seed: int, path: Path) -> None:
    """The speaker's room with a voice in it, and nobody to be seen."""
    rng = np.random.default_rng([seed, 211])
    said = spoken(_ALONE, speaker.voice, rng)
    wall = room(speaker.look, rng)
    count = round(said.seconds * 25)

    def frames() -> Iterator[np.ndarray]:
        for t in range(count):
            shift = 4 * np.sin(2 * np.pi * t / count)
            yield cv2.warpAffine(
                wall, np.array([[1, 0, shift], [0, 1, 0]]), (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT
            )

    encode_video(path, frames(), said.sound, fps=25, crf=_CRF)


def write_pair(left: Speaker, right: Speaker, seed: int, path: Path) -> None:
    """Two faces that say the same words: nothing tells which one is meant."""
    rng = np.random.default_rng([seed, 223])
    said = spoken(_TOGETHER, left.voice, rng)
    motion = move(said, 25, rng)
    pair = [Performer(speaker, seed).frames(motion, 448) for speaker in (left, right)]
    encode_video(path, (np.hstack(frames) for frames in zip(*pair)), said.sound, fps=25, crf=_CRF)
