"""A row: one video asked for in words, in a manifest or over HTTP, before it is known whether it can be made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from contracts.bundle import Bundle, read_bundle
from contracts.errors import Misuse, Reject
from contracts.reasons import Reason
from contracts.settings import Settings
from serving.jobs import Job
from serving.orders import Item
from serving.policy import admit, read_consent

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
TEXT = 2000  # characters of a consent
REFERENCE = 1024  # characters of what names a file
PLACEHOLDER = Path("video.mp4")  # a worker says where its results stand
CHAMPION = "champion"
DIGEST = re.compile(r"[0-9a-f]{12,64}")


class Row(Settings):
    """What is asked for. How ``audio``, ``portrait`` and ``video`` name files is the asker's door's affair."""

    id: str | None = Field(default=None, max_length=96)
    audio: str = Field(min_length=1, max_length=REFERENCE)
    portrait: str | None = Field(default=None, min_length=1, max_length=REFERENCE)
    video: str | None = Field(default=None, min_length=1, max_length=REFERENCE)
    consent: str | None = Field(default=None, max_length=TEXT)
    consent_for: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    system: str | None = Field(default=None, max_length=96)  # none: the first that is served
    model: str = Field(default=CHAMPION, min_length=1, max_length=96)  # alias, or 12 and more digits of a digest
    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: int | None = Field(default=None, ge=1, le=1000)
    size: int | None = Field(default=None, ge=16, le=2048, multiple_of=2)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.id is not None and not NAME.fullmatch(self.id):
            raise ValueError(f"id: {self.id!r} must match {NAME.pattern}")
        return self


@dataclass(frozen=True)
class Model:
    """A bundle that is served under an alias."""

    alias: str
    folder: Path
    bundle: Bundle

    @property
    def digest(self) -> str:
        return self.bundle.digest


class Models:
    """The bundles on offer; the first is what is meant where no system is named."""

    def __init__(self, models: list[Model]) -> None:
        if not models:
            raise Misuse("no bundle is served: publish one, or name one with --bundle")
        self.all = models

    @classmethod
    def read(cls, folders: list[tuple[str, Path]]) -> Models:
        """Bundles by alias and folder. Raises ``Misuse`` where there is none, ``Corrupt`` for a damaged one."""
        return cls([Model(alias, folder, read_bundle(folder)) for alias, folder in folders])

    def find(self, system: str | None, model: str) -> Model:
        """The bundle of an alias or digest. Raises ``Reject(BAD_MANIFEST)`` that says what there is."""
        wanted = system or self.all[0].bundle.system
        for each in self.all:
            digest = DIGEST.fullmatch(model) is not None and each.digest.startswith(model)
            if each.bundle.system == wanted and (each.alias == model or digest):
                return each
        there = ", ".join(f"{each.bundle.system} {each.alias}" for each in self.all)
        raise Reject(Reason.BAD_MANIFEST, f"there is no model {model!r} of {wanted!r} here; there are: {there}")


Place = Callable[[str], Path]  # a row's reference to a file -> where it lies; raises Reject


def admitted(row: Row, name: str, models: Models, place: Place) -> Item:
    """The item that ``row`` asks for: files found and hashed, nothing decoded.

    Raises ``Reject``: NO_CONSENT before any picture is looked at, BAD_MANIFEST for a model that is not here, and
    what ``place`` and :func:`serving.policy.admit` raise.
    """
    if row.portrait is not None or row.video is not None:
        read_consent(row.consent)
    model = models.find(row.system, row.model)
    job = Job(
        audio=place(row.audio),
        portrait=None if row.portrait is None else place(row.portrait),
        video=None if row.video is None else place(row.video),
        out=PLACEHOLDER,
        consent=row.consent,
        consent_for=row.consent_for,
        seed=row.seed,
        steps=row.steps,
        size=row.size,
    )
    return Item(name, admit(job, model.digest), job)


def refused(name: str, error: Reject) -> Item:
    """The item of a row that cannot be used."""
    return Item(name, code=error.reason.value, detail=error.detail)
