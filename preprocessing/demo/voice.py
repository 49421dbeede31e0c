"""Spoken sentences: espeak-ng through ctypes, with the time at which every phoneme begins.

espeak-ng keeps its state in C globals, and ``espeak_Terminate`` does not put them all back: said twice in
one process, a sentence differs in length and in every sample. So each utterance loads a copy of the library
of its own, with fresh globals, and seeds both sources of its noise (its own and the C library's ``rand``):
the same words give the same samples, in whatever order utterances are made. The C interface is that of
``espeak-ng/speak_lib.h`` 1.52.
"""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16_000
_SPOKEN_RATE = 22_050  # espeak-ng's only rate
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback is called before espeak_Synth returns
_PHONEME_EVENTS = 0x0001 | 0x8000  # espeakINITIALIZE_PHONEME_EVENTS | espeakINITIALIZE_DONT_EXIT
_UTF8 = 1
_EVENT_END, _EVENT_PHONEME = 0, 7
_WORDS_PER_MINUTE, _VOLUME, _PITCH, _PITCH_RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """How somebody sounds: an espeak variant (``f1`` .. ``f5``, ``m1`` .. ``m8``), its pitch and rate."""

    accent: str  # an espeak-ng voice: en-us, en-gb, …
    variant: str
    pitch: int  # 0 .. 100
    spread: int  # of the melody, 0 .. 100
    rate: int  # words per minute


@dataclass(frozen=True)
class Utterance:
    """Sound, float32 [N] at 16 kHz in -1..1, and phonemes as (start in seconds, espeak mnemonic), in order."""

    sound: np.ndarray
    phonemes: tuple[tuple[float, str], ...]

    @property
    def seconds(self) -> float:
        return len(self.sound) / RATE


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speak(text: str, voice: Voice) -> Utterance:
    """Say ``text`` (English). Silence around it is left as espeak gives it.

    Raises ``RuntimeError`` where espeak-ng cannot be started or does not know the voice.
    """
    blocks: list[np.ndarray] = []
    phonemes: list[tuple[float, str]] = []

    def heard(samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                phonemes.append((event.sample / _SPOKEN_RATE, event.id.string.decode("utf-8", "replace")))
            index += 1
        return 0

    callback = _Callback(heard)
    with _ONE_AT_A_TIME, _fresh_library() as library:
        library.espeak_SetSynthCallback(callback)
        name = f"{voice.accent}+{voice.variant}"
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise RuntimeError(f"espeak-ng knows no voice {name!r}")
        for parameter, value in (
            (_WORDS_PER_MINUTE, voice.rate),
            (_VOLUME, 90),
            (_PITCH, voice.pitch),
            (_PITCH_RANGE, voice.spread),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        words = text.encode()
        library.espeak_Synth(words, ctypes.c_size_t(len(words) + 1), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    if not blocks:
        raise RuntimeError(f"espeak-ng said nothing for {text!r}")
    return Utterance(_at_16_khz(np.concatenate(blocks)), tuple(phonemes))


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """espeak-ng with all its globals as they are in the file, started and seeded."""
    import espeakng_loader

    data = espeakng_loader.get_data_path().encode()
    with tempfile.TemporaryDirectory(prefix="voxface-") as folder:
        # the loader shares one image per file, so a copy is what makes the globals new
        library = ctypes.CDLL(str(shutil.copy(espeakng_loader.get_library_path(), Path(folder) / "espeak.so")))
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS)
            if rate != _SPOKEN_RATE:
                raise RuntimeError(f"espeak-ng did not start (answer {rate}): make setup installs it again")
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            ctypes.CDLL(None).srand(1)
            try:
                yield library
            finally:
                library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)


def _at_16_khz(spoken: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(spoken.astype(np.float64) / 32768.0, 320, 441).astype(np.float32)
