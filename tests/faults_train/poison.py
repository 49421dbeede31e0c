"""F21: losses and gradients that are not finite, or explode."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from faults.row import Figure
from faults_train.material import CODER, TOY_STEPS, Workshop, reached, tensors, workshop
from forks import TOLD

from contracts.errors import Misuse
from training.loop import IN_A_ROW
from training.record import read_record

POISONS = ("nan", "inf", "huge", "gradient")


def poison(steps: list[int], how: str) -> None:
    """In a training process: spoil the loss of these steps (from 0), or its gradient alone."""
    import torch

    from systems import catalogue
    from systems.base import Losses

    kind = catalogue.get(CODER.system).stage(CODER.stage)
    real, seen = kind.loss, -1

    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("nan")

    def loss(self: Any, *arguments: Any) -> Losses:
        nonlocal seen
        found, seen = real(self, *arguments), seen + 1
        if seen not in steps:
            return found
        factors = {"nan": float("nan"), "inf": float("inf"), "huge": 1e38}
        total = Spoilt.apply(found.total) if how == "gradient" else found.total * factors[how] * 10.0
        return Losses(total, found.terms)

    kind.loss = loss  # type: ignore[method-assign]


def spoil(folder: Path, count: int) -> Figure:
    """F21: some steps spoilt, at random; every fourth time five in a row."""
    rng, exported, counted, kept, stopped, rows = random.Random(21), 0, 0, 0, 0, 0
    with workshop(folder) as shop:
        for trial in range(count):
            out, how = folder / f"spoilt-{trial}", POISONS[trial // 2 % len(POISONS)]
            if in_a_row := trial % 4 == 3:
                first = rng.randrange(6, TOY_STEPS - IN_A_ROW)
                steps = [*range(first, first + IN_A_ROW)]
            else:
                steps = sorted(rng.sample(range(TOY_STEPS // 4), 3))
                steps = [4 * step + 1 for step in steps]  # no two in a row
            process = shop.start(CODER, out, before=partial(poison, steps, how))
            process.join()
            exported += not all(np.isfinite(value).all() for value in tensors(out, "coder").values())
            skipped = [line["step"] - 1 for line in read_record(out / "coder") if line["kind"] == "skipped"]
            counted += skipped == steps
            if in_a_row:
                rows += 1
                stopped += stops(shop, out, steps)
            else:
                kept += process.exitcode == 0 and bool(tensors(out, "coder"))
    said = f"steps skipped and recorded {counted}/{count}, trained on to the end {kept}/{count - rows}, stopped after "
    said += f"{IN_A_ROW} in a row with good weights to go on from {stopped}/{rows}, exports not finite {exported}"
    return Figure(said, counted == count and kept == count - rows and stopped == rows and not exported)


def stops(shop: Workshop, out: Path, steps: list[int]) -> bool:
    """Whether training ended with Misuse and without an artifact, and goes on unspoilt from before to the end."""
    told = (out / TOLD.format("")).read_text() if (out / TOLD.format("")).is_file() else ""
    refused = Misuse.__name__ in told and not tensors(out, "coder") and reached(out, "coder") <= steps[0]
    shop.run(CODER, out)
    whole = tensors(out, "coder")
    return refused and bool(whole) and all(np.isfinite(value).all() for value in whole.values())
