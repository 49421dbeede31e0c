"""Checkpoints: an atomic folder of safetensors and JSON, each file with its digest."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from contracts.errors import Corrupt, Misuse
from contracts.files import commit_folder, sha256_file
from contracts.settings import canonical_digest, canonical_json

MANIFEST = "manifest.json"
AVERAGE = "average.safetensors"
FOLDER = re.compile(r"step-(\d{9})")
KEPT = 2  # the newest, and one to fall back to

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What a checkpoint may be continued with: digests of data (with selection) and of settings, parents, code."""

    data: str
    recipe: str


@dataclass
class State:
    """Where training stands, beside weights and moments."""

    step: int = 0  # finished steps; data position and every random draw follow from it
    skipped: int = 0  # steps not taken because of a value that was not finite
    in_a_row: int = 0
    world: int = 1
    overflows: int = 0  # of fp16: steps of a phase passed over for a smaller scale
    scalers: dict[str, Any] = field(default_factory=dict)  # of fp16, by phase
    named: dict[str, dict[str, Any]] = field(default_factory=dict)  # samples of skipped steps (training.quarantine)
    excluded: dict[str, int] = field(default_factory=dict)  # samples not drawn, with the first step without


@dataclass
class Checkpoint:
    """A verified checkpoint, in memory."""

    state: State
    model: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)  # empty where none is kept


def save(
    folder: Path,
    identity: Identity,
    state: State,
    model: Mapping[str, Tensor],
    optimizers: Mapping[str, Optimizer],
    average: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``folder/step-000000020/`` as a whole; drop all but the newest two. Raises ``Transient`` on a full disk."""
    moments: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for phase, optimizer in optimizers.items():
        described = optimizer.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for parameter, values in described["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    moments[f"{phase}/{parameter}/{name}"] = value
                else:
                    numbers.setdefault(str(parameter), {})[name] = value
        plain[phase] = {"groups": described["param_groups"], "numbers": numbers}
    path = folder / f"step-{state.step:09d}"
    with commit_folder(path) as temporary:
        save_file(_plain(model), temporary / "model.safetensors")
        save_file(_plain(moments), temporary / "optimizers.safetensors")
        if average:
            save_file(_plain(average), temporary / AVERAGE)
        (temporary / "optimizers.json").write_text(canonical_json(plain))
        files = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        body = {"identity": asdict(identity), "state": asdict(state), "files": files}
        (temporary / MANIFEST).write_text(canonical_json({"body": body, "sha256": canonical_digest(body)}))
    for old in _saved(folder)[:-KEPT]:
        shutil.rmtree(old)
    return path


def newest(folder: Path, identity: Identity) -> Checkpoint | None:
    """The newest checkpoint that is whole; ``None`` to begin anew. A damaged one is named in the log and passed over.

    Raises ``Misuse`` with both fingerprints where the data are no longer those it was trained on.
    """
    saved = _saved(folder)
    for number, path in reversed([*enumerate(saved)]):
        try:
            return load(path, identity)
        except Corrupt as damage:
            instead = f"falling back to {saved[number - 1].name}" if number else "no checkpoint is left to fall back to"
            logger.warning("%s; %s", damage, instead)
        except StaleRecipe:
            logger.warning("%s was made with other settings, parents or code: training begins anew", path)
            shutil.rmtree(folder)
            return None
    return None


class StaleRecipe(Exception):
    """The checkpoint belongs to another recipe."""


def load(path: Path, identity: Identity) -> Checkpoint:
    """One checkpoint, checked. Raises ``Corrupt``, ``Misuse`` (other data) or ``StaleRecipe``."""
    body = _manifest(path)
    for name, expected in body["files"].items():
        file = path / name
        actual = sha256_file(file) if file.is_file() else "no file"
        if actual != expected:
            raise Corrupt(file, "is not what its checkpoint's manifest says", expected, actual)
    if body["identity"]["data"] != identity.data:
        raise Misuse(
            f"{path} was trained on data {body['identity']['data'][:12]}, the data now are {identity.data[:12]}: "
            f"bring the old data back, or remove {path.parent} to begin anew"
        )
    if body["identity"]["recipe"] != identity.recipe:
        raise StaleRecipe(path)
    moments = load_file(path / "optimizers.safetensors")
    optimizers = {}
    for phase, described in json.loads((path / "optimizers.json").read_text()).items():
        state: dict[int, dict[str, Any]] = {int(p): dict(values) for p, values in described["numbers"].items()}
        for name, value in moments.items():
            of, parameter, kind = name.split("/", 2)
            if of == phase:
                state.setdefault(int(parameter), {})[kind] = value
        optimizers[phase] = {"state": state, "param_groups": described["groups"]}
    average = load_file(path / AVERAGE) if AVERAGE in body["files"] else {}
    return Checkpoint(State(**body["state"]), load_file(path / "model.safetensors"), optimizers, average)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        data = file.read_bytes()
        outer = json.loads(data)
        body: dict[str, Any] = outer["body"]
        if canonical_digest(body) != outer["sha256"]:
            raise Corrupt(file, "is not what it was", outer["sha256"], canonical_digest(body))
        if canonical_json(outer).encode() != data:  # 1e-05 and 1E-05 are the same number
            raise Corrupt(file, "is not as it was written")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(file, f"not a readable manifest: {error}") from error
    return body


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if FOLDER.fullmatch(path.name))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # clones: tied weights share memory, which safetensors refuses
    return {
        name: torch.clone(value.detach().cpu(), memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
