"""What is refused before anything is decoded: portraits without consent, sounds and pictures beyond the limits."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from contracts import consent as stated
from contracts.errors import Reject
from contracts.files import sha256_file
from contracts.limits import Limits
from contracts.reasons import Reason
from serving.jobs import Consent, Inputs, Job

TEXT_LIMIT = 500  # characters of a consent record
FORMAL = re.compile(r"\s*(\{|(given|withdrawn)\s*(;|$)|not needed\s*:)", re.IGNORECASE)


class ServingLimits(Limits):
    """Limits of ingestion, and those of requests that come over HTTP."""

    upload_bytes: int = 64 * 2**20  # ten minutes of 16-bit stereo at 48 kHz are 110 MB: long speech comes compressed
    portrait_bytes: int = 32 * 2**20
    request_bytes: int = 256 * 2**20  # of all files of a submission together
    request_seconds: float = 300.0  # that a body may take to arrive: a slow sender must not hold a slot


def read_consent(text: str | None) -> Consent:
    """The record behind ``--consent "who, purpose"``, or behind a consent in the form of manifests.

    Raises ``Reject(NO_CONSENT)`` where a part is missing; in the other form, unless it holds today for generation.

    >>> read_consent("Ada Lovelace, a greeting for the museum, in English").purpose
    'a greeting for the museum, in English'
    """
    if FORMAL.match(text or ""):
        return _formal(text or "")
    mend = 'a portrait needs --consent "who, purpose": who is shown agreed to be animated, and for what'
    who, _, purpose = (part.strip() for part in (text or "").partition(","))
    if not who or not purpose:
        raise Reject(Reason.NO_CONSENT, mend if not (text or "").strip() else f"{text!r} has one part; {mend}")
    if len(who) + len(purpose) > TEXT_LIMIT or not (who + purpose).isprintable():
        raise Reject(Reason.NO_CONSENT, f"the consent must be one printable line of at most {TEXT_LIMIT} characters")
    return Consent(who=who, purpose=purpose)


def _formal(text: str) -> Consent:
    """``given; purpose=generation; who=…; until=…`` (:mod:`contracts.consent`)."""
    found = stated.parse(text)
    found.check("generation", datetime.now(UTC).date())
    if found.state == "not needed":
        return Consent(who="nobody", purpose=f"not needed: {found.why}")
    if not found.who:
        raise Reject(Reason.NO_CONSENT, "the consent does not say whose it is: add who=NAME")
    return Consent(who=found.who, purpose="generation")


def check_file(path: Path) -> None:
    """Raise ``Reject`` unless ``path`` is a readable file with something in it."""
    if not path.exists():
        raise Reject(Reason.MISSING_FILE, f"{path} does not exist")
    if not path.is_file():
        raise Reject(Reason.NOT_A_FILE, f"{path} is not a file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise Reject(Reason.EMPTY_FILE, f"{path} is empty")
    except PermissionError as error:
        raise Reject(Reason.UNREADABLE, f"{path} may not be read") from error


def admit(job: Job, bundle: str) -> Inputs:
    """The identity of ``job`` for the bundle of that digest: consent looked at first, then files hashed.

    Raises ``Reject``: NO_CONSENT before a portrait is decoded; MISSING_FILE, NOT_A_FILE, UNREADABLE, EMPTY_FILE.
    """
    people = [path for path in (job.portrait, job.video) if path is not None]
    consent = read_consent(job.consent) if people else None
    for path in (job.audio, *people):
        check_file(path)
    digests = {path: sha256_file(path) for path in (job.audio, *people)}
    if job.consent_for is not None and any(digests[path] != job.consent_for for path in people):
        raise Reject(Reason.NO_CONSENT, "the consent was given for another picture: its digest is not this one's")
    return Inputs(
        bundle=bundle,
        audio=digests[job.audio],
        portrait=None if job.portrait is None else digests[job.portrait],
        video=None if job.video is None else digests[job.video],
        consent=consent,
        seed=job.seed,
        steps=job.steps,
        size=job.size,
    )
