"""A webdataset pipeline that decodes batches ahead, in the order that the reader fixes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from systems.base import Batch
from training.data import Reader, collate


@dataclass
class Positions(IterableDataset[int]):
    """Positions of the items of steps ``start`` to ``stop``; loader process i of k takes every k-th step.

    The loader asks its processes in turn, so batches arrive in the order of steps for any k.
    """

    reader: Reader
    start: int
    stop: int

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, stride = (self.start + info.id, info.num_workers) if info else (self.start, 1)
        for step in range(first, self.stop, stride):
            yield from self.reader.positions(step)


def feed(reader: Reader, start: int, stop: int, processes: int = 0) -> Iterator[Batch]:
    """The reader's batches ``start`` to ``stop``, decoded by ``processes`` ahead (0: in this process)."""
    pipeline = wds.DataPipeline(
        Positions(reader, start, stop),
        wds.map(reader.item),
        wds.batched(len(reader.positions(start)), collation_fn=collate, partial=False),
    )
    options: dict[str, Any] = {"batch_size": None, "num_workers": processes}
    if processes:
        # forked processes hang where a decoder's threads ran before
        options |= {"multiprocessing_context": "spawn", "prefetch_factor": 2}
    yield from wds.WebLoader(pipeline, **options)
