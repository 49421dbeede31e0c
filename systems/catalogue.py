"""Which systems there are: every folder of ``systems/`` that holds a ``SYSTEM``; there is no list to edit."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from contracts.errors import Misuse
from systems.base import System

PATH_VARIABLE = "VOXFACE_SYSTEMS_PATH"  # more folders of systems, separated like PATH


def names() -> list[str]:
    """Names of the systems that can be trained and served."""
    return sorted(_folders())


@cache
def get(name: str) -> System:
    """The system of that name. Raises ``Misuse`` naming those there are."""
    folders = _folders()
    if name not in folders:
        raise Misuse(f"there is no system {name!r}; there are {', '.join(sorted(folders))}")
    if folders[name].parent == Path(__file__).parent:
        return importlib.import_module(f"systems.{name}").SYSTEM
    spec = importlib.util.spec_from_file_location(
        name, folders[name] / "__init__.py", submodule_search_locations=[str(folders[name])]
    )
    if spec is None or spec.loader is None:
        raise Misuse(f"{folders[name]} cannot be imported as a system")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.SYSTEM


def _folders() -> dict[str, Path]:
    roots = [Path(__file__).parent, *map(Path, filter(None, os.environ.get(PATH_VARIABLE, "").split(os.pathsep)))]
    return {
        package.parent.name: package.parent
        for root in roots
        for package in root.glob("*/__init__.py")
        if "\nSYSTEM" in package.read_text()
    }
