"""The OpenAPI document is exact: whatever is generated from it is answered as it says, and never by a fault of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from serving.api import create_api
from serving.rows import Model, Models
from serving.service import Service

EXAMPLES = int(os.environ.get("VOXFACE_SCHEMATHESIS", "4"))  # per operation; a campaign asks for more
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> tuple[object, str]:
    from contracts.bundle import read_bundle

    service = Service(tmp_path_factory.mktemp("service"), Models([Model("champion", bundle, read_bundle(bundle))]))
    return create_api(service), service.keys.create("fuzz", ["admin"])[1]


def test_every_answer_is_as_described(access: tuple[object, str]) -> None:
    app, key = access
    headers = {"Authorization": f"Bearer {key}"}
    with TestClient(app) as client:
        job = client.post("/v1/jobs", files={"audio": b"a sound, perhaps"}, headers=headers).json()["job"]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    asked: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call_and_validate(headers=headers, checks=CHECKS)
            asked.setdefault(case.operation.label, set()).add(answer.status_code)
            if "job" in (case.path_parameters or {}):  # and once more for a job that there is
                case.path_parameters |= {"job": job} | ({"number": "0"} if "number" in case.path_parameters else {})
                answer = case.call_and_validate(headers=headers, checks=CHECKS)
                asked[case.operation.label].add(answer.status_code)

        ask()
    assert len(asked) == 14
    assert 200 in asked["GET /v1/jobs/{job}"]
    assert max(status for statuses in asked.values() for status in statuses) < 500


def test_the_document_names_every_route_and_asks_for_keys(access: tuple[object, str]) -> None:
    document = access[0].openapi()  # type: ignore[attr-defined]
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"key": []}]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"401", "403"} <= operation["responses"].keys(), (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 401 and status != "416":
                    assert "application/problem+json" in answer["content"], (method, path, status)
