"""The HTTP interface with a worker in the same process: what is let in, what is answered, what is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from serving.api import UPLOADS, create_api
from serving.guard import SECURITY
from serving.ledger import executions
from serving.loader import load_pipeline
from serving.policy import ServingLimits
from serving.provenance import Sidecar
from serving.render import Renderer
from serving.rows import Model, Models
from serving.service import Service
from serving.worker import Worker

pytestmark = pytest.mark.timeout(300)
LIMITS = ServingLimits(upload_bytes=200_000, portrait_bytes=50_000, request_bytes=400_000, request_seconds=2.0)


@pytest.fixture(scope="module")
def renderer(bundle: Path) -> Renderer:
    return Renderer(*load_pipeline(bundle))


@dataclass
class Door:
    """A service, its HTTP client, and keys."""

    service: Service
    client: TestClient
    worker: Worker
    ada: dict[str, str]
    bob: dict[str, str]
    root: dict[str, str]

    def key(self, *scopes: str, **quota: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.service.keys.create('x', list(scopes), **quota)[1]}"}

    def submit(self, sound: Path, key: dict[str, str] | None = None, **fields: Any) -> Any:
        files = {"audio": ("../../etc/passwd", sound.read_bytes())}
        return self.client.post("/v1/jobs", files=files, data=fields, headers=key or self.ada)

    def work(self) -> None:
        while self.worker.work():
            pass

    def executions(self) -> int:
        with self.service.ledger.reading() as connection:
            return connection.scalar(select(func.count()).select_from(executions)) or 0


@pytest.fixture
def door(tmp_path: Path, bundle: Path, renderer: Renderer) -> Iterator[Door]:
    models = Models([Model("champion", bundle, renderer.bundle)])
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    service = Service(tmp_path / "service", models, allowed=allowed, limits=LIMITS)
    keys = [
        {"Authorization": f"Bearer {service.keys.create(name, scopes)[1]}"}
        for name, scopes in (("ada", ["submit", "read"]), ("bob", ["submit", "read"]), ("root", ["admin"]))
    ]
    worker = Worker(service.queue, renderer.bundle_digest, service.results, renderer.render)
    with TestClient(create_api(service), raise_server_exceptions=False) as client:
        yield Door(service, client, worker, *keys)
    service.close()


def is_problem(answer: Any, status: int, code: str) -> bool:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["status"], told["code"]) == (status, code), told
    return True


def routes(door: Door) -> list[tuple[str, str]]:
    paths = door.client.get("/openapi.json", headers=door.ada).json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def test_a_speech_becomes_a_marked_video(door: Door, speech: Callable[..., Path]) -> None:
    answer = door.submit(speech("talk.wav", 32_000), seed="4", label="greeting")
    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    place = answer.headers["location"]
    assert place == f"/v1/jobs/{receipt['job']}"
    read = {"headers": door.ada}
    assert door.client.get(place, **read).json()["state"] == "queued"
    assert is_problem(door.client.get(f"{place}/items/0/video", **read), 409, "NOT_READY")
    door.work()
    status = door.client.get(place, **read).json()
    assert (status["state"], status["label"], status["counts"]["done"]) == ("done", "greeting", 1)
    (item,) = door.client.get(f"{place}/items", **read).json()["items"]
    assert (item["state"], item["done"], item["frames"], item["seconds"]) == ("done", 50, 50, 2.0)
    assert door.client.get(f"{place}/items/0", **read).json() == item
    video = door.client.get(f"{place}/items/0/video", **read)
    assert (video.status_code, video.headers["content-type"]) == (200, "video/mp4")
    sidecar = Sidecar.model_validate(door.client.get(f"{place}/items/0/sidecar", **read).json())
    assert (sidecar.inputs.seed, sidecar.video, sidecar.job) == (4, item["result"], item["execution"])
    part = door.client.get(f"{place}/items/0/video", headers={**door.ada, "Range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, video.content[:100])
    assert door.client.get(f"{place}/items/0/portrait", **read).content[:4] == b"\x89PNG"


def test_b35_no_wrong_or_revoked_key_and_the_body_is_not_read(door: Door) -> None:
    info, revoked = door.service.keys.create("gone", ["admin"])
    door.service.keys.revoke(info.id)
    wrong = [{}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {revoked}"}, {"Authorization": "Basic eDp4"}]
    paths = routes(door)
    assert len(paths) >= 11
    for headers in wrong:
        for method, path in [*paths, ("get", "/openapi.json"), ("get", "/nothing"), ("post", "/")]:
            answer = door.client.request(method, path.format(job="0" * 64, number=0), headers=headers)
            assert is_problem(answer, 401, "NO_KEY"), path
            assert answer.headers["www-authenticate"].startswith("Bearer")

    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    received = []

    async def receive() -> dict:
        received.append(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    sent: list[dict] = []
    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": [(b"content-length", b"99")]}
    import asyncio

    asyncio.run(create_api(door.service)(scope, receive, send))
    assert (sent[0]["status"], received) == (401, [])


def test_health_needs_no_key_and_tells_nothing(door: Door) -> None:
    assert door.client.get("/healthz").json() == {"status": "ok"}


def test_scopes(door: Door, speech: Callable[..., Path]) -> None:
    reader, submitter = door.key("read"), door.key("submit")
    assert is_problem(door.submit(speech("a.wav", 16_000), reader), 403, "FORBIDDEN")
    assert door.submit(speech("a.wav", 16_000), submitter).status_code == 202
    assert is_problem(door.client.get("/v1/jobs", headers=submitter), 403, "FORBIDDEN")
    for path in ("/v1/queue", "/v1/audit"):
        assert is_problem(door.client.get(path, headers=door.ada), 403, "FORBIDDEN")
        assert door.client.get(path, headers=door.root).status_code == 200
    assert len(door.client.get("/v1/jobs", headers=door.root).json()["jobs"]) == 1  # everybody's


def test_b36_size_type_and_fields_are_looked_at_before_decoding(
    door: Door, speech: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import preprocessing.media

    def decoded(*_: object) -> None:
        pytest.fail("something was decoded")

    for name in ("decode_sound", "probe"):
        monkeypatch.setattr(preprocessing.media, name, decoded)
    sound = speech("a.wav", 16_000)
    post = door.client.post
    big = {"files": {"audio": ("a", b"x" * 200_001)}}
    for request, status, code in (
        (big, 413, "TOO_LARGE"),
        ({"files": {"audio": ("a", b"x" * 500_000)}}, 413, "TOO_LARGE"),
        ({"files": {"audio": ("a", b"x"), "portrait": ("p", b"x" * 50_001)}}, 413, "TOO_LARGE"),
        ({"content": b"RIFF", "headers": {"content-type": "audio/wav"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content": b"RIFF"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"files": {"audio": ("a", b"x")}, "data": {"sead": "1"}}, 422, "INVALID"),
        ({"files": {"audio": ("a", b"x"), "extra": ("b", b"x")}}, 422, "INVALID"),
        ({"files": {"portrait": ("a", b"x")}}, 422, "INVALID"),
        ({"files": {"audio": ("a", b"x")}, "data": {"seed": "-1"}}, 422, "INVALID"),
        ({"files": {"audio": ("a", b"x")}, "data": {"id": "../x"}}, 422, "INVALID"),
        ({"files": {"audio": ("a", b"")}}, 422, "EMPTY_FILE"),
        ({"files": {"audio": ("a", b"x")}, "data": {"model": "nobody"}}, 422, "BAD_MANIFEST"),
        ({"files": [("audio", ("a", b"1")), ("audio", ("b", b"2"))]}, 422, "INVALID"),
        ({"json": {"items": [{"audio": "/etc/passwd"}]}}, 422, "INVALID"),
        ({"json": {"items": [{"audio": "store:../x"}]}}, 422, "PATH_ESCAPE"),
        ({"json": {"items": []}}, 422, "INVALID"),
        ({"json": {"itemz": []}}, 422, "INVALID"),
        ({"json": ["x"]}, 422, "INVALID"),
        ({"json": {"items": [{"audio": "store:x"}] * 1001}}, 413, "TOO_LARGE"),
        ({"content": b"[" * 90_000, "headers": {"content-type": "application/json"}}, 400, "NOT_JSON"),
        ({"content": b'{"items": NaN}', "headers": {"content-type": "application/json"}}, 400, "NOT_JSON"),
        ({"content": b"no", "headers": {"content-type": "multipart/form-data"}}, 400, "BAD_REQUEST"),
    ):
        request = {**request, "headers": {**door.ada, **request.get("headers", {})}}
        assert is_problem(post("/v1/jobs", **request), status, code), request
    assert door.executions() == 0
    assert door.submit(sound).status_code == 202


def test_a_body_said_to_be_short_is_counted(door: Door) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
        for _ in range(500):
            yield b"x" * 1000

    headers = {**door.ada, "content-type": "multipart/form-data; boundary=b"}
    assert is_problem(door.client.post("/v1/jobs", content=body(), headers=headers), 413, "TOO_LARGE")


def test_a_slow_body_is_cut_off(door: Door) -> None:
    import asyncio

    async def ask() -> list[dict]:
        sent: list[dict] = []

        async def receive() -> dict:
            await asyncio.sleep(0.5)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: dict) -> None:
            sent.append(message)

        headers = [(b"authorization", door.ada["Authorization"].encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b""}
        await create_api(door.service)({**scope, "headers": headers}, receive, send)
        return sent

    assert asyncio.run(asyncio.wait_for(ask(), 10))[0]["status"] == 408


def test_b37_quota_concurrency_and_overload(door: Door, speech: Callable[..., Path]) -> None:
    sounds = [speech(f"{number}.wav", 16_000 + 640 * number) for number in range(3)]
    for quota, code in (({"daily": 2}, "QUOTA"), ({"unfinished": 2}, "CONCURRENCY")):
        key = door.key("submit", **quota)
        assert [door.submit(sound, key).status_code for sound in sounds[:2]] == [202, 202]
        answer = door.submit(sounds[2], key)
        assert is_problem(answer, 429, code)
        assert int(answer.headers["retry-after"]) > 0
    door.service.orders.queue_limit = 2
    assert is_problem(door.submit(sounds[2]), 429, "OVERLOAD")
    door.work()
    assert door.submit(sounds[2]).status_code == 202


def test_uploads_at_once_are_bounded(door: Door, speech: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()
    submit = door.service.submit

    def held(*arguments: Any) -> Any:
        entered.release()
        leave.wait(20)
        return submit(*arguments)

    monkeypatch.setattr(door.service, "submit", held)
    monkeypatch.setattr("serving.api.UPLOADS", 3)
    sound = speech("a.wav", 16_000)
    with (
        TestClient(create_api(door.service)) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        ask = {"files": {"audio": sound.read_bytes()}, "headers": door.ada}
        waiting = [pool.submit(client.post, "/v1/jobs", **ask) for _ in range(3)]
        for _ in waiting:
            entered.acquire(timeout=20)
        answer = client.post("/v1/jobs", **ask)
        leave.set()
        assert [each.result().status_code for each in waiting] == [202] * 3  # the accepted ones are answered
    assert is_problem(answer, 429, "OVERLOAD")
    assert UPLOADS > 3


def test_b38_the_same_job_twenty_times_at_once(door: Door, speech: Callable[..., Path]) -> None:
    sound = speech("talk.wav", 16_000)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: door.submit(sound, seed="3"), range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    door.work()
    with door.service.ledger.reading() as connection:
        assert connection.execute(select(executions.c.state, executions.c.rendered)).all() == [("done", 1)]


def test_b39_a_portrait_without_consent(door: Door, speech: Callable[..., Path], tmp_path: Path) -> None:
    sound, face = speech("talk.wav", 16_000), b"a picture of somebody"
    other = "0" * 64
    for fields in ({}, {"consent": "Ada"}, {"consent": "Ada, a test", "consent_for": other}, {"consent": "withdrawn"}):
        files = {"audio": sound.read_bytes(), "portrait": face}
        answer = door.client.post("/v1/jobs", files=files, data=fields, headers=door.ada)
        assert is_problem(answer, 403, "NO_CONSENT"), fields
    entries = door.client.get("/v1/audit", headers=door.root).json()["entries"]
    refused = [entry for entry in entries if entry["code"] == "NO_CONSENT"]
    assert len(refused) == 4
    for entry in refused:
        assert set(entry) == {"seq", "at", "key", "action", "status", "code", "job"}
        assert (entry["action"], entry["status"], entry["job"]) == ("POST /v1/jobs", 403, None)
    assert door.executions() == 0
    assert "Ada" not in str(entries)


def test_b40_guesses_paths_and_other_keys(door: Door, speech: Callable[..., Path], tmp_path: Path) -> None:
    job = door.submit(speech("talk.wav", 16_000)).json()["job"]
    door.work()
    (tmp_path / "service" / "results" / "secret.json").write_text("{}")
    guesses = ["0" * 64, job[:-1], job.upper() + "0", "..%2F..%2Fledger.db", "%00", "ä" * 64, "x" * 5000, job + "%0a"]
    for guess in guesses:
        for tail in ("", "/items", "/items/0", "/items/0/video", "/items/0/sidecar"):
            assert is_problem(door.client.get(f"/v1/jobs/{guess}{tail}", headers=door.ada), 404, "NOT_FOUND")
    for number in ("1", "-1", "..", "%2e%2e%2fsecret", "0.0", "٣", "99999999999"):
        answer = door.client.get(f"/v1/jobs/{job}/items/{number}/video", headers=door.ada)
        assert answer.status_code == 404, number
    for method, tail in (("get", ""), ("get", "/items/0/video"), ("post", "/cancel"), ("delete", "")):
        assert door.client.request(method, f"/v1/jobs/{job}{tail}", headers=door.bob).status_code == 404
    assert door.client.get(f"/v1/jobs/{job}/items/0/video", headers=door.ada).status_code == 200


def test_many_items_by_form_and_by_key(door: Door, speech: Callable[..., Path], tmp_path: Path) -> None:
    sound, other = speech("one.wav", 16_000), speech("two.wav", 24_000)
    (tmp_path / "allowed" / "deep").mkdir()
    (tmp_path / "allowed" / "deep" / "three.wav").write_bytes(speech("three.wav", 8_000).read_bytes())
    (tmp_path / "allowed" / "link.wav").symlink_to("/etc/passwd")
    items = (
        '[{"id": "a", "audio": "first"}, {"id": "b", "audio": "second", "seed": 2},'
        ' {"audio": "first", "size": 64}, {"audio": "store:deep/three.wav"}]'
    )
    files = {"first": sound.read_bytes(), "second": other.read_bytes()}
    answer = door.client.post("/v1/jobs", files=files, data={"items": items}, headers=door.ada)
    assert answer.status_code == 202, answer.text
    assert answer.json()["items"] == 4
    door.work()
    place = answer.headers["location"]
    found = door.client.get(f"{place}/items", headers=door.ada, params={"limit": 3}).json()
    assert ([item["name"] for item in found["items"]], found["next"]) == (["a", "b", "2"], 3)
    rest = door.client.get(f"{place}/items", headers=door.ada, params={"start": 3}).json()
    assert [(item["state"], item["frames"]) for item in rest["items"]] == [("done", 12)]
    for key, code in (
        ("store:link.wav", "PATH_ESCAPE"),
        ("store:none.wav", "MISSING_FILE"),
        ("store:deep", "MISSING_FILE"),
    ):
        refused = door.client.post("/v1/jobs", json={"items": [{"audio": key}]}, headers=door.ada)
        assert is_problem(refused, 422, code)
        assert str(tmp_path) not in refused.text


def test_what_cannot_be_decoded_is_the_items_answer(door: Door, tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"not a sound")
    place = door.submit(tmp_path / "noise.wav").headers["location"]
    door.work()
    item = door.client.get(f"{place}/items/0", headers=door.ada).json()
    assert (item["state"], item["code"]) == ("rejected", "BAD_CONTAINER")
    assert str(tmp_path) not in item["detail"]  # nothing of the disk's layout
    assert item["detail"].startswith("the speech: no container that is read here")
    assert "save it anew as WAV or MP4" in item["detail"], "the mend, and no libav error number"
    assert is_problem(door.client.get(f"{place}/items/0/video", headers=door.ada), 409, "BAD_CONTAINER")


def test_a_fault_of_ours_is_told_to_the_ledger_and_not_to_strangers(door: Door, speech: Callable[..., Path]) -> None:
    place = door.submit(speech("loud.wav", 8_000, peak=1.0)).headers["location"]
    door.work()
    item = door.client.get(f"{place}/items/0", headers=door.ada).json()
    answer = door.client.get(f"{place}/items/0/video", headers=door.ada)
    assert is_problem(answer, 409, "INTERNAL")
    assert (item["state"], item["code"]) == ("failed", "INTERNAL")
    for told in (item["detail"], answer.json()["detail"]):
        assert "fault of the program" in told
        assert not {"RuntimeError", "toy", ".py", str(door.service.root)} & set(told.replace(":", " ").split())
    with door.service.ledger.reading() as connection:
        assert "the toy cannot bear" in connection.scalar(select(executions.c.detail))


def test_cancel_and_delete(door: Door, speech: Callable[..., Path], tmp_path: Path) -> None:
    place = door.submit(speech("talk.wav", 16_000)).headers["location"]
    assert door.client.post(f"{place}/cancel", headers=door.ada).json()["state"] == "cancelled"
    door.work()
    assert is_problem(door.client.get(f"{place}/items/0/video", headers=door.ada), 409, "CANCELLED")
    kept = door.submit(speech("other.wav", 17_000)).headers["location"]
    door.work()
    for path in (place, kept):
        assert door.client.delete(path, headers=door.ada).status_code == 204
        assert is_problem(door.client.get(path, headers=door.ada), 404, "NOT_FOUND")
    left = [
        path for name in ("inputs", "results") for path in (tmp_path / "service" / name).rglob("*") if path.is_file()
    ]
    assert left == []


def test_a_stored_video_that_was_altered_is_never_sent_but_made_again(
    door: Door, speech: Callable[..., Path], tmp_path: Path, unsigned: Callable[[Path], bytes]
) -> None:
    place = door.submit(speech("talk.wav", 16_000)).headers["location"]
    door.work()
    (video,) = (tmp_path / "service" / "results").rglob("*.mp4")
    made = unsigned(video)
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 1
    video.write_bytes(data)
    answer = door.client.get(f"{place}/items/0/video", headers=door.ada)
    assert is_problem(answer, 503, "BROKEN")
    door.work()
    assert door.client.get(f"{place}/items/0/video", headers=door.ada).status_code == 200
    assert unsigned(video) == made


def test_headers_that_close_browsers_doors(door: Door) -> None:
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        door.client.get("/v1/jobs", headers={**door.ada, **origin}),
        door.client.options("/v1/jobs", headers={**door.ada, **origin}),
        door.client.options("/v1/jobs", headers=origin),
        door.client.get("/healthz", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        for name, value in SECURITY.items():
            assert answer.headers[name] == value


def test_the_audit_log_has_what_changed_and_nothing_personal(door: Door, speech: Callable[..., Path]) -> None:
    place = door.submit(speech("talk.wav", 16_000), label="for Grace Hopper").headers["location"]
    door.client.get(place, headers=door.ada)
    door.client.delete(place, headers=door.ada)
    door.client.get(place)
    entries = door.client.get("/v1/audit", headers=door.root).json()["entries"]
    told = [(entry["action"].split()[0], entry["status"]) for entry in entries]
    assert told == [("GET", 401), ("DELETE", 204), ("POST", 202)]
    assert entries[1]["job"] == entries[2]["job"] == place.rsplit("/", 1)[1]
    assert "Grace" not in str(entries)


def test_models(door: Door, renderer: Renderer) -> None:
    (model,) = door.client.get("/v1/models", headers=door.ada).json()["models"]
    assert (model["system"], model["alias"], model["bundle"]) == ("loudmouth", "champion", renderer.bundle_digest)


def test_an_unforeseen_fault_tells_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(door.service.orders, "page", broken)
    answer = door.client.get("/v1/jobs", headers=door.ada)
    assert is_problem(answer, 500, "INTERNAL")
    assert "secret" not in answer.text
