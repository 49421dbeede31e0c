"""From a bundle on disk to a pipeline in memory: nothing is read as a tensor before every digest fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.bundle import BUNDLE_FILE, Bundle, read_bundle
from contracts.errors import Corrupt, Misuse
from contracts.settings import canonical_json
from serving.weights import check_finite, stored_shapes

CODE = ("auto_map", "custom_pipelines", "trust_remote_code")  # keys by which libraries import what a file names

if TYPE_CHECKING:
    from torch import nn

    from systems.base import System, TalkingFacePipeline


def check_bundle(folder: Path) -> Bundle:
    """The manifest of the bundle at ``folder``; every file's digest, every weight and the manifest's sense checked.

    Needs no torch, so that most of what cannot be served is refused before anything is started for it. Raises
    ``Corrupt`` naming the file (and both digests), ``Misuse`` where there is no bundle.
    """
    bundle = read_bundle(folder)
    listed = {f"{stage}/{file}": digest for stage, a in bundle.stages.items() for file, digest in a.files.items()}
    for name in sorted(listed.keys() | bundle.files.keys()):
        if listed.get(name) != bundle.files.get(name):
            expected, actual = listed.get(name, "no file"), bundle.files.get(name, "no file")
            raise Corrupt(folder / name, "its stage's manifest and the bundle's manifest disagree", expected, actual)
    for name, artifact in bundle.stages.items():
        if (artifact.stage, artifact.system) != (name, bundle.system):
            raise Corrupt(folder / BUNDLE_FILE, f"{name} is {artifact.system}/{artifact.stage}, not {bundle.system}'s")
    for name in sorted(bundle.files):
        if name.endswith(".safetensors"):
            check_finite(folder / name)
        elif name.endswith(".json"):
            _check_config(folder / name)
    return bundle


def load_pipeline(folder: Path, device: str = "cpu") -> tuple[TalkingFacePipeline, Bundle]:
    """The pipeline of the bundle at ``folder`` on ``device``, and the bundle's manifest.

    The code comes from the installed system of the bundle's name, never from the bundle. Raises
    ``Corrupt`` for a file that is not what the manifest says, a weight that is missing, misshapen or
    not finite, and stages that are not the system's; ``Misuse`` where there is no bundle, or its system
    is not installed here.
    """
    bundle = check_bundle(folder)
    from systems import catalogue

    if bundle.system not in catalogue.names():
        raise Misuse(
            f"{folder} is a bundle of {bundle.system!r}, which is not installed here; "
            f"there are {', '.join(catalogue.names())} ({catalogue.PATH_VARIABLE} adds folders)"
        )
    system: System = catalogue.get(bundle.system)
    wanted = [stage.name for stage in system.stages]
    if sorted(wanted) != sorted(bundle.stages):
        raise Corrupt(folder / BUNDLE_FILE, f"has the stages {sorted(bundle.stages)}, {system.name} needs {wanted}")
    stages: dict[str, nn.ModuleDict] = {}
    for kind in system.stages:
        path = folder / kind.name
        try:
            model = kind.load(path)
        except (Misuse, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            # its digests fit, so the bundle was written from networks that this code does not have
            raise Corrupt(path, f"does not load as {system.name}/{kind.name}: {_line(error)}") from error
        for name in kind.networks:
            _check_network(model[name], path / name)
        stages[kind.name] = model.to(device)
    return system.pipeline.from_stages(stages), bundle


def _check_config(path: Path) -> None:
    """Raise ``Corrupt`` unless the file is a JSON object that does not ask for code from anywhere."""
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("not an object")
        told = canonical_json(config)
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"not a configuration: {_line(error)}") from error
    for key in CODE:
        if f'"{key}":' in told:  # at any depth; nothing of ours has such a key, nor a text that looks like one
            raise Corrupt(path, f"{key!r} names code to import, and code comes from the installed system alone")


def _check_network(network: nn.Module, folder: Path) -> None:
    """Every tensor of the network stands in the files, shape for shape: diffusers fills in what misses with noise."""
    held, stored = network.state_dict(), stored_shapes(folder)
    for name in sorted(held.keys() | stored.keys()):
        expected = tuple(held[name].shape) if name in held else None
        if expected != stored.get(name):
            raise Corrupt(folder, f"{name} has the shape {stored.get(name)}, the network wants {expected}")


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
