"""Draws of a part of the batch: the numbers the whole batch would have had."""

from __future__ import annotations

import torch

from training.draws import Draws

ITEMS, CUTS = 6, ((0, 6), (0, 3), (3, 6), (2, 3), (1, 5))


def drawn(call, first: int, stop: int):
    rng, own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(100 + first)
    with Draws(rng, own, first, stop, ITEMS):
        return call(stop - first, rng)


def several(items: int, rng: torch.Generator) -> list[torch.Tensor]:
    """Draws in the forms that losses use, one after another."""
    return [
        torch.rand(items, generator=rng),
        torch.randn((items, 5, 7), generator=rng),
        torch.randint(0, 1000, (items,), generator=rng),
        torch.randint(1000, (items, 2), generator=rng),
        torch.randn(items, 3, generator=rng, dtype=torch.float64),
        torch.randn(size=(items, 2), generator=rng),
        torch.randn(4 * items, 2, generator=rng),  # four of each item
    ]


def test_a_part_gets_its_items_numbers_of_the_whole():
    rng = torch.Generator().manual_seed(1)
    whole = several(ITEMS, rng)
    for first, stop in CUTS:
        for part, all_of_it in zip(drawn(several, first, stop), whole, strict=True):
            each = len(all_of_it) // ITEMS
            assert torch.equal(part, all_of_it[each * first : each * stop])
            assert part.dtype == all_of_it.dtype


def test_what_belongs_to_no_item_is_everybodys_or_ones_own():
    def coin(items, rng):
        return torch.rand((), generator=rng)

    def odd(items, rng):
        return torch.randn(5, generator=rng)

    def order(items, rng):
        return torch.randperm(1000, generator=rng)

    def after(items, rng):
        torch.randn(5, generator=rng)
        torch.empty(3).normal_(generator=rng)
        return torch.rand(items, generator=rng)

    assert torch.equal(drawn(coin, 0, 3), drawn(coin, 3, 6))
    assert not torch.equal(drawn(odd, 0, 3), drawn(odd, 3, 6)), "two workers drew the same noise for different items"
    assert not torch.equal(drawn(order, 0, 3), drawn(order, 3, 6))
    whole = drawn(lambda items, rng: torch.rand(items, generator=rng), 0, 6)
    assert torch.equal(drawn(after, 3, 6), whole[3:]), "one's own draws moved the shared ones"


def test_other_generators_are_left_alone():
    other = torch.Generator().manual_seed(5)
    expected = torch.randn(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(drawn(lambda items, rng: torch.randn(3, generator=other), 3, 6), expected)
    torch.manual_seed(5)
    with Draws(torch.Generator(), torch.Generator(), 0, 3, 6):
        assert torch.equal(torch.randn(3), expected)
