"""Child processes that cannot outlive, outgrow or outwait us: the only place that starts them (beside ``nursery``)."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from contracts.errors import Reject
from contracts.reasons import Reason

LOG_BYTES = 64 * 1024  # of a child's messages, the last are kept: they hold the cause and the counts
OPEN_FILES = 64
ROUNDS = 10  # of looking for what a child has left behind: a killed one may take a moment to go
MARK = "VOXFACE_CHILD"  # in the environment of a child, and so of all that it starts
GRACE_S = 0.5  # after a child's pipes have closed, how long it may take to end


def ffmpeg_binary() -> str:
    """The ffmpeg to run: ``IMAGEIO_FFMPEG_EXE``, or the one that imageio-ffmpeg ships."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


class Budget:
    """Seconds that may be spent waiting on a child; the caller's own work between waits is free."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds

    @contextlib.contextmanager
    def spend(self) -> Iterator[None]:
        """Count the time inside against the budget."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.left -= time.monotonic() - began

    def overrun(self) -> Reject:
        """The refusal for a child that did not finish in time."""
        return Reject(Reason.TIMEOUT, f"decoding took longer than {self.seconds:g} s")


class Child:
    """A process in a group of its own, with limits on memory, processor time, file size and open files.

    ``memory_mb`` bounds the address space, ``cpu_s`` the processor time, ``file_bytes`` each file written. ``inherit``
    are file descriptors that it keeps, under the same numbers. ``log`` holds the end of its messages.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        memory_mb: int,
        cpu_s: float,
        file_bytes: int = 0,
        inherit: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self._log = bytearray()
        self._mark = secrets.token_hex(8)
        self.process = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=tuple(inherit),
            start_new_session=True,
            env=environment() | {MARK: self._mark},
        )
        self._restrict(memory_mb, cpu_s, file_bytes)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _restrict(self, memory_mb: int, cpu_s: float, file_bytes: int) -> None:
        # prlimit from outside, not preexec_fn: the latter can deadlock where the parent has threads
        memory, cpu = memory_mb * 1024 * 1024, int(cpu_s) + 1
        for limit, soft, hard in (
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_CPU, cpu, cpu + 1),
            (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
            (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
            (resource.RLIMIT_CORE, 0, 0),
        ):
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):  # it has ended already
                resource.prlimit(self.process.pid, limit, (soft, hard))

    def _listen(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with contextlib.suppress(ValueError, OSError):
            while data := os.read(stream.fileno(), 8192):
                self._log += data
                if len(self._log) > 2 * LOG_BYTES:
                    del self._log[:-LOG_BYTES]

    @property
    def log(self) -> str:
        """The last 64 KB of what it wrote to standard error."""
        return bytes(self._log[-LOG_BYTES:]).decode("utf-8", "replace")

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative for a signal; ``None`` where it is still running after ``seconds``."""
        try:
            status = self.process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return None
        self._listener.join(GRACE_S)
        return status

    def kill(self) -> None:
        """End it and everything that it started, at once; harmless where it has ended.

        Where it was still at work, processes that left its group go, too, unless they also threw away its environment.
        """
        cut = self.process.poll() is None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if cut:
            end_marked(f"{MARK}={self._mark}".encode())
        self._listener.join(GRACE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Drain(threading.Thread):
    """Reads a pipe to its end and keeps the first ``most_bytes``, so that its writer never stops."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._most = most_bytes
        self._kept = bytearray()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            while data := os.read(self._stream.fileno(), 1 << 16):
                self._kept += data[: self._most - len(self._kept)]

    @property
    def data(self) -> bytes:
        """What was kept."""
        return bytes(self._kept)


def end_marked(mark: bytes) -> None:
    """SIGKILL to all processes with ``mark`` in their environment, again as long as they start others."""
    for _ in range(ROUNDS):
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and _has(name, mark)]
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not found:
            return


def _has(process: str, mark: bytes) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as file:
        return mark in file.read().split(b"\0")
    return False  # it has ended, or is somebody else's


def environment() -> dict[str, str]:
    """Next to nothing is inherited: FFREPORT, for one, would make ffmpeg write files."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
