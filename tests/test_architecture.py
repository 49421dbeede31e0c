"""The floors, and who may import what from outside, read from the source."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"contracts": 0, "systems": 1, "preprocessing": 1, "training": 2, "serving": 2, "flows": 3}
LONGEST = 400  # lines of a module
MEDIAN = 150
BANNED_NAMES = {"utils", "helpers", "misc", "manager"}

# Outside packages, and the only places that may import them (a folder, or a file).
OUTSIDE: dict[str, tuple[str, ...]] = {
    "prefect": ("flows/",),
    "dvc": ("flows/",),
    "dulwich": ("flows/code.py",),
    "typer": ("flows/",),
    "rich": ("flows/",),
    "ray": (
        "preprocessing/run.py",
        "training/distributed.py",
        "serving/app.py",
        "serving/handle.py",
        "flows/cluster.py",
    ),
    "ray.train": ("training/distributed.py",),
    "ray.serve": ("serving/app.py", "serving/handle.py"),
    "prometheus_client": ("flows/", "serving/metrics.py"),
    "mlflow": ("training/tracking.py", "training/registry.py"),
    "dlib": ("preprocessing/",),
    "mediapipe": ("preprocessing/",),
    "cv2": ("preprocessing/", "training/pictures.py"),
    "av": ("preprocessing/",),
    "ffmpeg": ("preprocessing/",),
    "imageio_ffmpeg": ("preprocessing/", "flows/commands/doctor.py"),
    "subprocess": ("preprocessing/media.py", "preprocessing/media/"),
    "fsspec": ("preprocessing/sources.py",),
    "torch": ("systems/", "training/", "serving/"),
    "diffusers": ("systems/", "training/", "serving/"),
    "transformers": ("systems/",),
    "safetensors": ("systems/", "training/", "serving/"),
    "webdataset": ("training/",),
    "fastapi": ("serving/",),
    "sqlalchemy": ("serving/",),
}
CONTRACTS_MAY = {"numpy", "pydantic", "pyarrow"}  # beside the standard library


class Import(NamedTuple):
    """One imported module, where, and whether only a type checker sees it."""

    file: str
    line: int
    module: str
    typing_only: bool
    lazy: bool  # inside a function

    @property
    def room(self) -> str:
        return self.file.split("/")[0]

    def inside(self, places: tuple[str, ...]) -> bool:
        return any(self.file == place or (place.endswith("/") and self.file.startswith(place)) for place in places)


def sources() -> list[Path]:
    return sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, text: str | None = None) -> Iterator[Import]:
    """Every import of a module, relative ones resolved."""
    tree = ast.parse(text if text is not None else path.read_text(encoding="utf-8"))
    package = name(path).removesuffix(".py").split("/")[:-1]

    def walk(node: ast.AST, typing_only: bool, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner_typing, inner_lazy = typing_only, lazy
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inner_typing = True
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner_lazy = True
            modules: list[str] = []
            if isinstance(child, ast.Import):
                modules = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                start = ".".join([*base, *filter(None, [child.module])])
                modules = [f"{start}.{alias.name}" for alias in child.names]
            for module in modules:
                yield Import(name(path), child.lineno, module, inner_typing, inner_lazy)
            yield from walk(child, inner_typing, inner_lazy)

    yield from walk(tree, False, False)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for path in sources() for found in imports(path))


def breaks_floors(found: Import) -> bool:
    target = found.module.split(".")[0]
    if target not in FLOORS or target == found.room:
        return False
    return FLOORS[target] >= FLOORS[found.room]


def breaks_outside(found: Import) -> bool:
    parts = found.module.split(".")
    for depth in range(len(parts), 0, -1):
        places = OUTSIDE.get(".".join(parts[:depth]))
        if places is not None:
            return not (found.inside(places) or found.typing_only)
    return False


def told(faults: list[Import]) -> str:
    return "\n".join(f"{fault.file}:{fault.line}: imports {fault.module}" for fault in faults)


def test_imports_go_down() -> None:
    faults = [found for found in all_imports() if breaks_floors(found)]
    assert not faults, told(faults)


def test_outside_packages_stay_in_their_rooms() -> None:
    faults = [found for found in all_imports() if breaks_outside(found)]
    assert not faults, told(faults)


def test_contracts_need_little() -> None:
    allowed = CONTRACTS_MAY | set(sys.stdlib_module_names) | {"contracts"}
    faults = [f for f in all_imports() if f.room == "contracts" and f.module.split(".")[0] not in allowed]
    assert not faults, told(faults)


def test_a_paper_never_imports_another() -> None:
    faults = []
    for found in all_imports():
        parts, here = found.module.split("."), found.file.split("/")
        if found.room == "systems" and parts[0] == "systems" and len(here) > 2 and len(parts) > 1:
            faults += [found] if parts[1] not in {here[1], "base", "common"} else []
    assert not faults, told(faults)


def test_what_the_command_line_needs_at_once_is_light() -> None:
    """No heavy package at the top of flows: a command that has nothing to do must be quick."""
    heavy = {"torch", "ray", "prefect", "dvc", "mlflow", "diffusers", "mediapipe", "dlib", "pandas"}
    faults = [
        found
        for found in all_imports()
        if found.room == "flows"
        and found.module.split(".")[0] in heavy | {"systems", "serving"}
        and not (found.lazy or found.typing_only)
    ]
    assert not faults, told(faults)


def test_modules_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    modules = {path: length for path, length in lengths.items() if not path.endswith("__init__.py")}
    median = statistics.median(modules.values())
    print(f"{len(modules)} modules, median {median:.0f} lines, longest {max(modules.values())}")
    assert not {path: length for path, length in lengths.items() if length > LONGEST}
    assert median <= MEDIAN


def test_modules_are_named_for_one_idea() -> None:
    faults = [name(path) for path in sources() if {path.stem, path.parent.name} & BANNED_NAMES]
    assert not faults


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_is_unpickled_and_no_shell_is_asked() -> None:
    faults = []
    for path in sources():
        for function, call in calls(path):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            where = f"{name(path)}:{call.lineno}: {function}"
            if function == "torch.load" and (
                name(path) != "training/checkpoint.py" or keywords.get("weights_only") != "True"
            ):
                faults.append(where)
            if keywords.get("shell") == "True" or function in {"os.system", "os.popen"}:
                faults.append(where)
            if keywords.get("allow_pickle") == "True":
                faults.append(where)
    faults += [
        f"{f.file}:{f.line}: {f.module}"
        for f in all_imports()
        if f.module.split(".")[0] in {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    ]
    assert not faults, "\n".join(faults)


def test_ray_starts_in_one_place() -> None:
    faults = [
        f"{name(path)}:{call.lineno}"
        for path in sources()
        for function, call in calls(path)
        if function == "ray.init" and name(path) != "flows/cluster.py"
    ]
    assert not faults


def test_tests_are_no_package() -> None:
    assert not (ROOT / "tests" / "__init__.py").exists()  # another distribution installs a top-level tests


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("contracts/x.py", "import systems.base"),
        ("systems/x.py", "from preprocessing import crop"),
        ("training/x.py", "def f():\n    from serving.app import application"),
        ("preprocessing/x.py", "import flows"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_noticed(file: str, text: str) -> None:
    assert any(breaks_floors(found) for found in imports(ROOT / file, text))


@pytest.mark.parametrize(
    ("file", "text", "broken"),
    [
        ("contracts/x.py", "import torch", True),
        ("preprocessing/x.py", "def f():\n    import torch.nn as nn", True),
        ("preprocessing/faces.py", "import subprocess", True),
        ("serving/x.py", "from ray import serve", True),
        ("training/distributed.py", "import ray.train.torch", False),
        ("training/distributed.py", "from ray import serve", True),
        ("flows/x.py", "from prefect import flow", False),
    ],
)
def test_an_outside_import_in_the_wrong_room_is_noticed(file: str, text: str, broken: bool) -> None:
    assert any(breaks_outside(found) for found in imports(ROOT / file, text)) is broken
