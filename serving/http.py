"""What the HTTP door reads: forms and JSON into rows, known fields only, files under names that we give."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData

from serving.intake import STORE
from serving.messages import Fault
from serving.policy import ServingLimits
from serving.problems import ProblemError
from serving.rows import Row

MULTIPART = "multipart/form-data"
JSON = "application/json"
SINGLE = frozenset({"audio", "portrait", "video"})  # file parts of a form without ``items``
ROW = frozenset(Row.model_fields)
JSON_BYTES = 2**20  # of items
ITEMS = 1000  # in one submission
LABEL = 200  # characters


@dataclass
class Submission:
    """Rows whose ``audio``, ``portrait`` and ``video`` name either one of ``files`` or a key of the store."""

    rows: list[Row]
    label: str = ""
    files: dict[str, IO[bytes]] = field(default_factory=dict)


@asynccontextmanager
async def read_submission(request: Request, limits: ServingLimits) -> AsyncIterator[Submission]:
    """The submission in a multipart form or a JSON body; its files live as long as the block.

    Raises :class:`ProblemError`: 415 for another kind of body, 413 for a file over its limit, 422 for what is
    missing, unknown or wrong, 400 for a form or JSON that cannot be read.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == JSON:
        yield _from_json(await request.body())
    elif kind == MULTIPART:
        async with request.form(max_files=3 * ITEMS, max_fields=len(ROW) + 2, max_part_size=JSON_BYTES) as form:
            yield _from_form(form, limits)
    else:
        raise ProblemError(415, "UNSUPPORTED_MEDIA_TYPE", f"send {MULTIPART} with the file 'audio', or {JSON}")


def _from_json(body: bytes) -> Submission:
    if len(body) > JSON_BYTES:
        raise ProblemError(413, "TOO_LARGE", f"a JSON body has at most {JSON_BYTES} bytes")
    values = _parse(body)
    if not isinstance(values, dict):
        raise _invalid("body", "must be an object with 'items'")
    if unknown := values.keys() - {"items", "label"}:
        raise _invalid("body", f"unknown fields {sorted(unknown)}; there are items, label")
    submission = Submission(_rows(values.get("items")), _label(values.get("label", "")))
    _check_references(submission)
    return submission


def _from_form(form: FormData, limits: ServingLimits) -> Submission:
    files: dict[str, IO[bytes]] = {}
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in files or name in texts:
            raise _invalid(name[:100], "is given twice")
        if isinstance(value, str):
            texts[name] = value
            continue
        limit = limits.portrait_bytes if name == "portrait" else limits.upload_bytes
        if (value.size or 0) > limit:
            raise ProblemError(413, "TOO_LARGE", f"{name[:100]} has more than {limit} bytes")
        files[name] = value.file
    label = _label(texts.pop("label", ""))
    if "items" in texts:
        rows = _rows(_parse(texts.pop("items").encode()))
        if texts:
            raise _invalid(min(texts)[:100], "is unknown beside items")
    else:
        if unknown := (texts.keys() - ROW) | (files.keys() - SINGLE):
            raise _invalid(min(unknown)[:100], f"is unknown; there are {', '.join(sorted(ROW))}, items, label")
        if both := texts.keys() & files.keys():
            raise _invalid(min(both), "is given twice")
        rows = [_row(texts | {name: name for name in files}, "form", strict=False)]
    submission = Submission(rows, label, files)
    _check_references(submission)
    return submission


def _rows(values: Any) -> list[Row]:
    if not isinstance(values, list) or not values:
        raise _invalid("items", "must be a list of at least one object")
    if len(values) > ITEMS:
        raise ProblemError(413, "TOO_LARGE", f"a job has at most {ITEMS} items; submit several")
    return [_row(value, f"items.{number}", strict=True) for number, value in enumerate(values)]


def _row(values: Any, where: str, *, strict: bool) -> Row:
    if not isinstance(values, dict):
        raise _invalid(where, "must be an object")
    try:
        return Row.model_validate(values, strict=strict)
    except ValidationError as error:
        faults = [
            Fault(place=".".join([where, *(str(part)[:100] for part in fault["loc"])]), problem=fault["msg"])
            for fault in error.errors()
        ]
        raise ProblemError(422, "INVALID", f"{faults[0].place}: {faults[0].problem}", faults) from None


def _check_references(submission: Submission) -> None:
    named: set[str] = set()
    for number, row in enumerate(submission.rows):
        for name in ("audio", "portrait", "video"):
            reference = getattr(row, name)
            if reference is None or reference.startswith(STORE):
                continue
            if reference not in submission.files:
                raise _invalid(f"items.{number}.{name}", f"names neither a file of this form nor a key ({STORE}…)")
            named.add(reference)
    if left := submission.files.keys() - named:
        raise _invalid(min(left)[:100], "is a file that no item names")


def _parse(data: bytes) -> Any:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "NOT_JSON", f"not JSON: {str(error)[:200]}") from None


def _label(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LABEL or not (value.isprintable() or not value):
        raise _invalid("label", f"must be one printable line of at most {LABEL} characters")
    return value


def _invalid(place: str, problem: str) -> ProblemError:
    return ProblemError(422, "INVALID", f"{place}: {problem}", [Fault(place=place, problem=problem)])
