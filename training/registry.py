"""MLflow's model registry as an index of bundles: an alias leads to a local folder and its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from contracts.bundle import read_bundle
from contracts.errors import Corrupt, Misuse
from training.tracking import quiet

DIGEST_TAG = "voxface.digest"
CHAMPION = "champion"  # what is served
PREVIOUS = "previous"  # what was the champion before: where a rollback leads


@dataclass(frozen=True)
class Version:
    """A registered bundle: its number in the registry, where it lies, what it is, and the names that lead to it."""

    system: str
    number: int
    folder: Path
    digest: str
    aliases: tuple[str, ...]

    def check(self) -> None:
        """Read every file of the bundle. Raises ``Misuse`` where it is gone, ``Corrupt`` where it is another."""
        if not self.folder.is_dir():
            raise Misuse(f"{self.system} version {self.number} leads to {self.folder}, which is gone")
        actual = read_bundle(self.folder).digest
        if actual != self.digest:
            raise Corrupt(self.folder, "is not the bundle that was registered", self.digest, actual)


def enter(bundle: Path, system: str, tracking_uri: str) -> int:
    """Make ``bundle`` a version of model ``system``, without any alias; return the version's number.

    A bundle that is registered already keeps its version. Nothing is copied or pickled: the version's
    source is the folder, its tag the digest. Raises ``Corrupt`` where the bundle is not whole.
    """
    from mlflow.exceptions import MlflowException

    digest = read_bundle(bundle).digest
    client = _client(tracking_uri)
    try:
        client.get_registered_model(system)
    except MlflowException:
        client.create_registered_model(system, description=f"bundles of {system}, by digest")
    # not file://, which MLflow's server refuses for all that lies outside its own runs
    source = bundle.resolve().as_uri().replace("file:", "voxface:", 1)
    versions = client.search_model_versions(f"name='{system}'")
    found = [v for v in versions if v.tags.get(DIGEST_TAG) == digest and _folder(v.source) == bundle.resolve()]
    version = found[0] if found else client.create_model_version(system, source=source, tags={DIGEST_TAG: digest})
    return int(version.version)


def point(system: str, alias: str, number: int, tracking_uri: str) -> None:
    """Make ``alias`` lead to version ``number``; where the champion moves, ``previous`` keeps the one before.

    ``previous`` is set first: whatever fails between the two, the champion is one that served or will, and named.
    """
    client = _client(tracking_uri)
    if alias == CHAMPION:
        old = dict(client.get_registered_model(system).aliases).get(CHAMPION)
        if old is not None and int(old) != number:
            client.set_registered_model_alias(system, PREVIOUS, str(old))
    client.set_registered_model_alias(system, alias, str(number))


def register(bundle: Path, system: str, alias: str, tracking_uri: str) -> int:
    """:func:`enter`, then :func:`point`; the version's number."""
    number = enter(bundle, system, tracking_uri)
    point(system, alias, number, tracking_uri)
    return number


def versions(system: str, tracking_uri: str) -> list[Version]:
    """All registered bundles of ``system``, oldest first; none where the registry has no such model."""
    return [version for version in registered(tracking_uri) if version.system == system]


def registered(tracking_uri: str) -> list[Version]:
    """All bundles in the registry, by system and number. Raises what MLflow raises where it does not answer."""
    client = _client(tracking_uri)
    found: list[Version] = []
    for model in client.search_registered_models():
        named: dict[int, list[str]] = {}
        # a search leaves out the aliases of versions; the model has them all
        for alias, number in client.get_registered_model(model.name).aliases.items():
            named.setdefault(int(number), []).append(alias)
        for each in client.search_model_versions(f"name='{model.name}'"):
            number = int(each.version)
            aliases = tuple(sorted(named.get(number, ())))
            found.append(Version(model.name, number, _folder(each.source), each.tags.get(DIGEST_TAG, ""), aliases))
    return sorted(found, key=lambda version: (version.system, version.number))


def named(system: str, alias: str, tracking_uri: str) -> Version | None:
    """The version that ``alias`` leads to, or ``None``."""
    return next((version for version in versions(system, tracking_uri) if alias in version.aliases), None)


def resolve(system: str, alias: str, tracking_uri: str) -> tuple[Path, str]:
    """Folder and digest of the bundle that ``alias`` leads to. Raises ``Misuse`` where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        version = _client(tracking_uri).get_model_version_by_alias(system, alias)
    except MlflowException as error:
        raise Misuse(f"no bundle of {system} is registered as {alias}: voxface publish {system}") from error
    folder = _folder(version.source)
    if not folder.is_dir():
        raise Misuse(f"{system} as {alias} leads to {folder}, which is gone: voxface publish {system}")
    return folder, version.tags[DIGEST_TAG]


def _folder(source: str) -> Path:
    return Path(unquote(urlparse(source).path))


def _client(tracking_uri: str) -> Any:
    quiet()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
