"""What is asked of the generator, and what comes back: jobs, their identity, results and refusals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.errors import Misuse
from contracts.reasons import FailureCode, Reason
from contracts.settings import Settings, canonical_digest

LINE_LIMIT = 65_536  # characters of a manifest line


class Job(Settings):
    """One video to make: a sound file, perhaps a portrait with consent, and where the video goes."""

    audio: Path
    out: Path  # .mp4
    portrait: Path | None = None
    video: Path | None = None  # whose mouth is to speak, for systems that dub
    consent: str | None = None  # "who, purpose"; needed with a portrait or a video
    consent_for: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # the only picture it was given for
    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: int | None = Field(default=None, ge=1, le=1000)  # denoising; None: the system's own number
    size: int | None = Field(default=None, ge=16, le=2048, multiple_of=2)  # side in pixels; None: as rendered


class Consent(Settings):
    """Who agreed that a portrait is animated, and for what."""

    who: str
    purpose: str


class Inputs(Settings):
    """All that shapes a video, by digest: two jobs with equal inputs are one job."""

    bundle: str
    audio: str  # SHA-256 of the sound file
    portrait: str | None = None  # SHA-256 of the portrait file
    video: str | None = None  # SHA-256 of the video file
    consent: Consent | None = None
    seed: int
    steps: int | None = None
    size: int | None = None

    @property
    def job(self) -> str:
        """Digest of the job: bundle, inputs, seed and settings."""
        # without a video the digest is what it was before there were videos: what is published keeps its name
        left_out = {"video"} if self.video is None else None
        return canonical_digest(self.model_dump(mode="json", exclude=left_out))


class Result(BaseModel):
    """A published video and what stands beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["done"] = "done"
    out: Path
    sidecar: Path
    portrait: Path | None  # PNG of the face that is animated, where the system makes one
    frames: int
    seconds: float  # of the sound
    job: str  # digest
    video: str  # SHA-256
    reused: bool  # the video stood there already, with a sidecar that fits


class Refused(BaseModel):
    """A job without a video: its inputs were rejected, or it failed through no fault of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["rejected", "failed"]
    out: Path
    code: Reason | FailureCode
    detail: str


Outcome = Result | Refused


def check_jobs(jobs: Iterable[Job]) -> None:
    """Raise ``Misuse`` where a video could not be written where it is asked for, or two are asked for in one place."""
    asked: dict[Path, Job] = {}
    for job in jobs:
        if job.out.suffix != ".mp4":
            raise Misuse(f"{job.out}: the video is an mp4; give it a name that ends with .mp4")
        if job.out.is_dir():
            raise Misuse(f"{job.out} is a folder; give the video another name")
        place = job.out.absolute()
        if asked.setdefault(place, job) != job:
            raise Misuse(f"{job.out}: two different jobs would be written there; give each its own name")
        if place in {path.absolute() for path in (job.audio, job.portrait, job.video) if path is not None}:
            raise Misuse(f"{job.out} is also an input; give the video another name")
