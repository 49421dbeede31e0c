"""Retraining: what changed is made again, the result is compared with what is served, and takes its place if better.

Until the alias moves nothing that is served is touched: a step that fails leaves the champion as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from contracts.bundle import ARTIFACT_FILE, read_artifact, read_bundle
from contracts.errors import Corrupt
from contracts.files import commit_bytes, lock
from contracts.settings import canonical_digest, canonical_json
from flows import versions
from flows.console import Progress
from flows.places import Places
from flows.promotion import Decision, PromotionParams, decide

DECISION_FILE = "decision.json"
Told = dict[str, Any]


@dataclass(frozen=True)
class RetrainJob:
    """Which system, the DVC checkout that makes it, and the rule of promotion."""

    system: str
    root: Path
    places: Places
    rule: PromotionParams

    @property
    def targets(self) -> list[str]:
        """DVC's stages that end in a trained system. Publishing is not among them: that is what is decided here."""
        return [f"train@{self.system}"]

    @property
    def folder(self) -> Path:
        return self.places.retraining(self.system)

    @property
    def frozen(self) -> Path:
        return self.folder / "frozen"


class Step(Protocol):
    """Runs one step of the work under a name: as a Prefect task, or as it is."""

    def __call__(self, name: str, function: Callable[[], Any]) -> Any: ...


def trained(job: RetrainJob) -> str | None:
    """Identity of the stages that stand, from their records; ``None`` where there are none. Needs no torch."""
    folders = sorted(path.parent for path in job.places.training(job.system).glob(f"*/artifact/{ARTIFACT_FILE}"))
    found = {folder.parent.name: read_artifact(folder, verify=False).digest for folder in folders}
    return canonical_digest(found) if found else None


def last_decision(job: RetrainJob) -> Told | None:
    """The record of the last decision, ``None`` where there is none. Raises ``Corrupt``."""
    path = job.folder / DECISION_FILE
    if not path.is_file():
        return None
    try:
        told: Told = json.loads(path.read_bytes())
        told["trained"], told["pushed"], told["why"]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(path, "is not a readable decision: delete it, then run the same command") from error
    return told


def todo(job: RetrainJob) -> Told:
    """What a retraining would do now: ``changed`` (DVC's stages), ``judge``, ``push``. Reads records alone."""
    decided = last_decision(job)
    undecided = decided is None or decided["trained"] != trained(job)
    changed = versions.status(job.root, job.targets)
    return {"changed": changed, "judge": undecided, "push": not undecided and not (decided or {})["pushed"]}


def proceed(job: RetrainJob, step: Step, progress: Progress) -> Told:
    """All steps in their order; what happened, also kept as the last decision."""
    from training.exam import freeze

    with lock(job.folder):
        freeze(job.places.selection, job.frozen)
        ran = step("reproduce", lambda: versions.reproduce(job.root, job.targets))
        now = trained(job)
        decided = last_decision(job)
        if decided is None or decided["trained"] != now:
            freeze(job.places.selection, job.frozen)  # where there was no selection before
            decided = _judge(job, step, progress) | {"trained": now, "reproduced": ran}
            _keep(job, decided)
            step("page", lambda: _page(job, decided))
        if not decided["pushed"]:
            sent = step("push", lambda: versions.push(job.root, job.targets))
            decided |= {"pushed": True, "files_pushed": sent}
            _keep(job, decided)
        return decided | {"reproduced": ran}


def _judge(job: RetrainJob, step: Step, progress: Progress) -> Told:
    """Bundle, compare, decide, and only then move the alias."""
    from flows import publish
    from training import registry

    uri = job.places.tracking_uri
    champion = registry.named(job.system, registry.CHAMPION, uri)
    what = publish.job_of(job.places, job.system, registry.CHAMPION)
    bundle = step("check artifacts", lambda: publish.bundle_of(what))
    folder = what.bundles / bundle.digest[: publish.NAME_DIGITS]
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    told: Told = {"system": job.system, "time": stamp, "challenger": bundle.digest, "bundle": str(folder)}
    told |= {"champion": champion.digest if champion else None, "notes": [], "lines": [], "pushed": False}
    told |= {"pictures": str(job.folder / "pictures" / stamp), "page": str(job.folder / f"{stamp}.html")}
    if champion is not None and champion.digest == bundle.digest:
        follow(job.places, job.system, champion.folder, champion.digest)  # a run may have been killed before it did
        return told | {"promoted": False, "why": "the champion is this very bundle"}

    def write() -> None:
        if not (folder.is_dir() and read_bundle(folder).digest == bundle.digest):
            publish.write_to(folder, what, bundle)

    step("write bundle", write)
    if champion is None:
        decision = Decision(True, "promoted: the first model", [])
    else:
        champion.check()
        lines, notes = step(
            "evaluate", lambda: _evaluate(job, champion.folder, folder, Path(told["pictures"]), progress)
        )
        decision = decide(lines, job.rule)
        selections = {stage.lineage.selection for stage in read_bundle(champion.folder).stages.values()}
        told["notes"] = notes + _doubt(job, selections)
    told |= {"promoted": decision.promote, "why": decision.why, "lines": decision.lines}
    if decision.promote:
        step("promote", lambda: _promote(job, folder, bundle.digest))
    return told


def _evaluate(
    job: RetrainJob, champion: Path, challenger: Path, pictures: Path, progress: Progress
) -> tuple[list[Told], list[str]]:
    from training.challenge import Measure, bars, challenge
    from training.exam import exam

    test, notes = exam(job.frozen, job.places.dataset, job.places.selection)
    measures = [Measure(**each.model_dump()) for each in job.rule.measures] or bars(job.system)
    lines = challenge(
        champion,
        challenger,
        measures,
        dataset=job.places.dataset,
        test=test,
        pictures=pictures,
        progress=progress,
    )
    return lines, notes


def _doubt(job: RetrainJob, selections: set[str]) -> list[str]:
    """A note where nothing here says that the champion was kept from the test's speakers."""
    from contracts.selection import read_record

    decided, frozen = last_decision(job), read_record(job.frozen)
    if decided is not None or (frozen is not None and selections == {frozen.digest}):
        return []  # it came through here, or was trained on the very selection that was frozen
    return ["the champion was trained on another selection than the frozen one: it may know speakers of the test"]


def _promote(job: RetrainJob, folder: Path, digest: str) -> None:
    """Register the bundle, then move the alias: the one moment in which what is served changes."""
    from training import registry

    uri = job.places.tracking_uri
    number = registry.enter(folder, job.system, uri)
    registry.point(job.system, registry.CHAMPION, number, uri)
    follow(job.places, job.system, folder, digest)


def follow(places: Places, system: str, folder: Path, digest: str) -> None:
    """Make the record of what is published say what the alias says."""
    from training.registry import CHAMPION

    record = {"system": system, "bundle": str(folder), "digest": digest, "alias": CHAMPION}
    commit_bytes(places.published(system), canonical_json(record).encode())


def _keep(job: RetrainJob, told: Told) -> None:
    commit_bytes(job.folder / DECISION_FILE, (canonical_json(told) + "\n").encode())


def _page(job: RetrainJob, told: Told) -> None:
    from training.duel import write_page

    write_page(told, Path(told["page"]))


def retrain(job: RetrainJob, progress: Progress) -> Told:
    """:func:`proceed` as a Prefect flow, a task per step. Whatever its steps raise comes through."""
    from prefect import flow

    @flow(name="retrain", validate_parameters=False)
    def run(system: str) -> Told:
        return in_tasks(job, progress)

    result: Told = run(job.system)
    return result


def in_tasks(job: RetrainJob, progress: Progress) -> Told:
    """The steps as tasks of the flow that runs, and its page."""
    from prefect import task
    from prefect.artifacts import create_markdown_artifact

    from flows.retries import RETRIES

    told = proceed(job, lambda name, function: task(name=name, **RETRIES)(function)(), progress)
    key = f"retrain-{job.system.replace('_', '-')}"
    create_markdown_artifact("\n".join(markdown(told)), key=key, description=told["why"])
    return told


def markdown(told: Told) -> list[str]:
    """The run's page as Prefect shows it; the one with pictures is ``told['page']``."""
    rows = [
        f"| {line['stage']} | {line['as']} | {line['split']} | {line['better']} | {_number(line['champion'])} | "
        f"{_number(line['challenger'])} | [{_number(line['low'])}, {_number(line['high'])}] | {line['verdict']} |"
        for line in told["lines"]
    ]
    head = [
        "| stage | measure | split | better | champion | challenger | difference, 95 % | verdict |",
        "|" + "---|" * 8,
    ]
    return [
        f"**{told['why']}**",
        "",
        f"challenger `{told['challenger'][:12]}`, champion `{(told['champion'] or 'none')[:12]}`",
        "",
        *((*head, *rows, "") if rows else ()),
        *(f"- {note}" for note in told["notes"]),
        f"Page with pictures: {told['page']}",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
