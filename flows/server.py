"""Prefect's temporary server: Ctrl-C in a terminal is for the command, which stops the server at its end."""

from __future__ import annotations

import signal
from typing import Any


def shield_server() -> None:
    """Let Prefect start its temporary server deaf to SIGINT, which a terminal sends to all of a command's processes.

    Were it gone first, the command would look for it, again and again, for more than a minute. SIGTERM ends it.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return  # one stands already; what would start one takes seconds to import

    from prefect.server.api.server import SubprocessASGIServer

    start = SubprocessASGIServer._run_uvicorn_command
    if getattr(start, "shielded", False):
        return

    def shielded(server: Any) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits it
        try:
            return start(server)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    shielded.shielded = True  # type: ignore[attr-defined]
    SubprocessASGIServer._run_uvicorn_command = shielded
