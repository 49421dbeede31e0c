"""``metrics.jsonl``: the truth about how a stage trained, one JSON line per event."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.files import commit_bytes
from contracts.settings import canonical_json

METRICS_FILE = "metrics.jsonl"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
STAGE_FILE = "stage.json"  # beside it: what the stage is being made of


class Record:
    """Appends lines ``{kind, step, time, values, …}``; ``step`` counts finished steps, ``time`` is Unix seconds.

    Kinds: ``start`` (each start or resumption), ``train``, ``skipped`` (a step not taken, with its
    ``keys`` and those of them drawn no more, ``out``), ``validation``, ``note`` (a warning, as ``text``), ``end``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE

    def append(self, kind: str, step: int, values: Mapping[str, float], **more: Any) -> None:
        """Add one line. A value that is not finite is left out: JSON has none."""
        finite = {name: value for name, value in values.items() if abs(value) < float("inf")}
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), "values": finite, **more}
        data = (canonical_json(line) + "\n").encode()
        try:
            file = os.open(self.path, APPEND, 0o666)  # opened each time: ``cut`` puts another one in its place
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, APPEND, 0o666)
        try:
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)

    def sync(self) -> None:
        """Make what was appended durable; done with each checkpoint."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def cut(self, step: int) -> None:
        """Drop what was written after ``step`` and a torn last line, before training resumes from there."""
        kept = [line for line in read_record(self.path.parent) if line["step"] <= step]
        commit_bytes(self.path, "".join(canonical_json(line) + "\n" for line in kept).encode())


def read_record(folder: Path) -> list[dict[str, Any]]:
    """The lines in order. Of two about the same thing (kind, step, split) the later counts, a torn one not at all."""
    path = folder / METRICS_FILE
    lines: dict[Any, dict[str, Any]] = {}
    for number, text in enumerate(path.read_text().splitlines() if path.is_file() else ()):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        # every start counts: they are told apart by their place
        identity = (
            number if line["kind"] == "start" else (line["kind"], line["step"], line.get("split"), line.get("text"))
        )
        lines.pop(identity, None)
        lines[identity] = line
    return list(lines.values())
