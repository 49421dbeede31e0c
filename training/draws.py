"""A loss's random draws as parts of the whole batch's, whoever computes which items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SIZED: dict[Callable[..., Any], int] = {torch.rand: 0, torch.randn: 0, torch.randint: -1}  # where the size stands


class Draws(TorchFunctionMode):
    """Inside, ``torch.rand``, ``randn`` and ``randint`` with ``shared`` give items ``first`` to ``stop`` of ``of``.

    A draw whose first dimension is m times the items here is drawn for all ``of`` items, item by item in its
    order, and cut: item i of the global batch gets the same numbers for any number of workers and micro-batches.
    A draw of no dimension is everybody's. What cannot be shared out so (another first dimension, ``randperm``,
    in-place draws) comes from ``own``, so that two workers never draw the same numbers for different items.
    A draw in which time stands before items is cut in the wrong place: still random, but not the same for any number.
    """

    def __init__(self, shared: torch.Generator, own: torch.Generator, first: int, stop: int, of: int) -> None:
        super().__init__()
        self.shared, self.own = shared, own
        self.first, self.stop, self.of = first, stop, of

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if named.get("generator") is not self.shared:
            return function(*args, **named)
        if function in SIZED:
            size, before = _size(function, args, named)
            here = self.stop - self.first
            if not size:
                return function(*args, **named)
            if size[0] and size[0] % here == 0:
                each = size[0] // here
                named["size"] = (each * self.of, *size[1:])
                return function(*before, **named)[each * self.first : each * self.stop]
        return function(*args, **named | {"generator": self.own})


def _size(
    function: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]
) -> tuple[tuple[int, ...], Sequence[Any]]:
    """The size asked for, and the arguments that stand before it (bounds of ``randint``)."""
    if "size" in named:
        return tuple(named["size"]), args
    if SIZED[function]:
        return tuple(args[-1]), args[:-1]
    return tuple(args[0]) if args and not isinstance(args[0], int) else tuple(args), ()
