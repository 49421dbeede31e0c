"""``make prove SYSTEM=… [TRAIN=manifest TEST=manifest]``: train a system at ``tiny`` and hold each stage to its bar."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import torch
from bars import claims, pictures
from bars.people import People, check, gather

from contracts.errors import Exit, VoxfaceError
from contracts.files import commit_bytes
from flows.places import default_work
from systems import catalogue
from training.evaluate import Line
from training.feed import feed
from training.prove import Proof, prove
from training.stages import Place

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 180.0  # that a stage learns whose system does not say for how long
HEADS = ("stage", "measure", "split", "trivial", "", "ours", "ratio", "95 %", "")


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, draw; the table on standard output and in ``table.md``; 3 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("system")
    parser.add_argument("--train", type=Path, help="manifest or committed dataset to learn from")
    parser.add_argument("--test", type=Path, help="manifest or committed dataset of other people")
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--loaders", type=int, default=1, help="processes that decode ahead; 0: none")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    began = time.monotonic()
    try:
        house = catalogue.get(given.system)
        people = gather(given.work, given.train, given.test)
        check(people)
        say(told_of(people))
        ahead = partial(feed, processes=given.loaders) if given.loaders else None
        place = Place(feed=ahead)
        out = people.folder / given.system
        proof = Proof(house, "tiny", people.learn, people.test, out, place, code=version(given.system), seconds=SECONDS)
        lines = prove(proof, claims.examine, lambda text: say(f"  {text}"))
        drawn = pictures.draw(proof)
    except VoxfaceError as error:
        print(f"voxface: {error}", file=sys.stderr)
        return error.exit_code
    minutes = (time.monotonic() - began) / 60
    text = f"{told_of(people)}\n\n{table(lines)}\n"
    commit_bytes(out / "table.md", text.encode())
    record = {"system": given.system, "people": people.name, "minutes": round(minutes, 1), "lines": lines}
    commit_bytes(out / "prove.json", json.dumps(record, indent=1).encode())
    say("\n" + text)
    missed = sorted({line["stage"] for line in lines if line["verdict"] == "MISS"})
    say(f"{minutes:.1f} minutes; " + (f"missed: {', '.join(missed)}" if missed else "no bar missed"))
    say(f"table: {out / 'table.md'}; pictures: {', '.join(map(str, drawn))}")
    return Exit.MISSED if missed else Exit.DONE


def told_of(people: People) -> str:
    """Who was learnt from and who was tested on."""
    half = {"learnt from": (people.learn, "train"), "never seen": (people.test, "val")}
    counts = []
    for name, (side, split) in half.items():
        clips = [s for s in side.selection.samples if s.kind == "clip" and s.split == split]
        counts.append(f"{len({s.speaker for s in clips})} speakers in {len(clips)} clips {name}")
    return f"people: {people.name}; {', '.join(counts)}; intervals: 95 % of draws of speakers"


def table(lines: list[Line]) -> str:
    """All lines as one Markdown table; where a ratio makes no sense (correlations), differences."""
    rows = [HEADS, tuple("-" * 3 for _ in HEADS)]
    for line in lines:
        if line["ratio"] is not None and line["low"] is not None:
            ratio, interval = number(line["ratio"]), f"[{number(line['low'])}, {number(line['high'])}]"
        elif line["difference"] is not None:
            low, high = line["difference"]
            ratio, interval = "-", f"difference [{number(low)}, {number(high)}]"
        else:
            ratio, interval = "-", "-"
        texts = (line["stage"], line["measure"], line["split"], line["baseline"] or "-", number(line["comparison"]))
        rows.append((*texts, number(line["ours"]), ratio, interval, line["verdict"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows)


def number(value: float | None) -> str:
    """Three digits that count."""
    return "-" if value is None else f"{value:.3g}"


def version(system: str) -> str:
    """Digest of the sources that decide what a stage becomes: an artifact of others is made anew."""
    folders = (ROOT / "contracts", ROOT / "training", ROOT / "systems" / "common", ROOT / "systems" / system)
    files = [*(path for folder in folders for path in folder.rglob("*.py")), ROOT / "systems" / "base.py"]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return f"prove+{digest.hexdigest()[:16]}"


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
