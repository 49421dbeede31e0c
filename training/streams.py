"""Random numbers for every item of a stream: each item has its own, whoever asks for it, and when."""

from __future__ import annotations

import numpy as np

BUFFER = 4  # numbers that Philox makes at once


class Streams:
    """Generators by (epoch, place): Philox, its key of seed and epoch, its counter from ``place`` in the highest word.

    Setting a counter takes a tenth of the time that making and seeding a generator for each item takes.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator = np.random.Generator(np.random.Philox(0))
        self._keys: dict[int, np.ndarray] = {}

    def at(self, epoch: int, place: int) -> np.random.Generator:
        """An item's generator, at its first number. There is but one: draw for an item before the next is asked for."""
        self._generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": np.array([0, 0, 0, place], np.uint64), "key": self._key(epoch)},
            "buffer": np.zeros(BUFFER, np.uint64),
            "buffer_pos": BUFFER,  # all of it used
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator

    def _key(self, epoch: int) -> np.ndarray:
        if epoch not in self._keys:
            self._keys = {epoch: np.random.SeedSequence([self.seed, epoch]).generate_state(2, np.uint64)}
        return self._keys[epoch]
