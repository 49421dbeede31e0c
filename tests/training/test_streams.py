"""Random numbers by epoch and place."""

from __future__ import annotations

import pickle

from training.streams import Streams


def test_an_item_gets_the_same_numbers_whoever_asked_before() -> None:
    streams = Streams(3)
    wanted = [(0, 1), (0, 2), (1, 1), (2**32 - 1, 1)]
    first = [streams.at(*place).integers(2**60, size=5).tolist() for place in wanted]
    streams.at(5, 5).integers(2**30)  # leaves half a number behind
    assert [
        pickle.loads(pickle.dumps(streams)).at(*place).integers(2**60, size=5).tolist() for place in wanted
    ] == first
    assert [streams.at(*place).integers(2**60, size=5).tolist() for place in reversed(wanted)] == first[::-1]
    assert len({number for row in first for number in row}) == 20
    assert Streams(4).at(0, 1).integers(2**60, size=5).tolist() != first[0]
