"""A manifest of videos through the service's ledger: what is finished is left alone, what is not is made."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Misuse, Reject, Transient
from contracts.files import commit_bytes
from contracts.reasons import Reason
from contracts.settings import canonical_json
from flows.console import Progress

if TYPE_CHECKING:
    from serving.keys import Caller
    from serving.manifest import Line
    from serving.orders import Item, ItemStatus
    from serving.rows import Model
    from serving.service import Service

REPORT = "report.jsonl"  # in the folder of results: a line per line of the manifest, in its order
SUMMARY = "summary.json"
LOOK_S = 1.0  # between two looks at the ledger

FindBundle = Callable[[str, str], Path]  # system, alias or digest -> bundle folder; raises Misuse


@dataclass
class Batch:
    """One manifest, read and looked at; nothing is rendered yet."""

    out: Path
    service: Service
    lines: list[Line]
    items: list[Item]  # one per line, in order
    models: list[Model]  # that the items need
    standing: dict[int, dict[str, Any]] = field(default_factory=dict)  # by place: what was found finished

    @property
    def missing(self) -> list[int]:
        """Places of items that are still to be made."""
        return [
            place for place, item in enumerate(self.items) if item.inputs is not None and place not in self.standing
        ]


@dataclass(frozen=True)
class Engine:
    """Where the videos are rendered."""

    replicas: int
    device: str
    address: str
    url: str | None = None  # the ledger's


def look(
    manifest: Path, out: Path, service: Service, default: tuple[str, str], find: FindBundle, progress: Progress
) -> Batch:
    """Read ``manifest``, hash its inputs, and find what is finished already: in ``out`` or in the service's results.

    ``default`` is the system and the model of rows that name none. Needs neither Ray nor torch. Raises ``Misuse``
    where there is no manifest.
    """
    from serving.manifest import read_lines
    from serving.rows import Models, admitted, refused

    lines = read_lines(manifest)
    found: dict[tuple[str, str], Model | Misuse] = {}
    batch = Batch(out, service, lines, [], [])
    for place, line in enumerate(lines):
        if line.row is None:
            assert line.error is not None
            batch.items.append(refused(line.name, line.error))
            continue
        wanted = _wanted(line.row, default)
        model = found.setdefault(wanted, found.get(wanted) or _model(*wanted, find))
        try:
            if isinstance(model, Misuse):
                raise Reject(Reason.BAD_MANIFEST, str(model))
            row = line.row.model_copy(update={"system": model.bundle.system, "model": model.alias})
            item = admitted(row, line.name, Models([model]), lambda name: (manifest.parent / name).absolute())
        except Reject as error:
            item = refused(line.name, error)
        batch.items.append(item)
        if (finished := _finished(batch, place)) is not None:
            batch.standing[place] = finished
        progress(place + 1, len(lines), "inputs looked at")
    needed = {batch.items[place].inputs.bundle for place in batch.missing}  # type: ignore[union-attr]
    models = {model.digest: model for model in found.values() if not isinstance(model, Misuse)}
    batch.models = [model for digest, model in models.items() if digest in needed]
    return batch


def generate(batch: Batch, engine: Engine, label: str, progress: Progress) -> list[dict[str, Any]]:
    """Make what is missing; a line per line of the manifest, which are also written to ``report.jsonl``.

    Interrupted, the job is cancelled and what is finished stays: the same call goes on from there.
    """
    from prefect import flow

    from flows.server import shield_server

    shield_server()

    @flow(name="generate", validate_parameters=False)
    def run(manifest: str, bundles: list[str], videos: int) -> list[dict[str, Any]]:
        return in_tasks(batch, engine, manifest, progress)

    result: list[dict[str, Any]] = run(label, [model.digest for model in batch.models], len(batch.missing))
    return result


def in_tasks(batch: Batch, engine: Engine, label: str, progress: Progress) -> list[dict[str, Any]]:
    """The same within the flow that runs; its page has a table of all lines, and pictures of the first videos."""
    from prefect import task
    from prefect.artifacts import create_image_artifact, create_markdown_artifact

    from flows.cluster import cluster
    from flows.retries import RETRIES
    from flows.thumbnails import sheet

    @task(name="render", **RETRIES)
    def render() -> None:
        from serving.app import ModelArguments, run_local

        models = [
            ModelArguments(
                bundle=model.folder,
                root=batch.service.root,
                url=engine.url,
                replicas=engine.replicas,
                device=engine.device,
            )
            for model in batch.models
        ]
        with cluster(engine.address), run_local(models) as client:
            make(batch, label, client.healthy, progress)

    if batch.missing:
        render()
    lines = write_report(batch)
    counts = summary(lines)
    rows = [f"| {line['id']} | {line['state']} | {line.get('code', '')} |" for line in lines[:1000]]
    told = ", ".join(f"{count} {state}" for state, count in counts["states"].items())
    create_markdown_artifact(
        "\n".join(["| id | state | code |", "|---|---|---|", *rows]), key="generated", description=told
    )
    if pictures := sheet([Path(line["video"]) for line in lines if line["state"] == "done"]):
        create_image_artifact(image_url=pictures, key="thumbnails", description=told)
    return lines


def make(batch: Batch, label: str, healthy: Callable[[], bool], progress: Progress) -> None:
    """Ask the service for what is missing, and put what it makes in its place, until every item has ended.

    Raises ``Transient`` once the service is not ``healthy``. However it ends early, the job is cancelled.
    """
    caller = batch.service.keys.local()
    receipt = batch.service.orders.submit(caller, [batch.items[place] for place in batch.missing], label)
    ended = False
    try:
        _watch(batch, caller, receipt.job, healthy, progress)
        ended = True
    finally:
        if not ended:  # else the next run, of whatever manifest, would have to make these first
            batch.service.orders.cancel(caller, receipt.job)


def write_report(batch: Batch) -> list[dict[str, Any]]:
    """A line per line of the manifest, on disk and as the result."""
    lines = [
        {"line": line.number, "id": line.name, **(batch.standing.get(place) or _refused(batch.items[place]))}
        for place, line in enumerate(batch.lines)
    ]
    commit_bytes(batch.out / REPORT, "".join(canonical_json(line) + "\n" for line in lines).encode())
    commit_bytes(batch.out / SUMMARY, (canonical_json(summary(lines)) + "\n").encode())
    return lines


def summary(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts by state and by code."""
    read = list(lines)
    codes = Counter(line["code"] for line in read if "code" in line)
    return {
        "read": len(read),
        "states": dict(sorted(Counter(line["state"] for line in read).items())),
        "codes": dict(sorted(codes.items())),
    }


def _watch(batch: Batch, caller: Caller, job: str, healthy: Callable[[], bool], progress: Progress) -> None:
    """Until every item has ended: put what is finished in its place, tell how far it is."""
    places = batch.missing
    while True:
        found = batch.service.orders.items(caller, job) or []
        running = []
        for status in found:
            place = places[status.number]
            if place in batch.standing:
                continue
            if status.state in ("queued", "running"):
                if status.frames:
                    running.append(f"{status.name} {status.done}/{status.frames}")
            elif status.state == "done":
                if (finished := _delivered(batch, place, status)) is not None:
                    batch.standing[place] = finished
            else:
                batch.standing[place] = {
                    "state": status.state,
                    "code": status.code or status.state.upper(),
                    "detail": status.detail or "",
                }
        left = sum(place not in batch.standing for place in places)
        progress(len(batch.lines) - left, len(batch.lines), ", ".join(running[:4]))
        if not left:
            return
        if not healthy():
            raise Transient("the service is no longer healthy; what is finished stays. Run the same command again")
        time.sleep(LOOK_S)


def _finished(batch: Batch, place: int) -> dict[str, Any] | None:
    """The line of an item whose video stands in its place, or in the service's results."""
    from serving.orders import item_place
    from serving.publish import published

    item, out = batch.items[place], _place(batch, place)
    if item.inputs is None:
        return None
    digest = item.inputs.job
    if published(out, digest) is None:
        stored = item_place(batch.service.results, digest)
        if published(stored, digest) is None:
            return None
        _deliver(stored, out)
    return _done(out, digest, reused=True)


def _delivered(batch: Batch, place: int, status: ItemStatus) -> dict[str, Any] | None:
    """The line of an item that was just finished, its video put in its place; None where it is made again."""
    artifacts = batch.service.artifacts(status)
    if artifacts is None:
        return None
    out = _place(batch, place)
    _deliver(artifacts.video, out)
    assert status.execution is not None
    return _done(out, status.execution, reused=False)


def _deliver(stored: Path, out: Path) -> None:
    from serving.publish import deliver

    deliver(stored, out)


def _done(out: Path, digest: str, *, reused: bool) -> dict[str, Any]:
    from serving.provenance import portrait_path, sidecar_path
    from serving.publish import published

    sidecar = published(out, digest)
    if sidecar is None:
        raise Transient(f"{out} was altered while it was put in its place; run the same command again")
    return {
        "state": "done",
        "video": str(out),
        "frames": sidecar.frames,
        "seconds": sidecar.seconds,
        "job": digest,
        "sidecar": str(sidecar_path(out)),
        "portrait": str(portrait_path(out)) if sidecar.portrait else None,
        "reused": reused,
    }


def _refused(item: Item) -> dict[str, Any]:
    if item.inputs is not None:
        return {"state": "cancelled", "code": "CANCELLED", "detail": "the run ended before"}
    return {"state": "rejected", "code": item.code, "detail": item.detail or ""}


def _place(batch: Batch, place: int) -> Path:
    out = batch.lines[place].out
    return batch.out / (out if out is not None else f"line-{batch.lines[place].number}.mp4")


def _wanted(row: Any, default: tuple[str, str]) -> tuple[str, str]:
    return row.system or default[0], row.model if "model" in row.model_fields_set else default[1]


def _model(system: str, model: str, find: FindBundle) -> Model | Misuse:
    from contracts.bundle import read_bundle
    from serving.rows import Model as Served

    try:
        folder = find(system, model)
        return Served(model, folder, read_bundle(folder))
    except Misuse as error:
        return error
