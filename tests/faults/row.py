"""One row of the fault matrix: what is broken, what must hold then, and the function that measures it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOM = 4 << 30  # bytes that must be free in memory
MARK = "VOXFACE_FAULT"  # in the environment of what a row starts: its processes are found by it
WORK = "VOXFACE_FAULT_WORK"  # the same: the work folder of the commands that it starts


def short_folder(prefix: str) -> Path:
    """A new folder with a short path (Ray's sockets may have 107 bytes), in memory where there is a disk of that kind.

    What a killed process leaves behind is the same on any disk, and there syncing costs nothing.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if roomy else "/tmp"))


class Skip(Exception):
    """The row cannot be tried here; the message says why."""


@dataclass(frozen=True)
class Figure:
    """What was measured, in words and numbers, and whether the target held."""

    said: str
    held: bool


@dataclass(frozen=True)
class Row:
    """``measure(folder, count)`` breaks things ``count`` times in an empty ``folder`` (a short path)."""

    id: str
    says: str
    target: str  # {count} stands for how often
    measure: Callable[[Path, int], Figure]
    few: int  # in the tests
    full: int  # in the campaign
    alone: bool = False  # whether nothing else may run meanwhile: its promise is one of the clock
    commands: bool = False  # whether it starts commands that need Prefect's server


_NOTE: list[Path] = []


def note_in(file: Path | None) -> None:
    """From now on :func:`reached` writes there, or nowhere."""
    _NOTE[:] = [file] if file else []


def reached(done: int, count: int) -> None:
    """So many of the row's faults are done."""
    for file in _NOTE:
        file.write_text(f"{done}/{count}")


def marked(mark: str) -> set[int]:
    """Living processes that inherited ``mark``, but not this one."""
    wanted, found = f"{MARK}={mark}".encode(), set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            alive = entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and wanted in entry.joinpath("environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def kill_marked(mark: str, *spared: int) -> None:
    """SIGKILL to all processes of ``mark`` but the ``spared``, until none is left."""
    ended = time.monotonic() + 10
    while (processes := marked(mark).difference(spared)) and time.monotonic() < ended:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
