"""How many replicas the queue of a bundle asks for: Ray Serve's own count of requests sees nothing of it."""

from __future__ import annotations

import math
from typing import Any, Protocol

UNFINISHED = "unfinished"  # what every replica reports: videos of its bundle that wait or are being made, by anybody
PER_REPLICA = 16  # of them: four batches
EVERY_S = 2.0  # between two reports
UP_S, DOWN_S = 5.0, 120.0  # that a queue must be long before a replica is added, or short before one goes


class Context(Protocol):
    """What a policy is told (``ray.serve.config.AutoscalingContext``)."""

    aggregated_metrics: dict[str, dict[Any, float]] | None
    target_num_replicas: int


class ByQueue:
    """A replica for every ``per_replica`` unfinished videos; Serve keeps to the least and the most it was given."""

    def __init__(self, per_replica: int = PER_REPLICA) -> None:
        self.per_replica = per_replica

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number wanted, and no state. All replicas report one queue, so the latest longest counts once."""
        told = (context.aggregated_metrics or {}).get(UNFINISHED, {})
        if not told:  # nobody has reported yet: no reason to change anything
            return context.target_num_replicas, {}
        return max(1, math.ceil(max(told.values()) / self.per_replica)), {}


def scaling(least: int, most: int, per_replica: int = PER_REPLICA) -> dict[str, Any]:
    """Serve's ``autoscaling_config`` between so many replicas."""
    policy = {"policy_function": f"{__name__}:{ByQueue.__name__}", "policy_kwargs": {"per_replica": per_replica}}
    return {
        "min_replicas": least,
        "initial_replicas": least,
        "max_replicas": most,
        "metrics_interval_s": EVERY_S,
        "look_back_period_s": 2 * EVERY_S,
        "upscale_delay_s": UP_S,
        "downscale_delay_s": DOWN_S,
        "policy": policy,
    }
