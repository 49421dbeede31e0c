"""Consent of the person shown or heard: its text form, whether it holds on a day, and what a policy asks of a row.

The text is one line, in either of two forms that say the same::

    given; purpose=training,generation; until=2027-12-31; who=Ada Lovelace; evidence=sha256:9f86d0…
    {"state": "given", "purpose": ["training", "generation"], "until": "2027-12-31"}

``state`` stands first: ``given``; ``withdrawn``, with an optional ``on=2026-05-01``; or ``not needed: <why>``, for
invented people and the like. ``from`` and ``until`` are days that count themselves; ``purpose`` is needed where
consent is given, since a consent to everything is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts.errors import Reject
from contracts.reasons import Reason
from contracts.settings import Settings, canonical_digest

LONGEST = 2000  # characters of a consent
PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,39}")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
EVIDENCE = re.compile(r"sha256:[0-9a-f]{64}")
NO_LICENCE = frozenset(
    {"unknown", "unclear", "none", "none stated", "not stated", "n/a", "?", "-"}
)  # what people write where they know of none
Fact = Literal["speaker", "gender", "age", "language", "licence", "consent"]
REASONS = (Reason.BAD_MANIFEST, Reason.NO_CONSENT, Reason.LICENCE)  # that a policy gives


class Consent(Settings):
    """A consent as given. ``purpose`` holds lower-case words such as ``training`` and ``generation``."""

    state: Literal["given", "withdrawn", "not needed"]
    purpose: tuple[str, ...] = ()
    from_day: date | None = Field(None, alias="from")
    until: date | None = None
    on: date | None = None  # of a withdrawal
    who: str | None = None
    evidence: str | None = None  # digest of the signed paper, or where it lies
    why: str | None = None  # none is needed

    @field_validator("purpose", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            raise ValueError("purpose must be words, as training,generation")
        plain = tuple(str(word).strip().lower() for word in words)
        for word in plain:
            if not PURPOSE.fullmatch(word):
                raise ValueError(f"{word!r} is not a purpose such as training or generation")
        return plain

    @field_validator("from_day", "until", "on", mode="before")
    @classmethod
    def _day(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and DAY.fullmatch(value)):
            raise ValueError(f"{value!r} is not a day such as 2027-12-31")
        return value

    @field_validator("evidence")
    @classmethod
    def _digest(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("sha256:") and not EVIDENCE.fullmatch(value):
            raise ValueError("sha256: takes 64 lower-case hexadecimal digits")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Consent:
        if self.state == "given" and not self.purpose:
            raise ValueError("purpose is missing: say for what, as purpose=training")
        if self.state == "not needed" and not self.why:
            raise ValueError("say why none is needed, as not needed: an invented person")
        if self.from_day and self.until and self.until < self.from_day:
            raise ValueError(f"until {self.until} is before from {self.from_day}")
        return self

    def check(self, purpose: str, day: date) -> None:
        """Raise ``Reject(NO_CONSENT)`` unless this consent holds for ``purpose`` on ``day``."""
        if self.state == "not needed":
            return
        if self.state == "withdrawn":
            raise Reject(Reason.NO_CONSENT, f"withdrawn{f' on {self.on}' if self.on else ''}")
        if purpose not in self.purpose:
            raise Reject(Reason.NO_CONSENT, f"given for {', '.join(self.purpose)}, not for {purpose}")
        if self.from_day is not None and day < self.from_day:
            raise Reject(Reason.NO_CONSENT, f"given from {self.from_day} on, asked for {day}")
        if self.until is not None and day > self.until:
            raise Reject(Reason.NO_CONSENT, f"expired: given until {self.until}, asked for {day}")


def parse(text: str | None) -> Consent:
    """The consent that ``text`` states. Raises ``Reject(NO_CONSENT)``, saying what is wrong, where it states none.

    >>> parse("given; purpose=training; until=2027-12-31").until
    datetime.date(2027, 12, 31)
    >>> parse("not needed: an invented person").state
    'not needed'
    """
    said = (text or "").strip()
    if not said:
        raise Reject(Reason.NO_CONSENT, "no consent is stated")
    if len(said) > LONGEST or not said.isprintable():
        raise Reject(Reason.NO_CONSENT, f"a consent is one printable line of at most {LONGEST} characters")
    try:
        return Consent.model_validate(_json(said) if said.startswith("{") else _parts(said))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ").replace("Value error, ", "")
            for fault in error.errors()
        )
        raise Reject(Reason.NO_CONSENT, f"not a consent: {faults}") from None
    except (ValueError, RecursionError) as error:
        raise Reject(Reason.NO_CONSENT, f"not a consent: {error}") from None


def _json(said: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        return dict(pairs)

    values: dict[str, Any] = json.loads(said, object_pairs_hook=once)
    return values


def _parts(said: str) -> dict[str, Any]:
    head, *rest = (part.strip() for part in said.split(";"))
    state, _, why = (part.strip() for part in head.partition(":"))
    if state.lower() not in ("given", "withdrawn", "not needed"):
        raise ValueError(f"it begins with {state[:40]!r}; write given, withdrawn or not needed first")
    values: dict[str, Any] = {"state": state.lower()} | ({"why": why} if why else {})
    for part in filter(None, rest):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ValueError(f"{part[:40]!r} is not name=value")
        if name in values:
            raise ValueError(f"{name} stands twice")
        values[name] = value
    return values


class Person(Protocol):
    """What a policy looks at: the people columns of a manifest row."""

    speaker: str | None
    gender: Literal["f", "m", "unknown"]
    age: float | None
    language: str | None
    licence: str | None
    consent: str | None


class PeoplePolicy(Settings):
    """``ingest.people`` of params.yaml: which people columns a row must have.

    By default all are recorded and none is required. A stated withdrawal is obeyed under every policy.
    """

    require: tuple[Fact, ...] = ()
    licences: tuple[str, ...] = ()  # the allowed ones, case ignored; where there are any, a row must have one of them
    purpose: str = Field(default="training", pattern=PURPOSE.pattern)  # that a consent must name
    day: date | None = None  # on which a consent must hold; None: the day of the first planning, kept in the plan
    forgotten: tuple[str, ...] = ()  # marks of people whom voxface dataset forget took out: they do not come back

    def frozen(self, before: PeoplePolicy | None, today: date) -> PeoplePolicy:
        """The policy with its day: its own, else that of ``before`` (the plan's), else ``today``.

        No day where no consent is required: then nothing depends on it. Whom ``before`` has forgotten stays so.
        """
        forgotten = tuple(sorted({*self.forgotten, *(before.forgotten if before else ())}))
        day = (self.day or (before.day if before else None) or today) if "consent" in self.require else None
        return self.model_copy(update={"day": day, "forgotten": forgotten})

    def check(self, row: Person) -> None:
        """Raise ``Reject`` where ``row`` lacks what is required: BAD_MANIFEST, NO_CONSENT, LICENCE, in this order."""
        if self.forgotten and row.speaker and mark(row.speaker) in self.forgotten:
            raise Reject(Reason.NO_CONSENT, "this person was forgotten on request")
        lacking = [name for name in missing(row) if name in self.require and name not in ("licence", "consent")]
        if lacking:
            raise Reject(Reason.BAD_MANIFEST, f"the policy requires {', '.join(lacking)}")
        if "consent" in self.require:
            parse(row.consent).check(self.purpose, self.day or date.today())
        elif withdrawn(row.consent):
            raise Reject(Reason.NO_CONSENT, "withdrawn")
        if "licence" in self.require or self.licences:
            if "licence" in missing(row):
                raise Reject(Reason.LICENCE, "no licence is stated")
            allowed = {name.strip().casefold() for name in self.licences}
            if allowed and (row.licence or "").strip().casefold() not in allowed:
                raise Reject(Reason.LICENCE, f"{row.licence!r} is not among the allowed: {', '.join(self.licences)}")

    def verdict(self, row: Person) -> tuple[Reason, str] | None:
        """Why ``row`` is refused, or ``None``."""
        try:
            self.check(row)
        except Reject as refused:
            return refused.reason, refused.detail
        return None


RECORDED = PeoplePolicy()  # the default: nothing required


def mark(speaker: str) -> str:
    """What stands for a forgotten speaker where the name may not: a digest of it."""
    return canonical_digest(["forgotten", speaker])


def withdrawn(text: str | None) -> bool:
    """Whether ``text`` states a withdrawal, however the rest of it reads."""
    try:
        return parse(text).state == "withdrawn"
    except Reject:
        return re.match(r"\s*withdrawn\b", text or "", re.IGNORECASE) is not None


def missing(row: Person) -> list[str]:
    """The people columns that ``row`` leaves open; a licence ``unknown`` counts as none."""
    lacking = [name for name in ("speaker", "age", "language") if getattr(row, name) in (None, "")]
    lacking += ["gender"] if row.gender == "unknown" else []
    lacking += ["licence"] if (row.licence or "").strip().casefold() in NO_LICENCE | {""} else []
    lacking += ["consent"] if not (row.consent or "").strip() else []
    return lacking


def count_missing(rows: Iterable[Person]) -> dict[str, int]:
    """Rows that lack each people column; ``consent not in form``: stated, but in words that no policy can judge."""
    names = ("speaker", "gender", "age", "language", "licence", "consent")
    counts = dict.fromkeys((*names, "consent not in form"), 0)
    for row in rows:
        for name in missing(row):
            counts[name] += 1
        if (row.consent or "").strip():
            try:
                parse(row.consent)
            except Reject:
                counts["consent not in form"] += 1
    return counts
