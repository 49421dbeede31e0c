"""What the deployment ``retrain`` of infra/prefect.yaml runs: ``voxface retrain`` in a flow run of Prefect's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from flows import environment
from flows.console import silent
from flows.params import read_params
from flows.places import Places
from flows.retrain import RetrainJob, Told, in_tasks, todo


def __getattr__(name: str) -> Any:
    """``retrain``, the flow, made when Prefect asks for it: nothing here imports Prefect before."""
    if name == "retrain":
        return _flow()
    raise AttributeError(name)


@cache
def _flow() -> Any:
    from prefect import flow

    @flow(name="retrain", validate_parameters=False)
    def retrain(system: str, root: str = ".", work: str = "work") -> Told:
        """Do nothing where nothing is new; else make, compare, decide."""
        environment.prepare(Path(work))
        beside = Path(root) / "params.yaml"
        rule = read_params(beside if beside.is_file() else None).promotion
        job = RetrainJob(system, Path(root), Places(Path(work)), rule)
        found = todo(job)
        if not (found["changed"] or found["judge"] or found["push"]):
            return {"system": system, "promoted": False, "why": "nothing new"}
        return in_tasks(job, silent)

    return retrain
