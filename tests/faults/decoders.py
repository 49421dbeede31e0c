"""F15: a decoder that hangs, floods its messages, or leaves children behind."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

from faults.material import FRAMES, record_clips, until
from faults.row import Figure, reached

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.media import decode, decode_sound, probe

DEADLINE_S = 1.0
HANG = "time.sleep(600)"
FLOOD = "while True: sys.stderr.write('x' * 100_000)"
FORK = "[subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', __file__]) for _ in range(3)]; " + HANG
DAEMON = (
    """subprocess.Popen([sys.executable, '-c',
    'import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)', __file__]); """
    + HANG
)
WAYS = (HANG, FLOOD, FORK, DAEMON)


def running(script: Path) -> set[int]:
    """Living processes whose command line names ``script``."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(script).encode() in entry.joinpath("cmdline").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def hang(folder: Path, count: int) -> Figure:
    """Each clip or sound is decoded by a program that does not do its work; the deadline is one second."""
    record_clips(folder, 1)
    limits = Limits(decode_deadline_s=DEADLINE_S)
    found = replace(probe(folder / "talk-0.mp4"), pixels="rgb24")  # as RGB: that is left to ffmpeg
    with decode(found) as decoding:
        assert len(list(decoding)) == FRAMES, "the right decoder reads it; what is imported at first use is loaded now"
    program = folder / "decoder"
    overshoots, refused, orphans = [], 0, 0
    heard = probe(folder / "speech.wav", need=("audio",))  # a look at the file is not what is measured
    known = mock.patch("preprocessing.media.sound.probe", return_value=heard)
    with known, mock.patch.dict(os.environ, {"IMAGEIO_FFMPEG_EXE": str(program)}):
        for trial in range(count):
            program.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\n{WAYS[trial % len(WAYS)]}\n")
            program.chmod(0o755)
            began = time.monotonic()
            try:
                if (trial + trial // len(WAYS)) % 2:  # each way, both kinds
                    decode_sound(folder / "speech.wav", limits)
                else:
                    with decode(found, limits) as decoding:
                        for _ in decoding:
                            pass
            except Reject as error:
                refused += error.reason is Reason.TIMEOUT
            overshoots.append(time.monotonic() - began - DEADLINE_S)
            orphans += not until(lambda: not running(program), 0.5)
            reached(trial + 1, count)
    worst = sorted(overshoots)[math.ceil(0.99 * count) - 1]
    said = f"TIMEOUT {refused}/{count}, overshoot p99 {worst:.2f} s, orphans {orphans}"
    return Figure(said, refused == count and worst < 1 and not orphans)
