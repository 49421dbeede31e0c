"""The HTTP interface: jobs submitted, watched, fetched, cancelled and deleted. It renders nothing itself."""

# no "from __future__ import annotations" here: Serve moves the routes, and FastAPI could not resolve them any more

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.requests import ClientDisconnect

from serving.guard import PUBLIC, Guard
from serving.http import JSON, MULTIPART, read_submission
from serving.keys import Caller
from serving.messages import (
    AuditMessage,
    ItemMessage,
    ItemsMessage,
    JobMessage,
    JobsMessage,
    ModelMessage,
    ModelsMessage,
    Problem,
    QueueMessage,
    ReceiptMessage,
)
from serving.metrics import METRICS_TYPE, exposition
from serving.orders import Busy, ItemStatus
from serving.page import PATHS, add_page
from serving.problems import ProblemError, described, handle_problems
from serving.provenance import own_version
from serving.rows import Row
from serving.service import Artifacts, Service

UPLOADS = 32  # bodies that one process reads at once
HEARD_S = 2.0  # that a sender who is refused at once may take to end
PAGE = 100
JOB = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(r"[0-9]{1,6}")
NOWHERE = "there is nothing here that this key may see"  # the same for what is not, and for what is another's
FILE_BODY = {"type": "string", "format": "binary"}


def create_api(service: Service) -> FastAPI:
    """The application over ``service``. Every route but ``/healthz`` and the page needs a key of the route's scope."""
    app = FastAPI(
        title="voxface",
        version=own_version(),
        description="Speech in, marked talking-face videos out. Jobs have items; equal items are made once.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    limits = service.limits
    app.add_middleware(
        Guard,
        keys=service.keys,
        audit=service.audit,
        limit=limits.request_bytes,
        public=PUBLIC | PATHS,
        body_s=limits.request_seconds,
    )
    handle_problems(app)
    _add_jobs(app, service)
    _add_items(app, service)
    _add_about(app, service)
    add_page(app)
    _describe(app)
    return app


def needs(scope: str) -> Any:
    """The caller, who must have ``scope``."""

    def caller(request: Request) -> Caller:
        found: Caller = request.state.caller
        if not found.may(scope):
            raise ProblemError(403, "FORBIDDEN", f"this key may not {scope}: its scopes are {sorted(found.scopes)}")
        return found

    return Depends(caller)


Submitter = Annotated[Caller, needs("submit")]
Reader = Annotated[Caller, needs("read")]
Scraper = Annotated[Caller, needs("metrics")]
Admin = Annotated[Caller, needs("admin")]
Limit = Annotated[int, Query(ge=1, le=1000, description="at most so many")]
ALWAYS = described(401, 403, 503)
PROBLEMS = ALWAYS | described(422)
ONE = ALWAYS | described(404)


def _add_jobs(app: FastAPI, service: Service) -> None:
    slots = asyncio.Semaphore(UPLOADS)

    @app.post(
        "/v1/jobs",
        status_code=202,
        response_model=ReceiptMessage,
        responses=PROBLEMS | described(400, 408, 413, 415, 429),
        openapi_extra=_submission_body(),
        summary="Submit a job: one speech as a form, or many items",
    )
    async def submit(request: Request, caller: Submitter, response: Response) -> ReceiptMessage:
        if slots.locked():
            await _hear_out(request)
            raise Busy("OVERLOAD", f"{UPLOADS} uploads are being read; send this one again soon", 5)
        async with slots, read_submission(request, service.limits) as submission:
            receipt = await asyncio.to_thread(service.submit, caller, submission)
        request.state.job = receipt.job
        response.headers["Location"] = f"/v1/jobs/{receipt.job}"
        return ReceiptMessage(**asdict(receipt))

    @app.get("/v1/jobs", response_model=JobsMessage, responses=PROBLEMS, summary="Your jobs, newest first")
    def jobs(
        caller: Reader,
        limit: Limit = PAGE,
        before: Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of the page before")] = None,
    ) -> JobsMessage:
        found, following = service.orders.page(caller, limit, before)
        return JobsMessage(jobs=[JobMessage(**asdict(each)) for each in found], next=following)

    @app.get("/v1/jobs/{job}", response_model=JobMessage, responses=ONE, summary="How a job stands")
    def status(job: str, caller: Reader) -> JobMessage:
        return _status(service, caller, job)

    @app.post("/v1/jobs/{job}/cancel", response_model=JobMessage, responses=ONE, summary="Stop what has not ended")
    def cancel(job: str, caller: Submitter, request: Request) -> JobMessage:
        if not JOB.fullmatch(job) or not service.orders.cancel(caller, job):
            raise ProblemError(404, "NOT_FOUND", NOWHERE)
        request.state.job = job
        return _status(service, caller, job)

    @app.delete("/v1/jobs/{job}", status_code=204, responses=ONE, summary="Delete a job, its videos and its inputs")
    def forget(job: str, caller: Submitter, request: Request) -> None:
        if not JOB.fullmatch(job) or not service.forget(caller, job):
            raise ProblemError(404, "NOT_FOUND", NOWHERE)
        request.state.job = job


def _add_items(app: FastAPI, service: Service) -> None:
    @app.get("/v1/jobs/{job}/items", response_model=ItemsMessage, responses=ONE | PROBLEMS, summary="A job's items")
    def items(
        job: str,
        caller: Reader,
        start: Annotated[int, Query(ge=0, lt=2**31, description="number of the first")] = 0,
        limit: Limit = PAGE,
    ) -> ItemsMessage:
        found = service.orders.items(caller, job, start, limit + 1) if JOB.fullmatch(job) else None
        if found is None:
            raise ProblemError(404, "NOT_FOUND", NOWHERE)
        following = found[limit].number if len(found) > limit else None
        shown = [ItemMessage.model_validate(service.shown(each)) for each in found[:limit]]
        return ItemsMessage(items=shown, next=following)

    @app.get("/v1/jobs/{job}/items/{number}", response_model=ItemMessage, responses=ONE, summary="One item")
    def item(job: str, number: str, caller: Reader) -> ItemMessage:
        return ItemMessage.model_validate(service.shown(_item(service, caller, job, number)))

    def file(name: str, media: str, summary: str, pick: Callable[[Artifacts], Path | None]) -> None:
        answers: dict[int | str, dict[str, Any]] = {
            200: {"description": summary, "content": {media: {"schema": FILE_BODY}}},
            206: {"description": "A part of it", "content": {media: {"schema": FILE_BODY}}},
            416: {"description": "No such part"},
            400: {"description": "A malformed range"},
        }

        @app.get(
            f"/v1/jobs/{{job}}/items/{{number}}/{name}",
            response_class=FileResponse,
            responses=answers | ONE | described(409),
            summary=summary,
            operation_id=name,
        )
        def fetch(job: str, number: str, caller: Reader) -> FileResponse:
            found = _artifacts(service, _item(service, caller, job, number))
            path = pick(found)
            if path is None:
                raise ProblemError(404, "NOT_FOUND", "this system makes none")
            return FileResponse(path, media_type=media)

    file("video", "video/mp4", "The video", lambda found: found.video)
    file("sidecar", "application/json", "What made the video, from what, by digest", lambda found: found.sidecar)
    file("portrait", "image/png", "The face that is animated", lambda found: found.portrait)


def _add_about(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", response_model=ModelsMessage, responses=ALWAYS, summary="What is served")
    def models(caller: Reader) -> ModelsMessage:
        told = [
            ModelMessage(
                system=each.bundle.system,
                alias=each.alias,
                preset=each.bundle.preset,
                bundle=each.digest,
                stages=sorted(each.bundle.stages),
            )
            for each in service.models.all
        ]
        return ModelsMessage(models=told)

    @app.get("/v1/queue", response_model=QueueMessage, responses=ALWAYS, summary="How long the queue is (admin)")
    def queue(caller: Admin) -> QueueMessage:
        return QueueMessage(executions=service.queue.depth(), limit=service.orders.queue_limit)

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=ALWAYS | {200: {"content": {METRICS_TYPE: {"schema": {"type": "string"}}}}},
        summary="Counts for Prometheus (scope metrics)",
        operation_id="metrics",
    )
    def metrics(caller: Scraper) -> PlainTextResponse:
        return PlainTextResponse(exposition(service.queue, service.orders.queue_limit), media_type=METRICS_TYPE)

    @app.get("/v1/audit", response_model=AuditMessage, responses=PROBLEMS, summary="The audit log (admin)")
    def audit(caller: Admin, limit: Limit = PAGE) -> AuditMessage:
        return AuditMessage(entries=service.audit.last(limit))


def _status(service: Service, caller: Caller, job: str) -> JobMessage:
    found = service.orders.status(caller, job) if JOB.fullmatch(job) else None
    if found is None:
        raise ProblemError(404, "NOT_FOUND", NOWHERE)
    return JobMessage.model_validate(asdict(found))


def _item(service: Service, caller: Caller, job: str, number: str) -> ItemStatus:
    if JOB.fullmatch(job) and NUMBER.fullmatch(number):
        found = service.orders.items(caller, job, int(number), 1)
        if found and found[0].number == int(number):
            return found[0]
    raise ProblemError(404, "NOT_FOUND", NOWHERE)


def _artifacts(service: Service, item: ItemStatus) -> Artifacts:
    if item.state in ("queued", "running"):
        raise ProblemError(409, "NOT_READY", f"the video is {item.state}", headers={"Retry-After": "2"})
    if item.state != "done":
        raise ProblemError(
            409, item.code or item.state.upper(), service.told(item.detail, item.code) or f"it was {item.state}"
        )
    found = service.artifacts(item)
    if found is None:
        detail = "the stored video did not fit its sidecar; it is being made again"
        raise ProblemError(503, "BROKEN", detail, headers={"Retry-After": "10"})
    return found


async def _hear_out(request: Request) -> None:
    """Read what is on its way, and throw it away; briefly.

    A server that closes while its client still sends resets the connection, and the answer is lost with it (RFC 9112,
    section 9.6).
    """
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(HEARD_S):
            async for _ in request.stream():
                pass


def _submission_body() -> dict[str, Any]:
    row = Row.model_json_schema()
    form = {name: value for name, value in row["properties"].items() if name not in ("audio", "portrait", "video")}
    files = dict.fromkeys(("audio", "portrait", "video"), FILE_BODY)
    label = {"type": "string", "maxLength": 200}
    items = {"type": "array", "minItems": 1, "maxItems": 1000, "items": row}
    whole = {"type": "object", "required": ["items"], "additionalProperties": False}
    single = {"type": "object", "required": ["audio"], "properties": files | form | {"label": label}}
    many = {"type": "object", "required": ["items"], "properties": {"items": {"type": "string"}, "label": label}}
    return {
        "requestBody": {
            "required": True,
            "description": "One speech as form fields; or `items` (JSON) that name the form's other files, or keys "
            "of the service's store (`store:folder/speech.wav`).",
            "content": {
                MULTIPART: {"schema": {"anyOf": [single | {"additionalProperties": False}, many]}},
                JSON: {"schema": whole | {"properties": {"items": items, "label": label}}},
            },
        }
    }


def _describe(app: FastAPI) -> None:
    """Put what FastAPI does not know into the OpenAPI document: keys, and the problem documents."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = original()
            parts = told.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {}) | {"Problem": problem}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for operation in (each for methods in told["paths"].values() for each in methods.values()):
                # FastAPI's own 422, in words that no answer of ours has; where one can occur, it is declared
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            told["security"] = [{"key": []}]
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
