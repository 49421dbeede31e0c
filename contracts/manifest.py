"""One line of a manifest, whatever corpus it came from, and the key made for it."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from contracts.errors import Reject
from contracts.reasons import Reason
from contracts.settings import Settings, canonical_json

Kind = Literal["clip", "face", "speech"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,95}")
LONGEST_ID = 512  # bytes
SAMPLE_MEDIA: dict[str, Kind] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp"), "face"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus"), "speech"),
}
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # http://, file:, concat:
DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # C:\
NO_LETTERS = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, ends of line and paragraph
RIGHT_TO_LEFT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Row(Settings):
    """A manifest row. ``file`` is relative to the data root; times are seconds, boxes fractions."""

    file: str
    id: str = ""
    start_s: float | None = Field(None, ge=0, allow_inf_nan=False)
    end_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    face_x: float | None = Field(None, ge=0, le=1)
    face_y: float | None = Field(None, ge=0, le=1)
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    corpus: str = "corpus"
    speaker: str | None = None
    gender: Literal["f", "m", "unknown"] = "unknown"
    age: float | None = Field(None, ge=0, allow_inf_nan=False)
    language: str | None = None
    licence: str | None = None
    consent: str | None = None
    kind: Kind = "clip"
    split: str | None = None
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("box")
    @classmethod
    def _ordered(cls, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if box is not None:
            x0, y0, x1, y1 = box
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise ValueError(f"box must be fractions x0 < x1, y0 < y1 within 0..1, got {box}")
        return box

    @property
    def native_id(self) -> str:
        """The corpus's own name of this row; ``file`` where it gives none."""
        return self.id or self.file

    @property
    def key(self) -> str:
        """Our name of this row: ``<corpus>-<slug>-<12 hex>``; no dot, safe as a file name."""
        identity = [self.corpus, self.native_id, self.start_s, self.end_s, self.face_x, self.face_y, self.box]
        digest = hashlib.sha256(canonical_json(identity).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return f"{slug(self.corpus, 16)}-{slug(PurePosixPath(self.native_id).stem, 60)}-{digest}"

    def check_id(self) -> None:
        """Raise ``Reject(BAD_ID)`` unless the native id and file are plain relative names.

        Case, dots and letters of any script are the corpus's own affair: names that differ in a byte are two names.
        """
        for name in (self.native_id, self.file):
            if len(name.encode("utf-8", "surrogatepass")) > LONGEST_ID:
                raise Reject(Reason.BAD_ID, f"longer than {LONGEST_ID} bytes")
            plain = name.isascii() and name.isprintable()
            if not plain and any(unicodedata.category(c) in NO_LETTERS or c in RIGHT_TO_LEFT for c in name):
                raise Reject(Reason.BAD_ID, f"control or direction characters in {name!r}")
        for name in (self.native_id, self.file):
            if name == self.file and ADDRESS.match(name):
                continue  # judged by its own rule, not as an id
            if not name or name[0] in "/\\" or ".." in re.split(r"[\\/]", name) or DRIVE.match(name):
                raise Reject(Reason.BAD_ID, f"not a plain relative name: {name!r}")


COLUMNS = tuple(name for name in Row.model_fields if name != "extra")


def row_from(values: dict[str, Any]) -> Row:
    """Make a ``Row`` from one table line; unknown columns become ``extra``, empty cells are absent.

    Raises ``pydantic.ValidationError`` (a ``ValueError``) where a value does not fit.
    """
    given = {
        k: v for k, v in values.items() if v is not None and v != "" and not (isinstance(v, float) and math.isnan(v))
    }
    if "license" in given:
        given.setdefault("licence", given.pop("license"))
    known = {name: given.pop(name) for name in COLUMNS if name in given}
    for name in ("id", "speaker", "language", "licence", "consent", "split", "file", "corpus"):
        if isinstance(known.get(name), int | float):  # a list or an object is no name
            known[name] = str(known[name])
    if isinstance(known.get("box"), str):
        known["box"] = tuple(float(part) for part in known["box"].split())
    if "kind" not in known:
        known["kind"] = SAMPLE_MEDIA.get(PurePosixPath(known.get("file", "")).suffix.lower(), "clip")
    return Row(**known, extra={str(k): str(v) for k, v in given.items()})


def slug(text: str, longest: int) -> str:
    """Lower-case ASCII letters, digits and ``-``, at most ``longest`` of them, never empty.

    >>> slug("WDA_JohnLewis 1.mp4", 60)
    'wda-johnlewis-1-mp4'
    """
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:longest].strip("-") or "x"
