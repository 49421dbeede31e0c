"""The lines of a campaign or a benchmark: what was measured beside what it has to be, and one exit code for all."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.errors import VoxfaceError


@dataclass(frozen=True)
class Line:
    """One row: ``figure`` is what was measured, in words and numbers; ``target`` what it must be."""

    id: str
    says: str
    figure: str
    target: str
    verdict: str  # PASS, MISS, INFO (has no target) or SKIP (could not be tried; figure says why)


class Scoreboard:
    """Prints each line as it comes and keeps them all; ``close`` gives the exit code: 3 where a target was missed."""

    def __init__(self, name: str, results: Path | None = None) -> None:
        self.name = name
        self.lines: list[Line] = []
        self._results = results or Path(os.environ.get("VOXFACE_WORK", "work")) / "campaigns"
        self._began = time.monotonic()

    def check(self, id: str, says: str, figure: str, target: str, held: bool) -> None:
        """A line with a target that held, or did not."""
        self._add(Line(id, says, figure, target, "PASS" if held else "MISS"))

    def tell(self, id: str, says: str, figure: str) -> None:
        """A line without a target."""
        self._add(Line(id, says, figure, "", "INFO"))

    def skip(self, id: str, says: str, why: str) -> None:
        """A line that could not be tried here; it does not count as held."""
        self._add(Line(id, says, why, "", "SKIP"))

    def close(self) -> int:
        """Write ``<name>.json`` with the lines and the machine, print the sum, return the exit code."""
        seconds = time.monotonic() - self._began
        missed = [line.id for line in self.lines if line.verdict == "MISS"]
        counts = {verdict: sum(line.verdict == verdict for line in self.lines) for verdict in ("PASS", "MISS", "SKIP")}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        print(f"{self.name}: {told}; {seconds:.0f} s" + (f"; missed: {', '.join(missed)}" if missed else ""))
        self._results.mkdir(parents=True, exist_ok=True)
        record = {
            "name": self.name,
            "seconds": round(seconds, 1),
            "machine": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
            "lines": [asdict(line) for line in self.lines],
        }
        (self._results / f"{self.name}.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        return 3 if missed else 0

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        target = f"  (target: {line.target})" if line.target else ""
        print(f"{line.verdict:4}  {line.id:8} {line.says}: {line.figure}{target}", flush=True)


def ended(main: Callable[[], int]) -> int:
    """The exit code of ``main``; what it refuses is one line, as the command's own refusals are."""
    try:
        return main()
    except VoxfaceError as error:
        print(f"voxface: {error}", file=sys.stderr)
        return error.exit_code


def at_least_one(text: str) -> int:
    """An option that counts: a whole number of 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return number


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
