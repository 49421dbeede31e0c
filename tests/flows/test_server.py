"""Ctrl-C reaches every process of a command; Prefect's temporary server must outlive it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.server import shield_server


def test_the_server_is_started_deaf_to_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def start(server: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", start)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        shield_server()
    assert SubprocessASGIServer._run_uvicorn_command is start, "a server stands: none will be started"
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        shield_server()
        shield_server()  # once is enough
    child = SubprocessASGIServer._run_uvicorn_command(None)
    try:
        (blocked,) = [line for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if "SigBlk" in line]
        assert int(blocked.split()[1], 16) & 1 << signal.SIGINT - 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        child.terminate()
        assert child.wait(20) == -signal.SIGTERM
    finally:
        child.kill()
