"""What comes over HTTP is counted, checked and named before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from contracts.reasons import FailureCode, Reason
from serving.http import BodyLimit, read_request, status_of
from serving.jobs import Refused
from serving.policy import ServingLimits

LIMITS = ServingLimits(upload_bytes=1000, portrait_bytes=500)
SOUND = {"sound": ("../../etc/passwd", b"RIFF", "audio/wav")}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """An application that answers with the job it has read."""
    app = FastAPI()
    app.add_middleware(BodyLimit, limit=5000)

    @app.post("/generate")
    async def echo(request: Request) -> dict[str, Any]:
        async with read_request(request, LIMITS) as job:
            return {**job.model_dump(mode="json"), "bytes": job.audio.stat().st_size, "name": job.audio.name}

    with TestClient(app) as client:
        yield client


def test_reads_a_form(client: TestClient) -> None:
    answer = client.post(
        "/generate",
        files={**SOUND, "portrait": ("p.png", b"png", "image/png")},
        data={"seed": "12", "consent": "Ada, a test", "size": "64"},
    )
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert (job["seed"], job["size"], job["consent"], job["bytes"]) == (12, 64, "Ada, a test", 4)
    assert job["name"] == "sound"  # the client's name for its file is nowhere in a path


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ({"json": {"sound": "x"}}, 415, "multipart"),
        ({"content": b"RIFF", "headers": {"content-type": "audio/wav"}}, 415, "multipart"),
        ({"files": SOUND, "data": {"sead": "1"}}, 422, "sead"),
        ({"files": {"portrait": ("p.png", b"png")}}, 422, "sound"),
        ({"files": SOUND, "data": {"seed": "x"}}, 422, "seed"),
        ({"files": SOUND, "data": {"seed": "-1"}}, 422, "seed"),
        ({"files": SOUND, "data": {"steps": "100000"}}, 422, "steps"),
        ({"files": SOUND, "data": {"portrait": "/etc/passwd"}}, 422, "portrait must be a file"),
        ({"files": [("sound", ("a", b"1")), ("sound", ("b", b"2"))]}, 422, "twice"),
        ({"files": {"sound": ("a", b"x" * 1001)}}, 413, "more than 1000 bytes"),
        ({"files": {**SOUND, "portrait": ("a", b"x" * 501)}}, 413, "portrait has more than 500"),
        ({"files": {"sound": ("a", b"x" * 6000)}}, 413, "more than 5000 bytes"),
        ({"content": b"no boundary", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_refuses(client: TestClient, request_: dict, status: int, says: str) -> None:
    answer = client.post("/generate", **request_)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text


def test_a_body_without_a_length_is_counted(client: TestClient) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="sound"; filename="a"\r\n\r\n'
        for _ in range(50):
            sent += 1000
            yield b"x" * 1000

    answer = client.post("/generate", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Reason.NO_CONSENT, 403),
        (Reason.BAD_CONTAINER, 415),
        (Reason.NO_AUDIO, 415),
        (Reason.TOO_LONG, 413),
        (Reason.TOO_SHORT, 422),
        (Reason.NO_FACE, 422),
        (FailureCode.INTERNAL, 500),
    ],
)
def test_status(code: Reason | FailureCode, status: int) -> None:
    state = "failed" if isinstance(code, FailureCode) else "rejected"
    assert status_of(Refused(state=state, out=Path("x.mp4"), code=code, detail="")) == status
