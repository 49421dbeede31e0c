"""Digest-checked folders: a stage's artifact, and the bundle that serving loads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import Corrupt, Misuse
from contracts.files import commit_bytes, commit_folder, sha256_file, sha256_tree
from contracts.settings import canonical_digest, canonical_json

ALLOWED = frozenset({".json", ".safetensors"})  # nothing that could carry code
ARTIFACT_FILE = "artifact.json"
BUNDLE_FILE = "bundle.json"


class Lineage(BaseModel):
    """Where a stage's weights come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str  # digest of the shards
    selection: str  # digest of the chosen keys
    parents: dict[str, str]  # stage -> artifact digest
    code: str  # commit and digest of the tracked sources
    settings: dict[str, Any]  # preset, steps, seed, batch, networks: all that shapes the result
    unnamed: tuple[str, ...] = ()  # stand-ins used where published weights were absent


class Artifact(BaseModel):
    """Manifest of one trained stage: its networks' files, each with its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    system: str
    stage: str
    lineage: Lineage
    files: dict[str, str]  # relative name -> sha256
    measures: dict[str, float] = Field(default_factory=dict)  # validation, by name

    @property
    def digest(self) -> str:
        """Identity of the artifact: lineage and every byte of its networks."""
        return canonical_digest(
            [self.system, self.stage, self.lineage.model_dump(mode="json"), sha256_tree(self.files)]
        )


class Bundle(BaseModel):
    """Manifest of a system ready to be served: every file of every stage, each with its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    system: str
    preset: str
    stages: dict[str, Artifact]
    files: dict[str, str]

    @property
    def digest(self) -> str:
        return canonical_digest(self.model_dump(mode="json"))


def list_files(folder: Path, but: str) -> dict[str, str]:
    """Relative names and SHA-256 of every file under ``folder``, except the manifest ``but``.

    Raises ``Corrupt`` for a link, or a file of a kind that no artifact holds.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (not path.is_dir() and not path.is_file()):
            raise Corrupt(path, "is neither a plain file nor a folder")
        if path.is_file() and name != but:
            if path.suffix not in ALLOWED:
                raise Corrupt(path, f"only {', '.join(sorted(ALLOWED))} may be here")
            files[name] = sha256_file(path)
    return files


def seal_artifact(folder: Path, system: str, stage: str, lineage: Lineage, measures: dict[str, float]) -> Artifact:
    """Write the manifest over the files that a stage exported into ``folder``; return it."""
    files = list_files(folder, ARTIFACT_FILE)
    artifact = Artifact(system=system, stage=stage, lineage=lineage, files=files, measures=measures)
    commit_bytes(folder / ARTIFACT_FILE, canonical_json(artifact.model_dump(mode="json")).encode())
    return artifact


def read_artifact(folder: Path, *, verify: bool = True) -> Artifact:
    """The manifest of a stage's artifact, its files checked. Raises ``Corrupt``, or ``Misuse`` where there is none."""
    artifact = _read(folder / ARTIFACT_FILE, Artifact, "train the stage first: voxface train")
    if verify:
        _verify(folder, artifact.files, ARTIFACT_FILE)
    return artifact


def write_bundle(folder: Path, system: str, preset: str, stages: dict[str, Path]) -> Bundle:
    """Copy verified artifacts into one bundle at ``folder``; return its manifest."""
    artifacts = {name: read_artifact(path) for name, path in stages.items()}
    with commit_folder(folder) as temporary:
        for name, path in stages.items():
            for file in artifacts[name].files:
                target = temporary / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / file, target)
        files = list_files(temporary, BUNDLE_FILE)
        bundle = Bundle(system=system, preset=preset, stages=artifacts, files=files)
        (temporary / BUNDLE_FILE).write_text(canonical_json(bundle.model_dump(mode="json")))
    return bundle


def read_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle, every file checked before any is used. Raises ``Corrupt`` or ``Misuse``."""
    bundle = _read(folder / BUNDLE_FILE, Bundle, "publish one first: voxface publish")
    _verify(folder, bundle.files, BUNDLE_FILE)
    return bundle


def _read(path: Path, model: type[Any], mend: str) -> Any:
    if not path.is_file():
        raise Misuse(f"{path} does not exist: {mend}")
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError, RecursionError) as error:
        raise Corrupt(path, f"not a readable manifest: {str(error).splitlines()[0]}") from error


def _verify(folder: Path, expected: dict[str, str], manifest: str) -> None:
    for name in expected:
        if re.search(r"(^|/)\.\.(/|$)|^/", name):
            raise Corrupt(folder / manifest, f"names a file outside its folder: {name!r}")
        if not (folder / name).is_file():
            raise Corrupt(folder / name, "is missing", expected[name], "no file")
    actual = list_files(folder, manifest)
    for name, digest in actual.items():
        if name not in expected:
            raise Corrupt(folder / name, "is not in the manifest", "no file", digest)
        if digest != expected[name]:
            raise Corrupt(folder / name, "is not what the manifest says", expected[name], digest)
