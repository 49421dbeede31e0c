"""Draws belong to items."""

import torch

from systems.common.noise import item_generators, normal, seed_generators


def _batch(*keys):
    return {"key": list(keys), "index": torch.tensor([[i] for i in range(len(keys))])}


def test_an_item_draws_the_same_beside_others():
    rng = torch.Generator().manual_seed(5)
    both = normal(item_generators(_batch("a", "b"), rng), 3, 2)
    alone = normal(item_generators({"key": ["b"], "index": torch.tensor([[1]])}, rng), 3, 2)
    assert both.shape == (2, 3, 2)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_key_frame_and_seed_decide():
    def draw(key, index, seed):
        batch = {"key": [key], "index": torch.tensor([[index]])}
        return normal(item_generators(batch, torch.Generator().manual_seed(seed)), 4)

    draws = [draw("a", 0, 0), draw("b", 0, 0), draw("a", 1, 0), draw("a", 0, 1)]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(draws[i], draws[j])


def test_a_request_draws_by_its_seed():
    assert torch.equal(normal(seed_generators([1, 2]), 4)[1], normal(seed_generators([2]), 4)[0])
