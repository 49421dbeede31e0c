"""Sound alone, as float samples: of speech files, and of the sound track of a video."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from contracts.sample import SAMPLE_RATE
from preprocessing.media.graph import sound_argv
from preprocessing.media.probe import probe
from preprocessing.media.process import GRACE_S, Budget, Child, Drain
from preprocessing.media.verdict import check_sound, judge


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
            argv = sound_argv(found, limits, start, end_s, sound_in)
            child = Child(argv, memory_mb=limits.decode_memory_mb, cpu_s=limits.decode_deadline_s, inherit=(sound_in,))
        finally:
            os.close(sound_in)
        listener = Drain(stream, length * 4)
        budget = Budget(limits.decode_deadline_s)
        try:
            with budget.spend():
                listener.join(budget.left)
            with budget.spend():
                status = child.wait(budget.left)
            if status is None:
                raise budget.overrun()
            judge(child.log, status, found, whole=False)
        finally:
            child.kill()
            listener.join(GRACE_S)
        sound = np.frombuffer(listener.data, np.float32)
    check_sound(sound, length)
    return np.clip(np.pad(sound, (0, length - len(sound))), -1.0, 1.0)
