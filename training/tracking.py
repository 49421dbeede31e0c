"""One forwarder from each stage's ``metrics.jsonl`` to MLflow; the file is the truth, MLflow its mirror."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.bundle import Lineage
from contracts.errors import VoxfaceError
from contracts.files import commit_bytes, sha256_file, sha256_tree
from contracts.settings import canonical_digest, canonical_json
from training.agenda import sources
from training.record import METRICS_FILE, STAGE_FILE, read_record

MIRRORED_FILE = "mirrored.json"  # beside the stages: what was recorded when all of it had been sent
KEY_TAG = "voxface.key"  # one run per system, stage, data and recipe
LONGEST_VALUE = 500  # characters of a parameter that MLflow takes
AT_ONCE = 1000  # points per request that MLflow takes

logger = logging.getLogger(__name__)


def forward(out: Path, tracking_uri: str, experiment: str) -> int:
    """Send what MLflow lacks of every stage under ``out``; return how many points were sent.

    Idempotent by (run, key, step): call it as often as you like, also after MLflow was down or training
    was cut back and resumed. Where MLflow does not answer, a warning is logged and 0 returned: the next
    call sends the points.
    """
    quiet()
    stages = list(_stages(out))
    if not stages:
        return 0
    state = _state(out, tracking_uri)  # before anything is read: what is recorded meanwhile is unsent
    try:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=tracking_uri)
        place = _experiment(client, tracking_uri, experiment)
        system = stages[0][1]["system"]
        parent = _run(client, place, f"{system}/{out.resolve()}", system, {"voxface.system": system})
        sent = sum(_forward_stage(client, place, parent, folder, told) for folder, told in stages)
        # between two stages a system may look finished: the next call opens it again
        client.update_run(parent, "FINISHED" if all(_ended(folder) for folder, _ in stages) else "RUNNING")
        commit_bytes(out / MIRRORED_FILE, canonical_json(state).encode())
        return sent
    except VoxfaceError as error:  # of the file of what was sent: it will be sent, and found there, again
        logger.warning("%s", error)
        return 0
    except Exception as error:  # of any kind: training and its record go on without MLflow
        logger.warning("MLflow at %s does not answer, points are kept for later: %s", tracking_uri, _line(error))
        return 0


def unsent(out: Path, tracking_uri: str) -> bool:
    """Whether a stage under ``out`` has recorded what :func:`forward` has not sent yet; quick, and without MLflow."""
    if not any(_stages(out)):
        return False
    try:
        return bool(json.loads((out / MIRRORED_FILE).read_bytes()) != _state(out, tracking_uri))
    except (OSError, ValueError):
        return True


def _state(out: Path, tracking_uri: str) -> dict[str, str]:
    """Digests of the address (which may hold a password) and of all that is to be sent there."""
    files = [*out.glob(f"*/{STAGE_FILE}"), *out.glob(f"*/{METRICS_FILE}"), *out.glob("*/pictures/*.png")]
    names = {path.relative_to(out).as_posix(): "" if path.suffix == ".png" else sha256_file(path) for path in files}
    return {"to": canonical_digest(tracking_uri), "records": sha256_tree(names)}


def quiet() -> None:
    """Switch MLflow's telemetry and chatter off, and let a server that is down cost seconds, not minutes."""
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def _stages(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(out.glob(f"*/{STAGE_FILE}")):
        yield file.parent, json.loads(file.read_bytes())


def _experiment(client: Any, tracking_uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None  # a server has its own
    if tracking_uri.startswith("sqlite:///"):
        location = (Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _run(client: Any, place: str, key: str, name: str, tags: dict[str, str]) -> str:
    """The run with that key, made if there is none."""
    found = client.search_runs([place], f"tags.`{KEY_TAG}` = '{canonical_digest(key)}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {KEY_TAG: canonical_digest(key), "mlflow.runName": name} | tags
    return str(client.create_run(place, tags=tags).info.run_id)


def _forward_stage(client: Any, place: str, parent: str, folder: Path, told: dict[str, Any]) -> int:
    from mlflow.entities import Metric, Param, RunTag

    lineage = Lineage.model_validate(told["lineage"])
    # a commit that leaves the sources as they are does not begin another run
    recipe = canonical_digest(lineage.model_dump(mode="json") | {"code": sources(lineage.code)})
    tags = {
        "mlflow.parentRunId": parent,
        "voxface.system": told["system"],
        "voxface.stage": told["stage"],
        "voxface.dataset": lineage.dataset,
        "voxface.selection": lineage.selection,
        "voxface.code": lineage.code,
        "mlflow.source.git.commit": lineage.code.partition("+")[0],
        "voxface.stand_ins": ", ".join(lineage.unnamed) or "none",
    } | {f"voxface.parent.{name}": digest for name, digest in lineage.parents.items()}
    run = _run(client, place, f"{parent}/{told['stage']}/{recipe}", told["stage"], tags)
    held = client.get_run(run)
    if not held.data.params:
        parameters = [Param(_name(key), str(value)[:LONGEST_VALUE]) for key, value in lineage.settings.items()]
        client.log_batch(run, params=parameters, tags=[RunTag("voxface.recipe", recipe)])
    points = []
    known: dict[str, set[int]] = {}
    lines = read_record(folder)
    for line in lines:
        for key, value in line["values"].items() if line["kind"] != "end" else ():
            name = _name(key)
            if name not in known:
                # only what MLflow already names can have a history
                history = client.get_metric_history(run, name) if name in held.data.metrics else []
                known[name] = {point.step for point in history}
            if line["step"] not in known[name]:
                known[name].add(line["step"])
                points.append(Metric(name, float(value), int(line["time"] * 1000), line["step"]))
    for first in range(0, len(points), AT_ONCE):
        client.log_batch(run, metrics=points[first : first + AT_ONCE])
    _pictures(client, run, folder)
    if _ended(folder) and held.info.status == "RUNNING":
        client.set_terminated(run, "FINISHED")
    return len(points)


def _ended(folder: Path) -> bool:
    lines = read_record(folder)
    return bool(lines) and lines[-1]["kind"] == "end"


def _pictures(client: Any, run: str, folder: Path) -> None:
    files = sorted((folder / "pictures").glob("*.png"))
    if files:
        there = {Path(found.path).name for found in client.list_artifacts(run, "pictures")}
        for file in files:
            if file.name not in there:
                client.log_artifact(run, str(file), "pictures")


def _name(key: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", key)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
