"""What is offered changes while the service runs: the new is loaded first, the old goes when its work is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import read_bundle
from contracts.errors import Corrupt
from serving.fleet import Fleet
from serving.jobs import Inputs, Job
from serving.keys import Keys
from serving.ledger import Ledger
from serving.offer import Offer
from serving.orders import Item, Orders
from serving.queue import Queue
from serving.service import Service

Wanted = tuple[str, str, Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> list[Wanted]:
    """Two bundles of the toy, both as champion."""

    def louder(models: dict[str, Any]) -> None:
        models["mouth"]["gain"].gain.weight.data.fill_(9.0)

    folders = [make_bundle(tmp_path_factory.mktemp("old")), make_bundle(tmp_path_factory.mktemp("new"), louder)]
    return [("champion", read_bundle(folder).digest, folder) for folder in folders]


class Engine:
    """Applications that come and go, by folder."""

    def __init__(self) -> None:
        self.up: list[str] = []
        self.loads: list[Path] = []
        self.damaged: set[Path] = set()

    def load(self, folder: Path) -> str:
        self.loads.append(folder)
        if folder in self.damaged:
            raise Corrupt(folder, "was altered", "1" * 64, "2" * 64)
        self.up.append(f"app of {folder}")
        return self.up[-1]


def ask(ledger: Ledger, digest: str, seed: int) -> None:
    inputs = Inputs(bundle=digest, audio="a" * 64, seed=seed)
    job = Job(audio=Path("a.wav"), out=Path("x.mp4"), seed=seed)
    Orders(ledger).submit(Keys(ledger).local(), [Item(str(seed), inputs, job)])


def test_a_moved_alias_is_followed_and_the_old_one_finishes_its_work(
    ledger: Ledger, pair: list[Wanted], tmp_path: Path
) -> None:
    (_, old, _), (_, new, folder) = first, second = pair
    engine, queue, door = Engine(), Queue(ledger), Service(tmp_path, follows=True)
    engine.up.append("first")
    fleet = Fleet(Offer(tmp_path), queue, {old: "first"}, engine.load, engine.up.remove)
    assert fleet.follow([first])
    assert not fleet.follow([first]), "nothing moved"
    assert [model.digest for model in door.models.all] == [old]
    ask(ledger, old, 0)
    assert fleet.follow([second])
    assert [model.digest for model in door.models.all] == [new]
    assert engine.loads == [folder]
    assert fleet.settle() == [], "the old one has work left"
    (claim,) = queue.claim(old, "one", 1)
    assert fleet.settle() == []
    queue.release([claim])
    (job,) = Orders(ledger).page(Keys(ledger).local(), 10)[0]
    Orders(ledger).cancel(Keys(ledger).local(), job.job)
    assert fleet.settle() == [old]
    assert engine.up == [f"app of {folder}"]
    door.close()


def test_a_canary_stands_beside_the_champion(ledger: Ledger, pair: list[Wanted], tmp_path: Path) -> None:
    (_, old, _), (_, new, folder) = pair
    engine, door = Engine(), Service(tmp_path, follows=True)
    fleet = Fleet(Offer(tmp_path), Queue(ledger), {old: "first"}, engine.load, engine.up.remove)
    assert fleet.follow([pair[0], ("canary", new, folder)])
    assert door.models.find("loudmouth", "canary").digest == new
    assert door.models.find("loudmouth", "champion").digest == old
    assert door.models.find(None, new[:12]).alias == "canary"
    assert fleet.settle() == []
    door.close()


def test_what_does_not_load_is_not_offered_nor_tried_again_until_the_alias_moves(
    ledger: Ledger, pair: list[Wanted], tmp_path: Path
) -> None:
    first, second = pair
    engine, door = Engine(), Service(tmp_path, follows=True)
    engine.damaged.add(second[2])
    fleet = Fleet(Offer(tmp_path), Queue(ledger), {first[1]: "first"}, engine.load, engine.up.remove)
    assert fleet.follow([first])
    assert not fleet.follow([second])
    assert not fleet.follow([second])
    assert len(engine.loads) == 1
    assert [model.digest for model in door.models.all] == [first[1]]
    assert fleet.settle() == []
    assert not fleet.follow([("champion", "f" * 64, second[2])]), "registered as another bundle"
    assert len(engine.loads) == 1
    engine.damaged.clear()
    assert not fleet.follow([first])
    assert fleet.follow([second]), "the alias went back and came again"
    door.close()


def test_an_offer_that_cannot_be_read_changes_nothing(pair: list[Wanted], tmp_path: Path) -> None:
    offer = Offer(tmp_path)
    assert offer.read() is None
    alias, digest, folder = pair[0]
    offer.write([(alias, folder)])
    for broken in ("{", '[["champion"]]', f'[["champion", "{tmp_path / "none"}"]]', "[]"):
        found = offer.read()
        assert found is not None
        assert found.all[0].digest == digest
        offer.path.write_text(broken)


def test_a_service_that_follows_nothing_ignores_the_offer(pair: list[Wanted], tmp_path: Path) -> None:
    Offer(tmp_path).write([(pair[1][0], pair[1][2])])
    service = Service(tmp_path)
    assert service._offer is None
    service.close()
