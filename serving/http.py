"""What the HTTP door lets in: bodies counted while they are read, known fields only, refusals as status codes."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import Misuse
from contracts.reasons import FailureCode, Reason
from serving.jobs import Job, Refused
from serving.policy import ServingLimits

FIELDS = frozenset({"sound", "portrait", "consent", "seed", "steps", "size"})
FILES = frozenset({"sound", "portrait"})
MULTIPART = "multipart/form-data"
UNSUPPORTED = frozenset({Reason.BAD_CONTAINER, Reason.NO_AUDIO})
TOO_LARGE = frozenset({Reason.TOO_LONG, Reason.TOO_MANY_PIXELS})


class BodyLimit:
    """ASGI middleware: answers 413 as soon as a body has more than ``limit`` bytes, declared or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        # a body said to be too long is refused before a byte of it is awaited
        count = int(declared) if declared.isdigit() and int(declared) > self.limit else 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal count
            message: MutableMapping[str, Any] = {} if count > self.limit else await receive()
            count += len(message.get("body", b""))
            if count > self.limit:  # FastAPI hands an HTTPException raised here on as it is
                raise HTTPException(413, f"the request has more than {self.limit} bytes; send shorter speech")
            return message

        await self.app(scope, counted, send)


@asynccontextmanager
async def read_request(request: Request, limits: ServingLimits) -> AsyncIterator[Job]:
    """The job in a multipart form, its files in a temporary folder that lives as long as the block.

    ``job.out`` is a placeholder: the caller says where results go. Raises ``HTTPException``: 415 for
    another kind of body, 413 for a file over its limit, 422 for a field that is missing, unknown or wrong.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != MULTIPART:
        raise HTTPException(415, f"send {MULTIPART} with the file field 'sound'")
    form = await request.form(max_files=len(FILES), max_fields=len(FIELDS))  # malformed: Starlette answers 400
    try:
        items = form.multi_items()
        names = [name for name, _ in items]
        if unknown := set(names) - FIELDS:
            raise HTTPException(422, f"unknown fields {sorted(unknown)}; there are {sorted(FIELDS)}")
        if len(names) != len(set(names)):
            raise HTTPException(422, "a field is given twice")
        with TemporaryDirectory(prefix="voxface-") as folder:
            values: dict[str, Any] = {"out": Path(folder) / "result.mp4"}
            for name, value in items:
                if (name in FILES) != (not isinstance(value, str)):
                    raise HTTPException(422, f"{name} must be {'a file' if name in FILES else 'text'}")
                if isinstance(value, str):
                    values[name] = value
                else:
                    limit = limits.upload_bytes if name == "sound" else limits.portrait_bytes
                    values["audio" if name == "sound" else name] = _store(value, Path(folder) / name, limit)
            if "audio" not in values:
                raise HTTPException(422, "the file field 'sound' is missing")
            try:
                job = Job.read(values, "form")
            except Misuse as error:
                raise HTTPException(422, str(error)) from None
            yield job
    finally:
        await form.close()


def status_of(refused: Refused) -> int:
    """The HTTP status that says what ``refused`` says."""
    if isinstance(refused.code, FailureCode):
        return 500
    if refused.code is Reason.NO_CONSENT:
        return 403
    if refused.code in UNSUPPORTED:
        return 415
    return 413 if refused.code in TOO_LARGE else 422


def _store(upload: UploadFile, path: Path, limit: int) -> Path:
    """The upload under a name of ours: what a client calls its file never reaches a path."""
    if (upload.size or 0) > limit:
        raise HTTPException(413, f"{path.name} has more than {limit} bytes")
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return path
