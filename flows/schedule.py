"""What the deployments of infra/prefect.yaml run: ``retrain`` and ``generate --manifest`` as flow runs."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from flows import batch as batches
from flows import environment
from flows.bundles import Wanted, find
from flows.console import silent
from flows.params import read_params
from flows.places import Places
from flows.retrain import RetrainJob, Told, in_tasks, todo


def __getattr__(name: str) -> Any:
    """``retrain`` and ``generate``, the flows, made when Prefect asks: nothing here imports Prefect before."""
    made = {"retrain": _retrain, "generate": _generate}
    if name in made:
        return made[name]()
    raise AttributeError(name)


@cache
def _retrain() -> Any:
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


@cache
def _generate() -> Any:
    from prefect import flow

    @flow(name="generate", validate_parameters=False)
    def generate(
        manifest: str,
        out: str = "talks",
        system: str = "see_the_speaker",
        alias: str = "champion",
        work: str = "work",
        replicas: int = 1,
        device: str = "cpu",
        address: str = "local",
        ledger: str | None = None,
    ) -> dict[str, Any]:
        """Make what is missing of the manifest under ``out``; its counts. Raises ``Misuse`` where there is none."""
        environment.prepare(Path(work))
        from serving.service import Service

        places = Places(Path(work))
        service = Service(places.service, url=ledger)
        try:
            default = partial(find, places, Wanted(system, alias))
            batch = batches.look(Path(manifest), Path(out), service, (system, alias), default, silent)
            engine = batches.Engine(replicas, device, address, ledger)
            return batches.summary(batches.in_tasks(batch, engine, Path(manifest).name, silent))
        finally:
            service.close()

    return generate
