"""Four error roots and the exit codes they end a command with."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from contracts.reasons import Reason


class Exit(IntEnum):
    """Exit codes of every ``voxface`` command."""

    DONE = 0  # rejections are allowed
    FAILED = 1  # rows failed, or our bug
    MISUSE = 2
    MISSED = 3  # a budget or a bar was missed
    CORRUPT = 4
    TRANSIENT = 75  # retries exhausted, or no space left
    INTERRUPTED = 130  # SIGINT
    TERMINATED = 143  # SIGTERM


class VoxfaceError(Exception):
    """Root of the errors that voxface raises on purpose; never raised itself."""

    exit_code = Exit.FAILED


class Reject(VoxfaceError):
    """This input cannot be used. It becomes a line in the ledger, and the run goes on."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = Reason(reason)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class Transient(VoxfaceError):
    """Worth another try: a full disk, a store that does not answer."""

    exit_code = Exit.TRANSIENT


class Misuse(VoxfaceError):
    """The caller's mistake, told in one line that also says the mend."""

    exit_code = Exit.MISUSE


class Corrupt(VoxfaceError):
    """Stored data is not what its record says. Work stops; file and both digests are named."""

    exit_code = Exit.CORRUPT

    def __init__(self, file: str | Path, problem: str, expected: str = "", actual: str = "") -> None:
        super().__init__(str(file), problem, expected, actual)
        self.file = str(file)
        self.problem = problem
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        digests = f" (expected {self.expected}, found {self.actual})" if self.expected or self.actual else ""
        return f"{self.file}: {self.problem}{digests}"
