"""Samples that were in steps whose loss was not finite: named, counted, and after a time no longer drawn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from contracts.files import commit_bytes
from contracts.settings import canonical_json
from training.checkpoint import State

QUARANTINE_FILE = "quarantine.json"

logger = logging.getLogger(__name__)


def name(state: State, keys: Sequence[str], phase: str, after: int, spare: int) -> list[str]:
    """Note the samples of a step that was not taken; return those that are not drawn from ``state.step`` on.

    A sample is out once it was in ``after`` such steps (0: never) with no finite step between them. No more
    than ``spare`` are put out: where all of a small set is suspect, none is told from the others.
    """
    for key in sorted(set(keys)):
        noted = state.named.get(key, {"times": 0, "row": 0})
        state.named[key] = {
            "step": state.step,
            "phase": phase,
            "times": int(noted["times"]) + 1,
            "row": int(noted["row"]) + 1,
        }
    suspects = [key for key, noted in sorted(state.named.items()) if after and noted["row"] >= after]
    out = [key for key in suspects if key not in state.excluded]
    if len(state.excluded) + len(out) > spare:
        logger.warning("%d samples are suspect, too many to do without: none of them is put out", len(out))
        return []
    for key in out:
        logger.warning("%s was in %d steps that were not finite: not drawn any more", key, after)
        state.excluded[key] = state.step
    return out


def acquit(state: State, keys: Sequence[str]) -> None:
    """A finite step with a sample in it: its row of steps that were not is at an end."""
    for key in keys:
        if key in state.named:
            state.named[key]["row"] = 0


def write(folder: Path, state: State) -> None:
    """``quarantine.json``: lines ``key, step, phase, times`` (the last time), and ``out``, the first step without."""
    lines = [
        {"key": key, **{of: noted[of] for of in ("step", "phase", "times")}, "out": state.excluded.get(key)}
        for key, noted in sorted(state.named.items())
    ]
    path = folder / QUARANTINE_FILE
    if lines:
        commit_bytes(path, canonical_json(lines).encode())
    else:
        path.unlink(missing_ok=True)
