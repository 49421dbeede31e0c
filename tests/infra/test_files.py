"""The files of deployment are well formed and keep what the documents promise; nothing is deployed here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def read(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text())


def test_serve_config_fits_the_schema_and_bounds_its_queue() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(read("serve.yaml"))
    assert config.http_options.host == "127.0.0.1"
    for app in config.applications:
        (deployment,) = app.deployments
        assert deployment.max_queued_requests > 0  # Ray's default is no limit
        assert deployment.max_ongoing_requests > 0
        assert deployment.backpressure_config.status_code == 429


def test_serve_config_says_what_the_code_says() -> None:
    from serving import app

    door, model = read("serve.yaml")["applications"]
    for entry, name, arguments, deployed, ongoing in (
        (door, "build_door", app.DoorArguments, app.Door, app.ASKING),
        (model, "build_model", app.ModelArguments, app.Generator, app.ONGOING),
    ):
        assert entry["import_path"] == f"serving.app:{name}"
        assert hasattr(app, name)
        assert set(entry["args"]) == set(arguments.model_fields)
        arguments.model_validate(entry["args"])
        (deployment,) = entry["deployments"]
        assert deployment["name"] == deployed.name
        assert deployment["max_ongoing_requests"] == ongoing == deployed.max_ongoing_requests
        assert deployment["max_queued_requests"] == app.QUEUED == deployed.max_queued_requests
    assert door["args"]["root"] == model["args"]["root"]


def test_the_service_on_kubernetes_is_the_one_of_the_code() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serving import app
    from serving.scaling import PER_REPLICA

    spec = read("ray/rayservice.yaml")["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    for entry, single in zip(config["applications"], read("serve.yaml")["applications"], strict=True):
        assert entry["import_path"] == single["import_path"]
        assert entry["deployments"] == single["deployments"]
        assert set(entry["args"]) == set(single["args"])
    door, model = (entry["args"] for entry in config["applications"])
    assert app.DoorArguments.model_validate(door).root == app.ModelArguments.model_validate(model).root
    assert model["most"] > model["replicas"]
    assert f"every {PER_REPLICA} videos" in spec["serveConfigV2"]
    cluster = spec["rayClusterConfig"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "requirements.lock").read_text()
    assert cluster["enableInTreeAutoscaling"]
    (workers,) = cluster["workerGroupSpecs"]
    cpus = int(workers["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    assert workers["maxReplicas"] * cpus >= model["most"] > workers["minReplicas"]  # a CPU per replica of the model
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_compose_publishes_on_this_machine_only() -> None:
    services = read("compose.yaml")["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(":6379" in port or ":8265" in port for port in ports)  # Ray's own: remote code for who has them
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service
        assert "network_mode" not in service


def test_compose_volumes_are_declared() -> None:
    compose = read("compose.yaml")
    named = {mount.split(":")[0] for service in compose["services"].values() for mount in service["volumes"]}
    assert named == set(compose["volumes"])


@pytest.fixture
def dockerfile() -> str:
    return re.sub(r"\\\n\s*", "", (INFRA / "Dockerfile").read_text())


def test_image_runs_as_nobody_special_and_tells_nobody(dockerfile: str) -> None:
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("FROM python:3.11")
    user = max(index for index, line in enumerate(lines) if line.startswith("USER"))
    assert lines[user] == "USER voxface"
    assert not any(line.startswith("RUN") for line in lines[user:])
    for variable in (
        "RAY_USAGE_STATS_ENABLED=0",
        "DO_NOT_TRACK=1",
        "DVC_NO_ANALYTICS=1",
        "MLFLOW_DISABLE_TELEMETRY=true",
    ):
        assert variable in dockerfile
    assert "RAY_AUTH_MODE=token" in dockerfile


def test_image_holds_every_room_and_the_lock(dockerfile: str) -> None:
    copied = {name for line in dockerfile.splitlines() if line.startswith("COPY") for name in line.split()[1:-1]}
    include = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert include is not None
    rooms = {name.strip(' "*') for name in include[1].split(",")}
    assert rooms <= copied
    assert {"requirements.lock", "pyproject.toml"} <= copied
    torch = re.search(r"torch==[\d.]+", (ROOT / "pyproject.toml").read_text())
    assert torch is not None
    assert torch[0] in dockerfile


def test_prefect_file_promises_no_deployment_that_is_not_there() -> None:
    config = read("prefect.yaml")
    for deployment in config["deployments"]:
        path, _, flow = deployment["entrypoint"].partition(":")
        assert f"def {flow}" in (ROOT / path).read_text()
    lock = (ROOT / "requirements.lock").read_text()
    assert f"prefect=={config['prefect-version']}\n" in lock
    assert "\nsqlalchemy==2.0." in lock, "with 2.1 the scheduler of Prefect's server creates no runs: make schedule"
