"""The process from which decoders are forked: it loads PyAV once, opens no file itself, and ends with its owner.

Run as a script by ``nursery``; it imports nothing of ours but the two files beside it that do the work, so that a
forked child holds nothing that a hostile file could reach. Orders are JSON messages on a socket, one answer each.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDER_BYTES = 1 << 16
OPEN_FILES = 64
PR_SET_PDEATHSIG = 1


def main(number: int) -> None:
    """Serve orders on the socket with file descriptor ``number`` until its other end is closed."""
    os.chdir("/")  # it keeps no folder from being removed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle; it closes the socket
    line = socket.socket(fileno=number)
    jobs = {name: _loaded(name).main for name in ("scan", "read")}
    children: set[int] = set()
    gc.freeze()  # no child looks through, and so copies, what is loaded here
    while message := socket.recv_fds(line, ORDER_BYTES, 2):
        data, handles, _, _ = message
        if not data:
            break
        order = json.loads(data)
        if order["do"] == "end":
            answer = _ended(order["child"])
            children.discard(order["child"])
        else:
            child = os.fork()
            if child == 0:
                _work(line, handles, jobs[order["do"]], order)
            for handle in handles:
                os.close(handle)
            children.add(child)
            answer = {"child": child}
        line.send(json.dumps(answer).encode())
    for child in children:
        _ended(child)


def _loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ended(child: int) -> dict[str, Any]:
    """Kill the child (a zombie until now, where it has ended by itself, so that its number is no one else's)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # before it made a group of its own
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "status": os.waitstatus_to_exitcode(status),
        "spent_s": sum(usage.ru_utime + usage.ru_stime for usage in spent),  # by all since the beginning
    }


def _work(line: socket.socket, handles: list[int], job: Callable[..., Any], order: dict[str, Any]) -> None:
    """Do the job under its limits and say how it ended: never returns."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        line.close()
        os.environ.update(order["environment"])  # of all that it might start
        memory, seconds = order["memory_mb"] << 20, int(order["cpu_s"]) + 1
        for limit, soft, hard in (
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_CPU, seconds, seconds + 1),
            (resource.RLIMIT_FSIZE, 0, 0),
            (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
            (resource.RLIMIT_CORE, 0, 0),
        ):
            resource.setrlimit(limit, (soft, hard))
        told, *more = handles
        owner = socket.socket(fileno=told)  # never closed here: its end is heard once this process is ending
        try:
            found = job(*order["arguments"], *([owner, *more] if more else []))
        except BaseException as error:  # whatever the library says about a file is the finding
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        owner.sendall(json.dumps(found).encode())
        os._exit(0)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
