"""F27: which errors of a task are tried again, and how often."""

from __future__ import annotations

import time
from pathlib import Path

from faults.row import Figure

from contracts.errors import Corrupt, Misuse, Reject, Transient
from contracts.reasons import Reason


def try_again(folder: Path, count: int) -> Figure:
    """F27: a task that raises each kind of error; how often it is tried."""
    from prefect import flow, task

    from flows.retries import RETRIES
    from flows.server import shield_server

    shield_server()
    permanent = [
        Reject(Reason.NO_FACE, "none"),
        Corrupt(folder, "is not what it was", "a" * 64, "b" * 64),
        Misuse("a wrong word"),
        Transient("NO_SPACE: the disk is full"),
        ValueError("our bug"),
        MemoryError(),
    ][:count]
    tries: dict[str, int] = {}

    def attempt(error: BaseException, name: str, times: int) -> str:
        tries[name] = tries.get(name, 0) + 1
        if tries[name] <= times:
            raise error
        return name

    @flow(name="faults", validate_parameters=False)
    def run() -> list[str]:
        ended = []
        given = [(error, f"{number} {type(error).__name__}", 99) for number, error in enumerate(permanent)]
        given += [(Transient("a node was lost"), "once more", 2), (Transient("it stays"), "for good", 99)]
        for error, name, times in given:
            try:
                ended.append(task(name=name, **RETRIES)(attempt)(error, name, times))
            except BaseException as raised:
                if type(raised) is not type(error):
                    raise
        return ended

    began = time.monotonic()
    ended = run()
    extra = sum(tried - 1 for name, tried in tries.items() if name[0].isdigit())
    said = f"extra attempts on {len(permanent)} permanent errors {extra}; a transient one tried {tries['for good']} "
    said += f"times, and after {tries['once more'] - 1} failures it went on, in {time.monotonic() - began:.0f} s"
    return Figure(said, not extra and ended == ["once more"] and tries["for good"] == tries["once more"] == 3)
