"""What the service says over HTTP, as models: the API declares them, the client reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ItemState = Literal["queued", "running", "done", "rejected", "failed", "cancelled"]
JobState = Literal["queued", "running", "done", "cancelled"]


class Message(BaseModel):
    """Base: nothing but what is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReceiptMessage(Message):
    """A job was taken on. The same items from the same key are the same job, with an equal receipt."""

    job: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: float = Field(description="seconds since 1970")
    items: int
    accepted: int
    rejected: int


class JobMessage(Message):
    """How a job stands. It is done once every item has ended, in whatever way."""

    job: str
    label: str
    created: float
    state: JobState
    counts: dict[ItemState, int]


class JobsMessage(Message):
    """Jobs, newest first. ``next`` is the ``before`` of the next page."""

    jobs: list[JobMessage]
    next: int | None


class ItemMessage(Message):
    """How one video stands."""

    number: int
    name: str
    state: ItemState
    done: int = Field(description="frames rendered")
    frames: int = Field(description="frames in all; 0 where that is not known yet")
    code: str | None = Field(description="why it was rejected or failed")
    detail: str | None
    execution: str | None = Field(description="digest of bundle, inputs, seed and settings")
    seconds: float | None = Field(description="of the sound")
    result: str | None = Field(description="SHA-256 of the video")


class ItemsMessage(Message):
    """Items in order. ``next`` is the ``start`` of the next page."""

    items: list[ItemMessage]
    next: int | None


class ModelMessage(Message):
    """A bundle on offer."""

    system: str
    alias: str
    preset: str
    bundle: str
    stages: list[str]


class ModelsMessage(Message):
    """Bundles on offer; the first is what is meant where none is named."""

    models: list[ModelMessage]


class QueueMessage(Message):
    """Executions by state, of all keys together."""

    executions: dict[str, int]
    limit: int


class EntryMessage(Message):
    """One line of the audit log."""

    seq: int
    at: float = Field(description="seconds since 1970")
    key: str | None = Field(description="its id; none for refused strangers")
    action: str = Field(description="a route with its placeholders, never a path as it was sent")
    status: int
    code: str | None
    job: str | None


class AuditMessage(Message):
    """The newest lines, newest first."""

    entries: list[EntryMessage]


class Fault(Message):
    """What is wrong at one place of a request."""

    place: str
    problem: str


class Problem(Message):
    """RFC 9457: why a request was not answered as asked."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="for programs: NO_CONSENT, QUOTA, …")
    errors: list[Fault] = Field(default_factory=list)
