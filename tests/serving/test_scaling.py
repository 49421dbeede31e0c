"""Replicas follow the queue, within the bounds they were given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.scaling import UNFINISHED, ByQueue, scaling


def context(told: dict[str, float] | None, target: int = 3) -> Any:
    metrics = None if told is None else {UNFINISHED: told}
    return SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=target)


@pytest.mark.parametrize(("unfinished", "replicas"), [(0, 1), (1, 1), (16, 1), (17, 2), (200, 13)])
def test_a_replica_for_every_sixteen_videos(unfinished: int, replicas: int) -> None:
    assert ByQueue()(context({"a": unfinished, "b": unfinished})) == (replicas, {})  # one queue, told twice


def test_where_nobody_has_told_anything_nothing_changes() -> None:
    assert ByQueue()(context(None)) == (3, {})
    assert ByQueue()(context({})) == (3, {})


def test_serve_takes_the_policy(bundle: Path, tmp_path: Path) -> None:
    from ray.serve.config import AutoscalingConfig

    from serving.app import ModelArguments, build_model

    config = AutoscalingConfig.model_validate(scaling(1, 4, per_replica=8))
    assert config.policy.get_policy() is ByQueue
    assert (config.min_replicas, config.max_replicas) == (1, 4)
    fixed = build_model(ModelArguments(bundle=bundle, root=tmp_path))
    moving = build_model(ModelArguments(bundle=bundle, root=tmp_path, most=4))
    assert fixed._bound_deployment._deployment_config.autoscaling_config is None
    assert moving._bound_deployment._deployment_config.autoscaling_config.max_replicas == 4


def test_a_replica_tells_how_many_are_unfinished(bundle: Path, tmp_path: Path, speech: Any) -> None:
    import asyncio

    from serving import app
    from serving.jobs import Job
    from serving.orders import Item, Orders
    from serving.policy import admit
    from serving.service import Service

    service = Service(tmp_path / "service")
    from contracts.bundle import read_bundle

    own = read_bundle(bundle).digest
    jobs = [Job(audio=speech("a.wav", 16_000), out=Path("x.mp4"), seed=seed) for seed in range(3)]
    asked = [Item(str(n), admit(job, digest), job) for n, (job, digest) in enumerate(zip(jobs, [own, own, "c" * 64]))]
    Orders(service.ledger).submit(service.keys.local(), asked)
    service.queue.claim(own, "somebody", 1)
    replica = SimpleNamespace(service=service, bundle=SimpleNamespace(digest=own))
    stats = app.Generator.func_or_class.record_autoscaling_stats(replica)
    assert asyncio.run(stats) == {UNFINISHED: 2}
    service.close()
