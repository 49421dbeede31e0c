"""Artifacts and bundles: every byte is in the manifest, and nothing else is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.bundle import (
    ARTIFACT_FILE,
    BUNDLE_FILE,
    Lineage,
    read_artifact,
    read_bundle,
    seal_artifact,
    write_bundle,
)
from contracts.errors import Corrupt, Misuse


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "config.json").write_text("{}")
    (folder / "net" / "model.safetensors").write_bytes(bytes(range(64)))
    lineage = Lineage(dataset="d", selection="s", parents={}, code="c", settings={"steps": 3})
    seal_artifact(folder, "toy", "one", lineage, {"l1": 0.5})
    return folder


def test_is_read_back(artifact: Path) -> None:
    found = read_artifact(artifact)
    assert set(found.files) == {"net/config.json", "net/model.safetensors"}
    assert found.measures == {"l1": 0.5}


def test_a_bundle_holds_what_its_artifacts_held(artifact: Path, tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "bundle", "toy", "tiny", {"one": artifact})
    assert read_bundle(tmp_path / "bundle") == written
    assert (tmp_path / "bundle" / "one" / "net" / "config.json").read_text() == "{}"
    again = write_bundle(tmp_path / "again", "toy", "tiny", {"one": artifact})
    assert again.digest == written.digest


def test_the_digest_follows_the_weights(artifact: Path) -> None:
    before = read_artifact(artifact)
    (artifact / "net" / "model.safetensors").write_bytes(bytes(64))
    after = seal_artifact(artifact, "toy", "one", before.lineage, before.measures)
    assert after.digest != before.digest


@pytest.mark.parametrize("place", [0, 31, 63])
def test_a_flipped_byte_names_the_file_and_both_digests(artifact: Path, place: int) -> None:
    weights = artifact / "net" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[place] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Corrupt) as found:
        read_artifact(artifact)
    assert found.value.file == str(weights)
    assert found.value.expected != found.value.actual != ""


def test_a_missing_file_is_corrupt(artifact: Path) -> None:
    (artifact / "net" / "config.json").unlink()
    with pytest.raises(Corrupt, match=r"config\.json"):
        read_artifact(artifact)


@pytest.mark.parametrize("name", ["extra.json", "net/code.py", "net/weights.bin", "net/weights.pkl"])
def test_anything_else_in_the_folder_is_corrupt(artifact: Path, name: str) -> None:
    (artifact / name).write_bytes(b"{}")
    with pytest.raises(Corrupt, match=Path(name).name):
        read_artifact(artifact)


def test_a_link_is_corrupt(artifact: Path) -> None:
    (artifact / "net" / "link.json").symlink_to(artifact / "net" / "config.json")
    with pytest.raises(Corrupt, match="link"):
        read_artifact(artifact)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "net/../../x.json"])
def test_a_manifest_cannot_name_files_outside(artifact: Path, name: str) -> None:
    manifest = artifact / ARTIFACT_FILE
    manifest.write_text(manifest.read_text().replace("net/config.json", name))
    with pytest.raises(Corrupt, match="outside"):
        read_artifact(artifact)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000])
def test_an_unreadable_manifest_is_corrupt(artifact: Path, text: str) -> None:
    (artifact / ARTIFACT_FILE).write_text(text)
    with pytest.raises(Corrupt, match=ARTIFACT_FILE):
        read_artifact(artifact)


def test_none_there_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="voxface publish"):
        read_bundle(tmp_path)
    assert not (tmp_path / BUNDLE_FILE).exists()
