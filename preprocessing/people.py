"""Who is in a dataset, as a part of its page: minutes by gender and by speaker, and what the manifest does not say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from contracts.consent import count_missing
from contracts.index import samples
from contracts.plan import read_policy
from contracts.sample import FPS
from contracts.selection import Selection
from preprocessing.page import table

FACTS = ("speaker", "gender", "age", "language", "licence", "consent")


def people(dataset: Path, index: pa.Table, selection: Selection | None) -> str:
    """HTML: what rows lack, the policy they were judged by, minutes by gender, and a line per speaker."""
    kept = samples(index).to_pylist()
    rows = [line for line in index.to_pylist() if line["level"] == "row"]
    side = {sample.speaker: sample.split for sample in (selection.samples if selection else ())}
    by_gender: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_speaker: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in kept:
        gender = line["gender"] or "unknown"
        by_gender[gender].append(line)
        by_speaker[line["speaker"] or "(not named)", gender].append(line)
    genders = [
        [name, len({line["speaker"] for line in of if line["speaker"]}), *_amounts(of)]
        for name, of in sorted(by_gender.items())
    ]
    speakers = [
        [name, gender, *_amounts(of), side.get(name, "")]
        + [_said(of, fact) for fact in ("language", "licence", "consent")]
        for (name, gender), of in sorted(by_speaker.items())
    ]
    if not kept and not rows:
        return "<h2>People</h2><p>Nobody.</p>"
    return (
        "<h2>People</h2>"
        + _lacking(dataset, rows)
        + table(["gender", "named speakers", "clips", "stills", "sounds", "minutes"], genders)
        + "<p></p>"
        + table(
            ["speaker", "gender", "clips", "stills", "sounds", "minutes", "split", "language", "licence", "consent"],
            speakers,
        )
    )


def _lacking(dataset: Path, rows: list[dict[str, Any]]) -> str:
    """How many rows leave each people column open, kept and refused ones alike, and what the policy asks."""
    kept = [line for line in rows if line["state"] == "kept"]
    everyone, used = (count_missing(_facts(of)) for of in (rows, kept))
    policy = read_policy(dataset)
    required = set(policy.require) | ({"licence"} if policy.licences else set()) if policy else set()
    lines = [[name, everyone[name], used[name], "required" if name in required else ""] for name in everyone]
    asked = "Nothing is required of a row but that its consent is not withdrawn."
    if policy and required:
        asked = f"Required: {', '.join(sorted(required))}"
        asked += f"; licences {', '.join(policy.licences)}" if policy.licences else ""
        asked += f"; consent for {policy.purpose} on {policy.day}." if "consent" in required else "."
    heading = ["not said", f"of {len(rows)} rows", f"of {len(kept)} kept", ""]
    return f"<p>{asked}</p>{table(heading, lines)}<p></p>"


def _facts(lines: Iterable[dict[str, Any]]) -> Iterable[Any]:
    for line in lines:
        yield SimpleNamespace(**{name: line[name] for name in FACTS} | {"gender": line["gender"] or "unknown"})


def _amounts(lines: list[dict[str, Any]]) -> list[Any]:
    """Clips, stills, sounds, and minutes of clips."""
    counts = [sum(line["kind"] == kind for line in lines) for kind in ("clip", "face", "speech")]
    frames = sum(line["frames"] or 0 for line in lines if line["kind"] == "clip")
    return [*counts, round(frames / FPS / 60, 2)]


def _said(lines: list[dict[str, Any]], fact: str) -> str:
    return ", ".join(sorted({str(line[fact]) for line in lines if line[fact]}))
