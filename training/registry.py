"""MLflow's model registry as an index of bundles: an alias leads to a local folder and its digest."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from contracts.bundle import read_bundle
from contracts.errors import Misuse
from training.tracking import quiet

DIGEST_TAG = "voxface.digest"


def register(bundle: Path, system: str, alias: str, tracking_uri: str) -> int:
    """Make ``alias`` of model ``system`` lead to ``bundle``; return the model version's number.

    A bundle that is registered already keeps its version. Nothing is copied or pickled: the version's
    source is the folder, its tag the digest. Raises ``Corrupt`` where the bundle is not whole.
    """
    quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    digest = read_bundle(bundle).digest
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        client.get_registered_model(system)
    except MlflowException:
        client.create_registered_model(system, description=f"bundles of {system}, by digest")
    source = bundle.resolve().as_uri()
    versions = client.search_model_versions(f"name='{system}'")
    found = [v for v in versions if v.tags.get(DIGEST_TAG) == digest and v.source == source]
    version = found[0] if found else client.create_model_version(system, source=source, tags={DIGEST_TAG: digest})
    client.set_registered_model_alias(system, alias, version.version)
    return int(version.version)


def resolve(system: str, alias: str, tracking_uri: str) -> tuple[Path, str]:
    """Folder and digest of the bundle that ``alias`` leads to. Raises ``Misuse`` where there is none."""
    quiet()
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        version = MlflowClient(tracking_uri=tracking_uri).get_model_version_by_alias(system, alias)
    except MlflowException as error:
        raise Misuse(f"no bundle of {system} is registered as {alias}: voxface publish {system}") from error
    folder = Path(unquote(urlparse(version.source).path))
    if not folder.is_dir():
        raise Misuse(f"{system} as {alias} leads to {folder}, which is gone: voxface publish {system}")
    return folder, version.tags[DIGEST_TAG]
