"""Aliases lead to bundles, the champion's predecessor keeps a name, and what is registered is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.bundle import Bundle, Lineage, seal_artifact, write_bundle
from contracts.errors import Corrupt, Misuse
from training.registry import enter, named, point, register, registered, resolve, versions


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def bundle(root: Path, name: str, system: str = "toy") -> tuple[Path, Bundle]:
    """A bundle whose one file says its name."""
    artifact = root / f"{name}-artifact"
    artifact.mkdir()
    (artifact / "config.json").write_text(f'{{"name": "{name}"}}')
    seal_artifact(artifact, system, "one", Lineage(dataset="d", selection="s", parents={}, code="c", settings={}), {})
    return root / name, write_bundle(root / name, system, "tiny", {"one": artifact})


def test_the_champion_s_predecessor_is_kept_as_previous_and_versions_are_not_made_twice(
    tmp_path: Path, uri: str
) -> None:
    (a, of_a), (b, of_b) = bundle(tmp_path, "a"), bundle(tmp_path, "b")
    assert registered(uri) == []
    assert register(a, "toy", "champion", uri) == 1
    assert named("toy", "previous", uri) is None
    assert (enter(b, "toy", uri), enter(b, "toy", uri), enter(a, "toy", uri)) == (2, 2, 1)
    assert resolve("toy", "champion", uri) == (a, of_a.digest)  # entered is not promoted
    point("toy", "champion", 2, uri)
    point("toy", "champion", 2, uri)  # again: previous is not overwritten by the champion itself
    assert resolve("toy", "champion", uri) == (b, of_b.digest)
    assert resolve("toy", "previous", uri) == (a, of_a.digest)
    assert [(v.number, v.aliases, v.folder) for v in versions("toy", uri)] == [
        (1, ("previous",), a),
        (2, ("champion",), b),
    ]
    assert versions("another", uri) == []
    with pytest.raises(Misuse, match="no bundle of another"):
        resolve("another", "champion", uri)


def test_a_registered_bundle_that_was_changed_or_is_gone_is_told(tmp_path: Path, uri: str) -> None:
    import shutil

    (a, _), (b, _) = bundle(tmp_path, "a"), bundle(tmp_path, "b")
    register(a, "toy", "champion", uri)
    (version,) = versions("toy", uri)
    version.check()
    shutil.rmtree(a)
    shutil.copytree(b, a)  # whole, but another one
    with pytest.raises(Corrupt, match="is not the bundle that was registered"):
        version.check()
    shutil.rmtree(a)
    with pytest.raises(Misuse, match="is gone"):
        version.check()


def test_mlflow_s_server_takes_the_folder_and_older_versions_keep_their_number(tmp_path: Path, uri: str) -> None:
    from mlflow.tracking import MlflowClient
    from mlflow.utils.uri import is_local_uri

    a, _ = bundle(tmp_path, "a")
    enter(a, "toy", uri)
    client = MlflowClient(tracking_uri=uri)
    new = client.get_model_version("toy", "1")
    assert not is_local_uri(new.source)  # the server refuses a local one
    client.create_registered_model("older")
    client.create_model_version("older", source=a.as_uri(), tags=new.tags)  # as versions were entered before
    assert enter(a, "older", uri) == 1
    assert versions("older", uri)[0].folder == a
