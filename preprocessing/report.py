"""The page of a dataset: what became of every row, how the scores lie, who is in it, and faces to look at."""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.files import commit_bytes
from contracts.index import COLUMNS, account, read_index, samples
from contracts.sample import FPS, Frames
from contracts.selection import REFUSED_FILE, Selection, read_selection
from contracts.shards import committed, dataset_digest
from preprocessing.funnel import costs
from preprocessing.page import bars, document, figure, histogram, table
from preprocessing.people import people

SCORES = ("side", *(column.name for column in COLUMNS[[c.name for c in COLUMNS].index("face_px") :]))
CLEAR = 0.3  # correlation of mouth and sound from which an offset is worth a look
SHOWN = 120  # pictures on a contact sheet; the page says how many there are
PICTURE = 128  # pixels of a picture's side


@dataclass(frozen=True)
class Choice:
    """What a selection says of the samples: the chosen, and why each other one is refused."""

    selection: Selection
    refused: dict[str, tuple[str, str]]  # key -> reason, detail


def write_dataset_report(dataset: Path, out: Path, selection: Path | None) -> None:
    """Write the page of ``dataset`` to ``out``; ``selection`` (a folder) adds its splits, refusals and thresholds.

    Sources are not decoded: pictures come from stored crops. Raises ``Corrupt`` for a damaged dataset.
    """
    index = read_index(dataset)
    choice = _read_choice(selection) if selection is not None else None
    parts = [
        f"<h1>Talking faces in {html.escape(dataset.name)}</h1>",
        _accounts(dataset, index),
        _reasons(index),
        _choice(choice),
        _histograms(samples(index), choice),
        costs(samples(index), list(choice.selection.rules.values())) if choice else "",
        _contact_sheet(dataset, index, choice),
        _refusals(index),
        _offsets(samples(index)),
        people(dataset, index, choice.selection if choice else None),
        _columns(),
    ]
    commit_bytes(out, document(f"Talking faces in {dataset.name}", "".join(parts)))


def _read_choice(folder: Path) -> Choice:
    path = folder / REFUSED_FILE
    lines = pq.read_table(path).to_pylist() if path.is_file() else []
    return Choice(read_selection(folder), {line["key"]: (line["reason"], line["detail"]) for line in lines})


def _accounts(dataset: Path, index: pa.Table) -> str:
    kept = samples(index)
    minutes = sum(frames or 0 for frames in kept["frames"].to_pylist()) / FPS / 60
    rows = []
    for level in ("row", "span"):
        count = account(index, level)
        rows.append([level + "s", count.read, count.kept, sum(count.rejected.values()), sum(count.failed.values())])
    speakers = {name for name in kept["speaker"].to_pylist() if name}
    says = f"{kept.num_rows} samples, {minutes:.1f} minutes, {len(speakers)} named speakers."
    says += f" Digest <code>{dataset_digest(dataset)[:12]}</code>."
    return f"<p>{says}</p>{table(['', 'read', 'kept', 'rejected', 'failed'], rows)}"


def _reasons(index: pa.Table) -> str:
    count = account(index, "row")
    counts = [("kept", count.kept, "bar")]
    counts += [(str(reason), number, "bad") for reason, number in sorted(count.rejected.items(), key=lambda x: -x[1])]
    counts += [(code, number, "bad") for code, number in sorted(count.failed.items())]
    return f"<h2>What became of the rows</h2>{bars(counts)}"


def _choice(choice: Choice | None) -> str:
    if choice is None:
        return ""
    rows = []
    for split in ("train", "val"):
        members = [sample for sample in choice.selection.samples if sample.split == split]
        minutes = sum(sample.frames for sample in members) / FPS / 60
        genders = Counter({sample.speaker: sample.gender for sample in members}.values())
        rows.append(
            [
                split,
                len(members),
                f"{minutes:.1f}",
                sum(genders.values()),
                genders["f"],
                genders["m"],
                genders["unknown"],
            ]
        )
    refused = "".join(f"<li>{html.escape(name)}: {n}</li>" for name, n in sorted(choice.selection.refused.items()))
    return (
        "<h2>Selection</h2>"
        + table(["split", "samples", "minutes", "speakers", "women", "men", "unknown"], rows)
        + (f"<p>Samples that the selection leaves out:</p><ul>{refused}</ul>" if refused else "")
    )


def _histograms(kept: pa.Table, choice: Choice | None) -> str:
    by_name = {column.name: column for column in COLUMNS}
    rules = choice.selection.rules if choice else {}
    plots = []
    for name in SCORES:
        if not pa.types.is_floating(kept[name].type) and not pa.types.is_integer(kept[name].type):
            continue
        values = np.array([value for value in kept[name].to_pylist() if value is not None], dtype=float)
        values = values[np.isfinite(values)]
        if len(values):
            column = by_name[name]
            title = f"{name}{f' ({column.unit})' if column.unit else ''}"
            said = [f"{reason} unless {rule}" for reason, rule in rules.items() if re.search(rf"\b{name}\b", rule)]
            caption = "; ".join([column.says, *said])
            plot = histogram(title, values, thresholds(name, rules.values()))
            plots.append(f"<figure>{plot}<figcaption>{html.escape(caption)}</figcaption></figure>")
    body = "".join(plots) or "<p>No scores.</p>"
    return f'<h2>Scores of the samples</h2><div class="plots">{body}</div>'


def thresholds(name: str, rules: Iterable[str]) -> list[float]:
    """Numbers that ``rules`` compare the column ``name`` with.

    >>> thresholds("static", ["static < 0.9 and silence < 0.5"])
    [0.9]
    """
    found = (match for rule in rules for match in re.findall(rf"\b{name}\s*[<>]=?\s*(-?\d+(?:\.\d+)?)", rule))
    return [float(number) for number in found]


def _contact_sheet(dataset: Path, index: pa.Table, choice: Choice | None) -> str:
    refused = choice.refused if choice else {}
    speaker = {line["key"]: line for line in samples(index).to_pylist()}
    chosen: list[str] = []
    left_out: list[str] = []
    pictures = Pictures(dataset)
    for key, line in speaker.items():
        if line["kind"] == "speech":
            continue
        target = left_out if key in refused else chosen
        if len(target) < SHOWN:
            said = " · ".join(
                x for x in (line["speaker"], line["gender"], f"{line['frames']} frames", _heard(line)) if x
            )
            why = f"<br><b>{html.escape(refused[key][0])}</b> {html.escape(refused[key][1])}" if key in refused else ""
            target.append(figure(pictures.picture(key), f"{html.escape(key)}<br>{html.escape(said)}{why}"))
    parts = [f"<h2>Kept: one frame of each</h2>{_shown(chosen, len(speaker) - len(refused))}"]
    parts.append(f'<div class="faces">{"".join(chosen)}</div>')
    if left_out:
        parts.append(f"<h2>Kept, but left out by the selection</h2>{_shown(left_out, len(refused))}")
        parts.append(f'<div class="faces refused">{"".join(left_out)}</div>')
    return "".join(parts)


def _heard(line: dict[str, Any]) -> str:
    """Where the sound of a clip was found beside its lips, and how clearly."""
    if line["sync_offset"] is None:
        return ""
    return f"sound {line['sync_offset'] * 1000 / FPS:+.0f} ms ({line['sync_geometry'] or 0.0:.2f})"


class Pictures:
    """One small JPEG per sample, from its stored crop's middle frame."""

    def __init__(self, dataset: Path) -> None:
        self._shard = {key: shard for shard in committed(dataset) for key in shard.record.keys}

    def picture(self, key: str) -> bytes:
        """JPEG bytes, ``PICTURE`` pixels wide."""
        from PIL import Image

        frames = Frames(self._shard[key].read(key, ("frames",))["frames"])
        with Image.open(io.BytesIO(frames[len(frames) // 2])) as image:
            small = image.convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=80)
        return buffer.getvalue()


def _shown(figures: Sequence[str], of: int) -> str:
    return f'<p class="dim">{len(figures)} of {of} shown.</p>' if len(figures) < of else ""


def _refusals(index: pa.Table) -> str:
    """Rows and spans that are no samples: they have no stored picture, so they are named with the reason."""
    ended = [line for line in index.to_pylist() if line["state"] != "kept"]
    rows_ended = {line["row"] for line in ended if line["level"] == "row"}
    # a row that is refused as a whole says what its spans would say
    lines = [line for line in ended if line["level"] == "row" or line["row"] not in rows_ended]
    if not lines:
        return "<h2>Refused</h2><p>Nothing was refused.</p>"
    rows = [
        [line["level"], line["file"] or line["native_id"], line["frames"] or "", line["reason"], line["detail"]]
        for line in lines
    ]
    return "<h2>Refused, and why</h2>" + table(["", "file", "frames", "reason", "in words"], rows)


def _offsets(kept: pa.Table) -> str:
    """How many clips have their sound how far from their lips, by the geometric score."""
    counts = Counter(round(value) for value in kept["sync_offset"].to_pylist() if value is not None)
    if not counts:
        return ""
    clear = Counter(
        round(line["sync_offset"])
        for line in kept.select(["sync_offset", "sync_geometry"]).to_pylist()
        if line["sync_offset"] is not None and (line["sync_geometry"] or 0) >= CLEAR
    )
    rows = [[frames, f"{1000 * frames / FPS:+.0f} ms", counts[frames], clear[frames]] for frames in sorted(counts)]
    says = (
        "Above 0 the sound trails. A weak correlation says little about its offset: the last column leaves those out."
    )
    heading = ["frames", "time", "clips", f"of these, correlation at least {CLEAR}"]
    return f'<h2>Sound against lips</h2><p class="dim">{says}</p>{table(heading, rows)}'


def _columns() -> str:
    rows = [[column.name, column.unit, column.says] for column in COLUMNS]
    listed = table(["column", "unit", ""], rows)
    return f"<h2>What the columns say</h2><details><summary>All columns</summary>{listed}</details>"
