"""Learning rates over the steps of a stage: pure functions of the step, so that there is nothing to save."""

from __future__ import annotations

import math

from systems.base import StageSettings


def pace(settings: StageSettings, step: int) -> float:
    """The share of its own rate that every parameter group learns at in ``step`` (0-based), in (0, 1].

    Rises in a line over ``warmup`` steps, ``(step + 1) / warmup``; then stays, or falls by half a cosine
    from 1 to nearly 0 at the last step.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def paced(settings: StageSettings) -> bool:
    """Whether rates are anything but the stage's own."""
    return bool(settings.warmup) or settings.schedule != "constant"
