"""Mutated manifests: csv, jsonl and parquet, changed as bytes and as lines, read and planned."""

from __future__ import annotations

import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.mutation import mutate

from contracts.errors import Misuse

VALUES: tuple[Any, ...] = (
    None, "", 0, -1, 1.5, 1e308, 2**70, True, "nan", "../../escaped", "/etc/passwd", "good.wav", "gone.wav", "a\0b",
    "a\nb", "\u202egnp", "x" * 600, "http://127.0.0.1:9/x", "file:///etc/passwd", "'; touch canary",
    "=cmd|' /C calc'!A0", "é", "e\u0301", "0.1 0.2 0.9 0.8", "1 2 3", "inf inf inf inf", "f", "clip", "speech", [],
    {}, [1, [2]], {"a": {"b": 1}}, "\ud800", "withdrawn",
)  # fmt: skip
NAMES = ("file", "id", "start_s", "end_s", "face_x", "face_y", "box", "corpus", "speaker", "gender", "age", "language",
         "licence", "license", "consent", "kind", "split", "mood", "extra", "", "key", "é", "a" * 300)  # fmt: skip
TEXTS = (
    '"', ",", "\t", "\r", "\n", "\0", "\ufeff", "{", "}", "[" * 50, "]" * 50, ":", "\\", "NaN", "Infinity", "1e999",
    '"""', "\x1a", "null", "\u2028",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """One good sound file, so that some lines are kept."""
    from hostile.factory import Factory

    folder.mkdir()
    Factory(folder, folder).voice("good.wav")


def make(rng: np.random.Generator, seeds: Path, root: Path) -> str:
    """A mutated manifest under ``root``, beside the good sound file."""
    (root / "good.wav").hardlink_to(seeds / "good.wav")
    lines = [_line(rng) for _ in range(int(rng.integers(1, 7)))]
    form = ("csv", "jsonl", "parquet", "tsv")[int(rng.integers(4))]
    data = {"csv": _csv, "tsv": _csv, "jsonl": _jsonl, "parquet": _parquet}[form](rng, lines)
    if rng.integers(3) == 0:
        data = mutate(rng, data, [data, b'{"file": "good.wav"}\n', b"file,id\ngood.wav,x\n"])
    (root / f"m.{form}").write_bytes(data)
    return f"m.{form}"


def _line(rng: np.random.Generator) -> dict[str, Any]:
    line: dict[str, Any] = {"file": "good.wav"}
    for _ in range(int(rng.integers(0, 5))):
        line[NAMES[int(rng.integers(len(NAMES)))]] = VALUES[int(rng.integers(len(VALUES)))]
    return line


def _broken(rng: np.random.Generator, text: str) -> bytes:
    """The text with some characters put in, and in some encoding."""
    for _ in range(int(rng.integers(0, 3))):
        at = int(rng.integers(len(text) + 1))
        text = text[:at] + TEXTS[int(rng.integers(len(TEXTS)))] + text[at:]
    encoding = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")[int(rng.integers(6))]
    return text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


def _csv(rng: np.random.Generator, lines: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for line in lines for name in line))
    table = [names, *([line.get(name, "") for name in names] for line in lines)]
    quote = '"' if rng.integers(2) else ""
    newline = "\r\n" if rng.integers(2) else "\n"
    return _broken(rng, newline.join(",".join(f"{quote}{cell}{quote}" for cell in row) for row in table))


def _jsonl(rng: np.random.Generator, lines: list[dict[str, Any]]) -> bytes:
    return _broken(rng, "\n".join(json.dumps(line, ensure_ascii=bool(rng.integers(2))) for line in lines))


def _parquet(rng: np.random.Generator, lines: list[dict[str, Any]]) -> bytes:
    """Columns as text, as numbers, as what the first value is, or nested."""
    columns: dict[str, pa.Array] = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        values = [line.get(name) for line in lines]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
            columns[name] = pa.array([str(value).encode("utf-8", "replace") for value in values], pa.binary())
    kind = int(rng.integers(6))
    many = len(lines)
    odd = (pa.array([b"\xff\xfe"] * many), pa.array([[1, 2]] * many), pa.array([{"a": 1}] * many), pa.nulls(many))
    if kind < len(odd):
        columns[NAMES[int(rng.integers(len(NAMES)))]] = odd[kind]
    out = BytesIO()
    try:
        pq.write_table(pa.table(columns), out)
    except pa.ArrowNotImplementedError:  # a struct without members
        pq.write_table(pa.table({"file": ["good.wav"] * many}), out)
    return out.getvalue()


def run(name: str, root: Path, _: Any) -> str:
    """Read it and plan it; the account must add up."""
    from preprocessing.corpora import read_manifest
    from preprocessing.plan import plan_dataset

    try:
        rows = read_manifest(root / name, root)
        planned = plan_dataset(root / "out", rows, root)
    except Misuse:
        return "Misuse"
    if len(planned) != len(rows):
        return f"INTERNAL {len(rows)} rows read, {len(planned)} planned"
    ended = Counter(str(row.reason or "planned") for row in planned)
    return "+".join(sorted(ended)) or "empty"
