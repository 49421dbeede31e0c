"""Gradients of one step: micro-batches, precision, and the mean over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.amp import GradScaler

from systems.base import Batch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What losses are computed in: as the weights are, or by autocast; gradients of fp16 are scaled, phase by phase."""

    def __init__(self, name: str, device: torch.device, phases: Sequence[str]) -> None:
        self.dtype, self.device = DTYPES.get(name), device
        self.scalers = {phase: GradScaler(device.type) for phase in phases} if name == "fp16" else {}

    def casting(self) -> AbstractContextManager[Any]:
        """Autocast, if there is something to cast."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def scale(self, phase: str, loss: Tensor) -> Tensor:
        """The loss as its gradients are taken."""
        return self.scalers[phase].scale(loss) if phase in self.scalers else loss

    def state(self) -> dict[str, Any]:
        """Every scaler's state, for the checkpoint."""
        return {phase: scaler.state_dict() for phase, scaler in self.scalers.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` gave."""
        for phase, scaler in self.scalers.items():
            scaler.load_state_dict(state[phase])


def micro_batches(batch: Batch, count: int) -> Iterator[tuple[int, int, Batch]]:
    """``count`` parts of a batch as (first item, end, part), in order, their sizes at most one apart."""
    items = len(batch["key"])
    for number in range(count):
        first, stop = items * number // count, items * (number + 1) // count
        yield first, stop, {name: values[first:stop] for name, values in batch.items()}


def total_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, 0 where there is none.

    What ``nn.utils.get_total_norm`` gives for tensors of one device, without the sorting by devices.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def average(parameters: list[nn.Parameter], loss: Tensor, share: float) -> Tensor:
    """Sum gradients and loss over ranks, weighted by each rank's share of the batch; one flat all-reduce.

    A parameter that got no gradient on any rank keeps none.
    """
    got = [parameter.grad is not None for parameter in parameters]
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    marks = torch.tensor([*map(float, got)], device=loss.device)
    flat = torch.cat([*parts, loss.reshape(1).to(parts[0].dtype)]) * share
    distributed.all_reduce(flat)
    distributed.all_reduce(marks)
    place = 0
    for parameter, mark in zip(parameters, marks.tolist(), strict=True):
        if mark:
            parameter.grad = flat[place : place + parameter.numel()].view_as(parameter).clone()
        place += parameter.numel()
    return flat[-1]
