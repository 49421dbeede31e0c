"""A webdataset pipeline that decodes batches ahead, in the order that the reader fixes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from systems.base import Batch
from training.data import Reader


@dataclass
class Steps(IterableDataset[int]):
    """Steps ``start`` to ``stop``; loader process i of k takes every k-th.

    The loader asks its processes in turn, so batches arrive in the order of steps for any k.
    """

    start: int
    stop: int

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, stride = (self.start + info.id, info.num_workers) if info else (self.start, 1)
        return iter(range(first, self.stop, stride))


def feed(reader: Reader, start: int, stop: int, processes: int = 0) -> Iterator[Batch]:
    """The reader's batches ``start`` to ``stop``, decoded by ``processes`` ahead (0: in this process).

    Their pictures are bytes still: whoever moves a batch to its device makes them numbers there.
    """
    pipeline = wds.DataPipeline(Steps(start, stop), wds.map(reader.load))
    if not processes:
        yield from pipeline
        return
    # forked processes hang where a decoder's threads ran before
    options: dict[str, Any] = {"multiprocessing_context": "spawn", "prefetch_factor": 2}
    yield from wds.WebLoader(pipeline, batch_size=None, num_workers=processes, **options)
