"""Refusals as RFC 9457 problem documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from contracts.errors import Reject, Transient
from contracts.reasons import FailureCode, Reason
from serving.messages import Fault, Problem
from serving.orders import Busy

MEDIA = "application/problem+json"
UNSUPPORTED = frozenset({Reason.BAD_CONTAINER, Reason.NO_AUDIO})
TOO_LARGE = frozenset({Reason.TOO_LONG, Reason.TOO_MANY_PIXELS})
RETRY_S = 10  # where the ledger is away


class ProblemError(HTTPException):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code, self.errors = code, list(errors)


def problem_response(
    status: int, code: str, detail: str, errors: Iterable[Fault] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The document itself."""
    title = HTTPStatus(status).phrase
    problem = Problem(title=title, status=status, detail=detail, code=code, errors=list(errors))
    return Response(problem.model_dump_json(), status, dict(headers or {}), media_type=MEDIA)


def handle_problems(app: FastAPI) -> None:
    """Every error of ``app`` becomes a problem document; one of ours, that nobody foresaw, tells nothing inside."""

    def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = getattr(error, "code", HTTPStatus(error.status_code).name)
        request.state.code = code
        return problem_response(error.status_code, code, str(error.detail), getattr(error, "errors", ()), error.headers)

    def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [
            Fault(place=".".join(str(part) for part in fault["loc"]), problem=fault["msg"]) for fault in error.errors()
        ]
        request.state.code = "INVALID"
        return problem_response(422, "INVALID", "the request is not as the API says", faults)

    def of_busy(request: Request, error: Exception) -> Response:
        assert isinstance(error, Busy)
        request.state.code = error.code
        return problem_response(429, error.code, error.detail, headers={"Retry-After": str(error.retry_after_s)})

    def of_transient(request: Request, error: Exception) -> Response:
        return problem_response(
            503, "AWAY", "the service cannot answer now; nothing is lost", headers={"Retry-After": str(RETRY_S)}
        )

    def of_bug(request: Request, error: Exception) -> Response:
        return problem_response(500, "INTERNAL", "a fault of ours; it is in the log")

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(Busy, of_busy)
    app.add_exception_handler(Transient, of_transient)
    app.add_exception_handler(Exception, of_bug)


def problem_of(error: Reject, place: str = "") -> ProblemError:
    """The problem that ``error`` is for the whole request."""
    detail = error.detail or str(error.reason)
    faults = [Fault(place=place, problem=detail)] if place else []
    return ProblemError(status_of(error.reason), error.reason.value, detail, faults)


def status_of(code: Reason | FailureCode) -> int:
    """The HTTP status that says what ``code`` says."""
    if isinstance(code, FailureCode):
        return 500
    if code is Reason.NO_CONSENT:
        return 403
    if code in UNSUPPORTED:
        return 415
    return 413 if code in TOO_LARGE else 422


def without_places(detail: str | None, roots: Iterable[Path]) -> str | None:
    """``detail`` without the paths of this machine under ``roots``."""
    for root in roots:
        if detail is not None:
            place = re.escape(str(root)) + r"[^\s:]*"
            detail = re.sub(rf"(the (?:speech|portrait|video)) {place}", r"\1", detail)  # where it says which one
            detail = re.sub(place, "the file", detail)
    return detail


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those answers for the OpenAPI document."""
    told: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        told[status] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status in (429, 503):
            told[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return told
