"""One run of one command: its log, its record, its progress, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from contracts.errors import Exit, Reject, VoxfaceError
from contracts.files import commit_bytes
from flows.console import Overheard, Progress, note_error, progress_bar, show
from flows.places import Places

log = logging.getLogger(__name__)


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is not to be caught on the way."""


class Ended(Exception):
    """The command has said its result and ends with another code than 0."""

    def __init__(self, code: Exit, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass
class Run:
    """A running command. ``finish`` says its result, once."""

    command: str
    places: Places
    json: bool
    quiet: bool
    dry: bool
    record: Path
    out: TextIO
    result: dict[str, Any] = field(default_factory=dict)

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        """A progress bar under ``title``."""
        return progress_bar(title, self.quiet)

    def note(self, text: str) -> None:
        """One line for the person watching, and for the log."""
        log.info("%s", text)
        if not self.quiet:
            note_error(text)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Print the result and keep it in the record."""
        self.result = dict(result)
        show(result, self.json, self.out)


@contextmanager
def running(
    command: str, *, work: Path, json: bool = False, quiet: bool = False, dry_run: bool = False
) -> Iterator[Run]:
    """Run a command: log to ``runs/<time>-<command>-<pid>.log``, record to ``.json`` beside it.

    Whatever is raised goes through, after its traceback has been logged.
    """
    places = Places(work)
    started = datetime.now(UTC)
    places.runs.mkdir(parents=True, exist_ok=True)
    name = f"{started:%Y%m%dT%H%M%S}-{command.replace(' ', '-')}-{os.getpid()}"
    handler = logging.FileHandler(places.runs / f"{name}.log", delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)  # Prefect finds a handler here and writes nothing to the terminal
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request to Prefect's server
    run = Run(command, places, json, quiet, dry_run, places.runs / f"{name}.json", sys.stdout)
    code, error = Exit.DONE, ""
    log.info("started: %s", command_line())
    try:
        with redirect_stdout(Overheard()):
            yield run
    except BaseException as problem:
        code, error = exit_code(problem), str(problem)
        if not isinstance(problem, Ended):
            log.error("%s", "".join(traceback.format_exception(problem)))
        raise
    finally:
        record = {
            "command": command,
            "line": command_line(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
            "dry_run": run.dry,
            "exit_code": int(code),
            "error": error,
            "log": str(handler.baseFilename),
            "result": run.result,
        }
        log.info("ended with exit code %d after %s s", code, record["seconds"])
        _write(run.record, record)
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def exit_code(problem: BaseException) -> Exit:
    """The exit code that ``problem`` ends a command with."""
    match problem:
        case Ended(code=code):
            return code
        case Reject():  # raised out of a command: the one input that it was given
            return Exit.MISUSE
        case VoxfaceError(exit_code=code):
            return Exit(code)
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case Terminated():
            return Exit.TERMINATED
        case SystemExit(code=int() as code):
            return Exit(code) if code in set(Exit) else Exit.FAILED
    return Exit.FAILED


def command_line() -> str:
    """The line that starts this run again, without a password that somebody wrote into an address."""
    return re.sub(r"(://)[^/\s@]*@", r"\1***@", shlex.join(["voxface", *sys.argv[1:]]))


def _write(path: Path, record: dict[str, Any]) -> None:
    try:
        commit_bytes(path, json.dumps(record, ensure_ascii=False, default=str, indent=1).encode())
    except (OSError, VoxfaceError) as error:  # a full disk must not hide why the command ended
        note_error(f"{path}: could not be written: {error}")
