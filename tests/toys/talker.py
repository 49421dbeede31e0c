"""The toy system that serving's tests and campaigns render with: its bundle, sounds for it, and what it published."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contracts.bundle import Lineage, seal_artifact, write_bundle

SYSTEMS = Path(__file__).parents[1] / "serving" / "toys"
PATH_VARIABLE = "VOXFACE_SYSTEMS_PATH"


def systems_path() -> str:
    """What ``VOXFACE_SYSTEMS_PATH`` has to be, for the toy to be found beside what it names already."""
    older = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(SYSTEMS), *filter(None, older)]))


def make_bundle(folder: Path, change: Callable[[dict], None] | None = None) -> Path:
    """Write a bundle of the toy; ``change`` may alter its networks (a dict by stage) before they are stored."""
    from systems import catalogue

    system = catalogue.get("loudmouth")
    models: dict = {}
    for stage in system.stages:
        models[stage.name] = stage.preset("tiny").compute({n: models[n] for n in stage.needs}, [])
    if change is not None:
        change(models)
    parts, digests = {}, {}
    for stage in system.stages:
        path = folder / "artifacts" / stage.name
        for name in stage.networks:
            models[stage.name][name].save_pretrained(path / name, safe_serialization=True)
        lineage = Lineage(
            dataset="d" * 64,
            selection="e" * 64,
            parents={n: digests[n] for n in stage.needs},
            code="test",
            settings={"preset": "tiny"},
        )
        digests[stage.name] = seal_artifact(path, system.name, stage.name, lineage, {}).digest
        parts[stage.name] = path
    write_bundle(folder / "bundle", system.name, "tiny", parts)
    return folder / "bundle"


def write_sound(path: Path, samples: int, *, rate: int = 16_000, channels: int = 1, peak: float = 0.5) -> Path:
    """A sound that swells three times a second, peaking at ``peak``: a wav of int16."""
    t = np.arange(samples) / rate
    sound = peak * np.sin(2 * np.pi * 220 * t) * np.abs(np.sin(2 * np.pi * 1.5 * t))
    pcm = np.repeat((sound * 32767).astype("<i2")[:, None], channels, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


def unsigned(path: Path) -> bytes:
    """An mp4 without the box of its credentials, which are salted: the same video never has the same twice."""
    data, kept, at = path.read_bytes(), b"", 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] != b"uuid":
            kept += data[at : at + length]
        at += length
    return kept
