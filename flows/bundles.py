"""Which bundle on this machine a system and a model's name mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.bundle import read_bundle
from contracts.errors import Misuse
from flows.places import Places


@dataclass(frozen=True)
class Wanted:
    """What is meant where rows of a manifest name nothing else."""

    system: str
    alias: str
    bundle: Path | None = None  # instead of the alias


def find(places: Places, wanted: Wanted, system: str, model: str) -> Path:
    """The bundle of ``system`` that ``model`` names: an alias, or 12 and more digits of a digest.

    Raises ``Misuse`` where there is none.
    """
    digest = re.fullmatch(r"[0-9a-f]{12,64}", model) is not None
    given = wanted.bundle if system == wanted.system else None
    if given is not None and (model == wanted.alias or (digest and read_bundle(given).digest.startswith(model))):
        return given
    if digest:
        for folder in sorted(places.bundles(system).glob(f"{model[:12]}*")):
            if read_bundle(folder).digest.startswith(model):
                return folder
        raise Misuse(f"no bundle of {system} with the digest {model} lies under {places.bundles(system)}")
    return resolve(places, system, model)


def resolve(places: Places, system: str, alias: str) -> Path:
    """The local bundle that the alias points to. Raises ``Misuse`` where there is none."""
    from training.registry import resolve as look_up

    folder, _ = look_up(system, alias, places.tracking_uri)
    return Path(folder)


def offered(places: Places, names: Sequence[tuple[str, str]], first: Path | None = None) -> list[tuple[str, str, Path]]:
    """Alias, digest and folder of what (system, alias) lead to now; ``first``: a folder instead of the first of them.

    Raises ``Misuse`` where an alias leads nowhere.
    """
    from training.registry import resolve as look_up

    found = []
    for place, (system, alias) in enumerate(names):
        if first is not None and place == 0:
            found.append((alias, read_bundle(first).digest, first))
            continue
        folder, digest = look_up(system, alias, places.tracking_uri)
        found.append((alias, digest, folder))
    return found
