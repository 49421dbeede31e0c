"""Children that read media with PyAV, each forked for one file from a process that holds nothing else.

A program that is started anew loads its libraries for longer than most clips take to decode.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.media.process import MARK, end_marked, environment

NURSE = Path(__file__).with_name("nurse.py")
ANSWER_BYTES = 4096


class Nursery:
    """The process to fork from, started on first use and again where it has died; one per process of ours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0  # the process that started it: a fork of ours must not speak on the same line
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.spent_s = 0.0  # by it and its children that have ended; once it is waited for, ``getrusage`` counts it

    def open(self) -> None:
        """Start it, so that the first file need not wait."""
        with self._lock:
            if self._line is None or self._owner != os.getpid():
                self._start()

    def close(self) -> None:
        """End it; the next use starts another."""
        with self._lock:
            if self._line is not None and self._process is not None and self._owner == os.getpid():
                self._line.close()
                self._line = None
                self._process.kill()
                self._process.wait()
                self.spent_s = 0.0

    def order(self, message: dict[str, Any], handles: Sequence[int] = ()) -> dict[str, Any]:
        """Send an order with file descriptors; the answer. Raises ``OSError`` where it died; the next begins anew."""
        self.open()
        with self._lock:
            assert self._line is not None
            try:
                socket.send_fds(self._line, [json.dumps(message).encode()], list(handles))
                data = self._line.recv(ANSWER_BYTES)
                if not data:
                    raise ConnectionResetError("the process that decoders are forked from has died")
            except OSError:
                self._line.close()
                self._line = None
                raise
            answer: dict[str, Any] = json.loads(data)
            self.spent_s = answer.get("spent_s", self.spent_s)
            return answer

    def _start(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self.spent_s = 0.0
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -I: nothing but the interpreter's own packages
            argv = [sys.executable, "-I", str(NURSE), str(theirs.fileno())]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(
                argv,
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment(),
            )
        self._owner = os.getpid()


NURSERY = Nursery()
atexit.register(NURSERY.close)


class Fork:
    """A child at work on one job, with limits on memory, processor time and open files, that can write no file.

    ``job`` is ``scan`` or ``read``, ``arguments`` what its ``main`` takes; ``memory`` a file descriptor it shares. What
    it says comes through ``line``, a stream socket that ends when the child does.
    """

    def __init__(
        self, job: str, arguments: list[Any], *, memory_mb: int, cpu_s: float, memory: int | None = None
    ) -> None:
        self.line, theirs = socket.socketpair()
        self._mark = secrets.token_hex(8)
        order = {
            "do": job,
            "arguments": arguments,
            "environment": {MARK: self._mark},
            "memory_mb": memory_mb,
            "cpu_s": cpu_s,
        }
        self.pid = 0
        self.status: int | None = None  # exit status once ended, negative for a signal
        with theirs:
            handles = [theirs.fileno()] + ([] if memory is None else [memory])
            try:
                self.pid = NURSERY.order(order, handles)["child"]
            except OSError:  # it died at an idle moment, of whatever: once more with a new one
                try:
                    self.pid = NURSERY.order(order, handles)["child"]
                except BaseException:
                    self.line.close()
                    raise
        self._poll = select.poll()
        self._poll.register(self.line, select.POLLIN)

    def hear(self, seconds: float, most_bytes: int = 1 << 16) -> bytes | None:
        """What it says next, nothing at its end, ``None`` where it is silent for ``seconds``."""
        if not self._poll.poll(max(seconds, 0.0) * 1000):
            return None
        try:
            return self.line.recv(most_bytes)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """End it at once, and everything that it started; harmless where it has ended."""
        if self.pid:
            child, self.pid = self.pid, 0
            with contextlib.suppress(OSError):  # the nursery died, and its children with it
                self.status = NURSERY.order({"do": "end", "child": child})["status"]
            if self.status != 0:
                end_marked(f"{MARK}={self._mark}".encode())
        self.line.close()


def answer(
    job: str, arguments: list[Any], *, seconds: float, memory_mb: int, most_bytes: int
) -> tuple[int | None, bytes]:
    """Let a child do ``job`` to its end: exit status and all it says; the status is ``None`` where time ran out."""
    child = Fork(job, arguments, memory_mb=memory_mb, cpu_s=seconds)
    ended = time.monotonic() + seconds
    said = bytearray()
    try:
        while data := child.hear(ended - time.monotonic()):
            said += data[: most_bytes - len(said)]
        late = data is None
    finally:
        child.close()
    return (None if late else child.status), bytes(said)
