"""A client of the HTTP interface: submit, wait, fetch.

>>> with Client("http://127.0.0.1:8000", key) as voxface:              # doctest: +SKIP
...     receipt = voxface.submit(Path("speech.wav"), seed=4)
...     voxface.wait(receipt.job)
...     voxface.fetch(receipt.job, 0, Path("talk.mp4"))
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from contracts.files import commit, commit_bytes
from serving.messages import (
    ItemMessage,
    ItemsMessage,
    JobMessage,
    JobsMessage,
    ModelMessage,
    ModelsMessage,
    Problem,
    ReceiptMessage,
)

TRIES = 6  # of a request that is answered 429 or 503, or not at all
LONGEST_WAIT_S = 60.0
ENDED = ("done", "cancelled")
M = TypeVar("M", bound=BaseModel)


class Refusal(Exception):
    """The service's answer is a refusal: :attr:`problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


class Client:
    """One service, one key. What is answered 429 or 503 is asked again as the service says, a few times.

    Every method raises :class:`Refusal` for an answer that is none, ``httpx.TransportError`` where nobody answers.
    Asking twice costs nothing: the same items from the same key are the same job.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(
        self,
        audio: Path,
        *,
        portrait: Path | None = None,
        video: Path | None = None,
        label: str = "",
        **fields: str | int,
    ) -> ReceiptMessage:
        """A job of one item. ``fields``: consent, consent_for, system, model, seed, steps, size, id."""
        files = {"audio": audio, "portrait": portrait, "video": video}
        given = {name: path for name, path in files.items() if path is not None}
        return self._submit({name: str(value) for name, value in fields.items()}, given, label)

    def submit_items(
        self, items: Sequence[Mapping[str, Any]], files: Mapping[str, Path] | None = None, label: str = ""
    ) -> ReceiptMessage:
        """A job of many items; their audio, portrait and video are names of ``files``, or keys (``store:…``)."""
        return self._submit({"items": json.dumps(list(items))}, files or {}, label)

    def jobs(self, limit: int = 100) -> list[JobMessage]:
        """The key's newest jobs."""
        return self._get(JobsMessage, "/v1/jobs", limit=limit).jobs

    def models(self) -> list[ModelMessage]:
        """What is served; the first is what is meant where none is named."""
        return self._get(ModelsMessage, "/v1/models").models

    def status(self, job: str) -> JobMessage:
        """How the job stands."""
        return self._get(JobMessage, f"/v1/jobs/{job}")

    def items(self, job: str) -> list[ItemMessage]:
        """All items of the job, in order."""
        found: list[ItemMessage] = []
        start: int | None = 0
        while start is not None:
            page = self._get(ItemsMessage, f"/v1/jobs/{job}/items", start=start, limit=1000)
            found += page.items
            start = page.next
        return found

    def wait(
        self, job: str, *, timeout_s: float | None = None, moved: Callable[[JobMessage], None] | None = None
    ) -> JobMessage:
        """The job once every item has ended. Raises ``TimeoutError``."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        pause = 0.2
        while (status := self.status(job)).state not in ENDED:
            if moved is not None:
                moved(status)
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"job {job} is {status.state} after {timeout_s} s: {status.counts}")
            self._sleep(pause)
            pause = min(2.0, pause * 1.3)
        return status

    def fetch(self, job: str, number: int, out: Path) -> Path:
        """The item's video at ``out``, its sidecar and portrait beside it; the video appears last, and whole."""
        from serving.provenance import portrait_path, sidecar_path

        base = f"/v1/jobs/{job}/items/{number}"
        sidecar = self._ask("GET", f"{base}/sidecar")
        if json.loads(sidecar.content).get("portrait"):
            commit_bytes(portrait_path(out), self._ask("GET", f"{base}/portrait").content)
        commit_bytes(sidecar_path(out), sidecar.content)
        with self._http.stream("GET", f"{base}/video") as answer, commit(out) as file:
            if answer.status_code != 200:
                answer.read()
                raise Refusal(_problem(answer))
            for block in answer.iter_bytes():
                file.write(block)
        return out

    def cancel(self, job: str) -> JobMessage:
        """Stop what of the job has not ended."""
        return JobMessage.model_validate_json(self._ask("POST", f"/v1/jobs/{job}/cancel").content)

    def delete(self, job: str) -> None:
        """Delete the job, its videos, and its inputs."""
        self._ask("DELETE", f"/v1/jobs/{job}")

    def _submit(self, fields: dict[str, str], files: Mapping[str, Path], label: str) -> ReceiptMessage:
        def send() -> httpx.Response:
            with ExitStack() as stack:
                opened = {name: (name, stack.enter_context(path.open("rb"))) for name, path in files.items()}
                # a part of its own kind even where no file goes along: the service takes forms, not query strings
                parts: dict[str, Any] = {name: (None, value) for name, value in fields.items()} | opened
                return self._http.post("/v1/jobs", files=parts | ({"label": (None, label)} if label else {}))

        return ReceiptMessage.model_validate_json(self._answered(send).content)

    def _get(self, model: type[M], path: str, **query: int) -> M:
        return model.model_validate_json(self._ask("GET", path, params=query).content)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._answered(lambda: self._http.request(method, path, **more))

    def _answered(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer; after a while once more where the service says that it is busy, or is away."""
        for attempt in range(1, TRIES + 1):
            try:
                answer = send()
            except httpx.TransportError:
                if attempt == TRIES:
                    raise
                self._sleep(min(LONGEST_WAIT_S, 0.5 * 2**attempt))
                continue
            if answer.is_success:
                return answer
            if answer.status_code not in (429, 503) or attempt == TRIES:
                break
            told = answer.headers.get("retry-after", "")
            pause = float(told) if told.isdigit() else 1.0
            if pause > LONGEST_WAIT_S:  # a quota of the day: for the caller to decide
                break
            self._sleep(pause * random.uniform(1.0, 1.3))  # noqa: S311
        raise Refusal(_problem(answer))


def _problem(answer: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(answer.content)
    except ValueError:
        title = answer.reason_phrase or str(answer.status_code)
        return Problem(
            title=title, status=answer.status_code, detail=answer.text[:300], code=f"HTTP_{answer.status_code}"
        )
