"""The client asks again where the service says so, and tells refusals apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving.client import TRIES, Client, Refusal

RECEIPT = {"job": "a" * 64, "created": 1.0, "items": 1, "accepted": 1, "rejected": 0}
COUNTS = dict.fromkeys(("queued", "running", "done", "rejected", "failed", "cancelled"), 0)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    told = {"type": "about:blank", "title": "x", "status": status, "detail": "why", "code": code, "errors": []}
    return httpx.Response(status, json=told, headers=headers)


class Answers:
    """Answers in order; what was asked, and how long the client slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked, self.slept = list(answers), [], []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> Client:
        return Client("http://x", "vf_key", transport=httpx.MockTransport(self), sleep=self.slept.append)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"RIFF" + b"x" * 100)
    return path


def test_overload_is_waited_for_and_the_whole_is_sent_again(sound: Path) -> None:
    answers = Answers(
        problem(429, "OVERLOAD", **{"Retry-After": "5"}), httpx.ConnectError("no"), httpx.Response(202, json=RECEIPT)
    )
    with answers.client() as client:
        assert client.submit(sound, seed=3, label="x").job == "a" * 64
    assert 5 <= answers.slept[0] <= 6.5
    assert [b"RIFF" in body and b'name="seed"' in body for body in answers.bodies] == [True] * 3
    assert answers.asked[0].headers["authorization"] == "Bearer vf_key"


def test_a_quota_of_the_day_is_told_at_once(sound: Path) -> None:
    answers = Answers(problem(429, "QUOTA", **{"Retry-After": "3600"}))
    with answers.client() as client, pytest.raises(Refusal, match="QUOTA: why") as caught:
        client.submit(sound)
    assert (caught.value.problem.status, answers.slept) == (429, [])


@pytest.mark.parametrize("make", [lambda: problem(503, "AWAY"), lambda: httpx.ConnectError("no")])
def test_it_gives_up_in_the_end(make: Callable) -> None:
    answers = Answers(*[make() for _ in range(TRIES)])
    with answers.client() as client, pytest.raises((Refusal, httpx.ConnectError)):
        client.jobs()
    assert answers.answers == []


def test_an_answer_that_is_no_problem_document_is_a_refusal() -> None:
    with Answers(httpx.Response(502, text="<html>proxy")).client() as client, pytest.raises(Refusal, match="HTTP_502"):
        client.status("a" * 64)


def test_waits_until_every_item_has_ended() -> None:
    def status(state: str) -> httpx.Response:
        return httpx.Response(
            200, json={"job": "a", "label": "", "created": 1.0, "state": state, "counts": {**COUNTS, "done": 1}}
        )

    seen: list[str] = []
    answers = Answers(status("queued"), status("running"), status("done"))
    with answers.client() as client:
        assert client.wait("a", moved=lambda job: seen.append(job.state)).state == "done"
    assert seen == ["queued", "running"]
    with Answers(*[status("running")] * 3).client() as client, pytest.raises(TimeoutError):
        client.wait("a", timeout_s=-1)


def test_a_video_appears_whole_and_last(tmp_path: Path) -> None:
    sidecar = httpx.Response(200, content=json.dumps({"portrait": None}).encode())
    out = tmp_path / "talk.mp4"
    with Answers(sidecar, problem(503, "BROKEN")).client() as client, pytest.raises(Refusal):
        client.fetch("a", 0, out)
    assert not out.exists()
    sidecar = httpx.Response(200, content=json.dumps({"portrait": None}).encode())
    with Answers(sidecar, httpx.Response(200, content=b"video")).client() as client:
        assert client.fetch("a", 0, out).read_bytes() == b"video"
