"""Bare processes for tests, forked within milliseconds from a clean one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

TOLD = "fork-error-{}.txt"  # a process's traceback, in the folder that it was given


@contextmanager
def forking(*modules: str) -> Iterator[Any]:
    """A multiprocessing context whose processes come with ``modules`` imported, and with today's environment."""
    server, before = forkserver._forkserver, os.environ.get("PYTHONPATH")
    server._stop()  # of another test: it has imported other modules
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    try:
        yield context
    finally:
        server._stop()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def server_process() -> int:
    """The process that they are forked from, 0 where there is none."""
    return forkserver._forkserver._forkserver_pid or 0


def telling(folder: Path, name: object, function: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Run in a process of its own: what ``function`` raises is left in ``folder`` for :func:`finish`."""
    try:
        function(*arguments)
    except BaseException:
        (folder / TOLD.format(name)).write_text(traceback.format_exc())
        raise


def finish(processes: Sequence[Any], folder: Path, seconds: float) -> None:
    """Wait until all have ended well. The first that did not, or the time being over, ends the others at once."""
    deadline, waiting = time.monotonic() + seconds, list(processes)
    try:
        while waiting:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(waiting)} of {len(processes)} processes did not end within {seconds:.0f} s"
            connection.wait([process.sentinel for process in waiting], left)
            for process in [each for each in waiting if not each.is_alive()]:
                assert process.exitcode == 0, f"a process ended with {process.exitcode}\n{_told(folder)}"
                waiting.remove(process)
    finally:
        for process in processes:
            with suppress(ValueError):
                process.kill()
                process.join()


def _told(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob(TOLD.format("*"))))
