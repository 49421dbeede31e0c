"""The flow that makes a bundle of a system's artifacts and registers it under an alias."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.bundle import ARTIFACT_FILE, Bundle, read_artifact, write_bundle
from contracts.errors import Corrupt, Misuse
from contracts.files import commit_bytes, lock
from contracts.settings import canonical_json
from flows.places import Places

NAME_DIGITS = 12  # of a bundle's digest, in its folder's name


@dataclass(frozen=True)
class PublishJob:
    """Which artifacts become a bundle, where it goes, and the name that will point to it."""

    system: str
    preset: str
    stages: dict[str, Path]  # stage -> artifact folder
    bundles: Path
    record: Path
    alias: str
    tracking_uri: str


def job_of(places: Places, system: str, alias: str) -> PublishJob:
    """What publishing the trained stages of ``system`` means. Raises ``Misuse`` where one is not trained yet."""
    from systems import catalogue

    out = places.training(system)
    stages = {stage.name: out / stage.name / "artifact" for stage in catalogue.get(system).stages}
    missing = [name for name, path in stages.items() if not (path / ARTIFACT_FILE).is_file()]
    if missing:
        raise Misuse(f"{system}: {', '.join(missing)} not trained yet: voxface train {system}")
    presets = {
        str(read_artifact(path, verify=False).lineage.settings.get("preset", "custom")) for path in stages.values()
    }
    return PublishJob(
        system=system,
        preset=presets.pop() if len(presets) == 1 else "mixed",
        stages=stages,
        bundles=places.bundles(system),
        record=places.published(system),
        alias=alias,
        tracking_uri=places.tracking_uri,
    )


def bundle_of(job: PublishJob) -> Bundle:
    """The manifest that the bundle will have, every artifact's files checked. Raises ``Corrupt`` or ``Misuse``."""
    artifacts = {name: read_artifact(path) for name, path in job.stages.items()}
    for name, artifact in artifacts.items():
        for parent, digest in artifact.lineage.parents.items():
            if parent in artifacts and artifacts[parent].digest != digest:
                raise Misuse(
                    f"{job.stages[name]} was trained on another {parent} than the one that stands: "
                    f"train again: voxface train {job.system}"
                )
    files = {f"{name}/{file}": sha for name, artifact in artifacts.items() for file, sha in artifact.files.items()}
    return Bundle(system=job.system, preset=job.preset, stages=artifacts, files=files)


def read_published(record: Path) -> dict[str, str] | None:
    """What was published last (``bundle``, ``digest``, ``alias``), or ``None``. Raises ``Corrupt``."""
    if not record.is_file():
        return None
    try:
        values = json.loads(record.read_bytes())
        return {name: str(values[name]) for name in ("system", "bundle", "digest", "alias")}
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(record, "is not a readable record of publishing") from error


def write_to(folder: Path, job: PublishJob, bundle: Bundle) -> None:
    """Write the bundle to ``folder``. Raises ``Corrupt`` where an artifact changed meanwhile."""
    with lock(job.bundles):
        written = write_bundle(folder, job.system, job.preset, job.stages)
    if written.digest != bundle.digest:
        raise Corrupt(folder, "an artifact changed while it was bundled", bundle.digest, written.digest)


def publish(job: PublishJob, bundle: Bundle) -> dict[str, Any]:
    """Run the flow; the record of what was published. Whatever its tasks raise comes through."""
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact

    from flows.retries import RETRIES
    from flows.server import shield_server

    shield_server()

    folder = job.bundles / bundle.digest[:NAME_DIGITS]

    @task(name="write bundle", **RETRIES)
    def write() -> None:
        write_to(folder, job, bundle)

    @task(name="register", **RETRIES)
    def register() -> None:
        from training.registry import register as put

        put(folder, job.system, job.alias, job.tracking_uri)

    @flow(name="publish", validate_parameters=False)
    def run(system: str, digest: str, alias: str) -> dict[str, Any]:
        write()
        register()
        record = {"system": system, "bundle": str(folder), "digest": digest, "alias": alias}
        commit_bytes(job.record, canonical_json(record).encode())
        lines = [f"| {name} | {artifact.digest[:12]} |" for name, artifact in bundle.stages.items()]
        create_markdown_artifact(
            "\n".join(["| stage | artifact |", "|---|---|", *lines]),
            key=f"bundle-{system.replace('_', '-')}",
            description=f"{digest} as {alias}",
        )
        return record

    result: dict[str, Any] = run(job.system, bundle.digest, job.alias)
    return result
