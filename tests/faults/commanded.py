"""``voxface`` in a process of its own that was forked, not started: what it imports stands already."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any


class Command:
    """``voxface WORDS`` at work, in a process group of its own."""

    def __init__(self, context: Any, words: list[str], said: Path) -> None:
        self._said = said
        self._process = context.Process(target=command, args=(words, str(said)))
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, seconds: float) -> int | None:
        """The same once it has ended, or ``seconds`` are over."""
        self._process.join(seconds)
        return self.poll()

    def said(self) -> str:
        """What it wrote to standard error."""
        return self._said.read_text() if self._said.exists() else ""


def command(words: list[str], said: str) -> None:
    """Be ``voxface WORDS`` in a session of its own, its standard error in the file ``said``; end as it does."""
    os.setsid()
    for name, mode, handle in ((os.devnull, os.O_RDONLY, 0), (os.devnull, os.O_WRONLY, 1), (said, os.O_WRONLY, 2)):
        opened = os.open(name, mode | os.O_CREAT, 0o600)
        os.dup2(opened, handle)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(handle, mode) for handle, mode in ((0, "r"), (1, "w"), (2, "w")))
    sys.argv = ["voxface", *words]
    from flows.__main__ import main

    try:
        main()
    except KeyboardInterrupt:  # before it listens: as an interpreter ends then
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:  # what an interpreter does at its end, and a fork does not
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
