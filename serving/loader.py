"""From a bundle on disk to a pipeline in memory: nothing is read as a tensor before every digest fits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import BUNDLE_FILE, Bundle, read_bundle
from contracts.errors import Corrupt, Misuse

if TYPE_CHECKING:
    from torch import nn

    from systems.base import System, TalkingFacePipeline


def check_bundle(folder: Path) -> Bundle:
    """The manifest of the bundle at ``folder``, every file's digest and the manifest's own sense checked.

    Needs no torch. Raises ``Corrupt`` naming the file (and both digests), ``Misuse`` where there is no bundle.
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


def _check_network(network: nn.Module, folder: Path) -> None:
    """Every tensor of the network stands in the files, shape for shape, and is finite.

    diffusers only warns of a missing weight and fills it with noise; safetensors knows no NaN rule.
    """
    import torch

    stored = stored_shapes(folder)
    held = network.state_dict()
    for name in sorted(held.keys() | stored.keys()):
        expected = tuple(held[name].shape) if name in held else None
        if expected != stored.get(name):
            raise Corrupt(folder, f"{name} has the shape {stored.get(name)}, the network wants {expected}")
        if not torch.isfinite(held[name]).all():
            raise Corrupt(folder, f"{name} is not finite")


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name of all safetensors files in ``folder``, read from their headers alone.

    Raises ``Corrupt`` where a header cannot be read.
    """
    import json

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError("header is longer than the file")
                header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Corrupt(path, f"not a safetensors file: {_line(error)}") from error
    return shapes


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
