"""What was made of given samples: selections, stage artifacts, bundles and videos found under a work folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts.bundle import ARTIFACT_FILE, BUNDLE_FILE, Artifact, Bundle
from contracts.errors import VoxfaceError
from contracts.selection import RECORD_FILE, read_selection

Found = dict[str, Any]


def witnesses(work: Path, keys: set[str]) -> dict[str, Any]:
    """Everything under ``work`` that saw one of the samples ``keys``, from what each says of its own making.

    A selection lists its keys; an artifact names the digests of its selection and its parents; a bundle holds
    artifacts; a video's sidecar names them. ``cannot_tell`` are artifacts whose selection is no longer on disk.
    """
    selections, known = _selections(work, keys)
    guilty = {found["digest"] for found in selections}
    artifacts, unclear = _artifacts(work, guilty, known)
    seen = {found["digest"] for found in artifacts}
    return {
        "selections": selections,
        "artifacts": artifacts,
        "bundles": list(_bundles(work, seen)),
        "videos": list(_videos(work, seen, guilty)),
        "mlflow_filters": [f"tags.`voxface.selection` = '{digest}'" for digest in sorted(guilty)],
        "cannot_tell": unclear,
    }


def _selections(work: Path, keys: set[str]) -> tuple[list[Found], set[str]]:
    """Selections with one of ``keys``, and the digests of all selections."""
    found: list[Found] = []
    known: set[str] = set()
    for path in sorted(work.rglob(RECORD_FILE)):
        try:
            selection = read_selection(path.parent)
        except VoxfaceError as error:
            found.append({"path": str(path.parent), "digest": "", "samples": None, "unreadable": str(error)})
            continue
        known.add(selection.digest)
        count = sum(sample.key in keys for sample in selection.samples)
        if count:
            found.append({"path": str(path.parent), "digest": selection.digest, "samples": count})
    return found, known


def _artifacts(work: Path, guilty: set[str], known: set[str]) -> tuple[list[Found], list[Found]]:
    made = [(path, artifact) for path, artifact in _read(work, ARTIFACT_FILE, Artifact)]
    saw = {artifact.digest for _, artifact in made if artifact.lineage.selection in guilty}
    while more := {a.digest for _, a in made if a.digest not in saw and saw & set(a.lineage.parents.values())}:
        saw |= more  # a child of what saw them has seen them
    found, unclear = [], []
    for path, artifact in made:
        line = {
            "path": str(path.parent),
            "system": artifact.system,
            "stage": artifact.stage,
            "digest": artifact.digest,
            "selection": artifact.lineage.selection,
        }
        if artifact.digest in saw:
            found.append(line)
        elif artifact.lineage.selection not in known:
            unclear.append(line)
    return found, unclear


def _bundles(work: Path, seen: set[str]) -> Iterator[Found]:
    for path, bundle in _read(work, BUNDLE_FILE, Bundle):
        stages = [name for name, artifact in bundle.stages.items() if artifact.digest in seen]
        if stages:
            yield {"path": str(path.parent), "system": bundle.system, "digest": bundle.digest, "stages": stages}


def _videos(work: Path, seen: set[str], guilty: set[str]) -> Iterator[Found]:
    for path in sorted(work.rglob("*.mp4.json")):
        try:
            told = json.loads(path.read_bytes())
            stages = told["stages"]
            of = [name for name, made in stages.items() if made["artifact"] in seen or made["selection"] in guilty]
            if of:
                video = str(path).removesuffix(".json")
                yield {"path": video, "bundle": told["inputs"]["bundle"], "stages": of}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # no sidecar of ours


def _read(work: Path, name: str, model: Any) -> Iterator[tuple[Path, Any]]:
    for path in sorted(work.rglob(name)):
        try:
            yield path, model.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError, RecursionError):
            continue  # a damaged one is found by those who use it
