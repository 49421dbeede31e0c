"""F23: any number of loader processes gives the same order and the same losses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from faults.row import Figure
from faults_train.material import CODER, apart, losses, workshop

from systems import catalogue
from training.data import Reader
from training.feed import feed

LOADERS = (0, 1, 2, 4)
STEPS = 12


def load_by(processes: int) -> None:
    """In a training process: decode ahead by that many processes."""
    from dataclasses import replace

    from training import distributed

    real = distributed.train_stage

    def train_stage(request, *rest):  # type: ignore[no-untyped-def]
        return real(replace(request, loaders=processes), *rest)

    distributed.train_stage = train_stage


def vary_loaders(folder: Path, count: int) -> Figure:
    """F23: keys and frame numbers of every step, and losses and weights of a training."""
    from dataclasses import replace

    kind = replace(CODER, settings=CODER.settings | {"steps": STEPS})
    orders, trained = [], []
    with workshop(folder) as shop:
        stage = catalogue.get(kind.system).stage(kind.stage).preset("tiny", **kind.settings)
        options = {"subset": "train", "seed": 0, "batch": stage.settings.batch}
        for processes in LOADERS[:count]:
            reader = Reader(shop.small.dataset, shop.small.selection, stage.view, **options)
            batches = feed(reader, 0, STEPS, processes)
            orders.append([(batch["key"], batch["index"].tolist()) for batch in batches])
            out = folder / f"by-{processes}"
            process = shop.start(kind, out, before=partial(load_by, processes))
            process.join()
            trained.append(process.exitcode == 0 and losses(out, kind.stage))
        difference = max(apart(folder / "by-0", folder / f"by-{n}", kind.stage) for n in LOADERS[:count])
    order = sum(each == orders[0] for each in orders)
    alike = sum(bool(each) and each == trained[0] for each in trained)
    said = f"by {', '.join(map(str, LOADERS[:count]))} loader processes: order alike {order}/{count}, losses alike "
    return Figure(f"{said}{alike}/{count}, max difference {difference}", order == alike == count and not difference)
