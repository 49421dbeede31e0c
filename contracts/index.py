"""The ledger: a line per row and per span of a dataset, with every score as a column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.reasons import Reason


@dataclass(frozen=True)
class Column:
    """A column of the ledger: its type, its unit and what it says."""

    name: str
    type: pa.DataType
    unit: str
    says: str


_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()

COLUMNS = (
    Column("level", _TEXT, "", "row: a manifest row; span: a part of it, one sample where kept"),
    Column("key", _TEXT, "", "of the row, or <row key>-s00, -s01, … of a span"),
    Column("row", _INT, "", "number of the row in the plan"),
    Column("span", _INT, "", "number of the span in its row; null on a row"),
    Column("state", _TEXT, "", "kept, rejected or failed"),
    Column("reason", _TEXT, "", "why it was refused, or the code of the failure"),
    Column("detail", _TEXT, "", "the same in words"),
    Column("file", _TEXT, "", "source file, relative to the data root"),
    Column("native_id", _TEXT, "", "the corpus's own name"),
    Column("source_sha256", _TEXT, "", "digest of the source file"),
    Column("source_bytes", _INT, "bytes", "size of the source file"),
    Column("source_frames", _INT, "frames", "frames decoded from the source"),
    Column("source_fps", _REAL, "frames/s", "mean rate of the source"),
    Column("source_width", _INT, "px", "upright width of the source"),
    Column("source_height", _INT, "px", "upright height of the source"),
    Column("kind", _TEXT, "", "clip, face or speech"),
    Column("start_s", _REAL, "s", "start on the container's clock"),
    Column("end_s", _REAL, "s", "end on the container's clock"),
    Column("frames", _INT, "frames", "stored frames at 25 per second"),
    Column("side", _INT, "px", "side of the stored crop"),
    Column("corpus", _TEXT, "", "name of the corpus"),
    Column("speaker", _TEXT, "", "speaker as the manifest names them"),
    Column("gender", _TEXT, "", "f, m or unknown"),
    Column("age", _REAL, "years", "age as given"),
    Column("language", _TEXT, "", "language as given"),
    Column("licence", _TEXT, "", "licence as given"),
    Column("consent", _TEXT, "", "consent as given"),
    Column("split", _TEXT, "", "split as given"),
    Column("faces", _INT, "", "faces that the detector saw in the first frame"),
    Column("detector", _TEXT, "", "which detector found the face"),
    Column("face_px", _REAL, "px", "median width of the face in the source"),
    Column("found", _REAL, "share", "frames in which landmarks were found"),
    Column("aligned", _REAL, "share", "frames with level eyes (5°) whose mid-point is in place (10 %)"),
    Column("yaw_range", _REAL, "deg", "95 % range of yaw"),
    Column("pitch_range", _REAL, "deg", "95 % range of pitch"),
    Column("roll_range", _REAL, "deg", "95 % range of roll"),
    Column("yaw_abs", _REAL, "deg", "mean of yaw without its sign: high in profile"),
    Column("blink_rate", _REAL, "1/min", "closures of the eyes of at most 0.5 s"),
    Column("gaze_x", _REAL, "share", "median place of the irises, 0 middle, 1 the corner of the eye to the right"),
    Column("gaze_y", _REAL, "share", "the same downwards"),
    Column("gaze_range", _REAL, "share", "95 % range of gaze_x"),
    Column("sharpness", _REAL, "", "median variance of the Laplacian on the 256 px view"),
    Column("static", _REAL, "share", "frames equal to the one before"),
    Column("av_gap_s", _REAL, "s", "difference in length of pictures and sound, of what the row asks for"),
    Column("loudness_dbfs", _REAL, "dBFS", "root mean square level of the sound"),
    Column("silence", _REAL, "share", "frames below -50 dBFS"),
    Column("clipping", _REAL, "share", "samples at full scale"),
    Column(
        "level_swing", _REAL, "dB", "level of the frames, 90th percentile over 10th: a tone or hum has next to none"
    ),
    Column(
        "sync_geometry",
        _REAL,
        "correlation",
        "best correlation of the lips' motion with the loudness, slower changes aside",
    ),
    Column("sync_offset", _REAL, "frames", "shift of that best correlation; above 0: the sound trails"),
    Column(
        "sync_lead",
        _REAL,
        "correlation",
        "lead of the best over shifts at least 4 frames away: from 0.25 on the offset is sure",
    ),
    Column("picture_digest", _TEXT, "", "perceptual digest of the crops, 256 bits in hex: copies differ in few bits"),
    Column("sound_digest", _TEXT, "", "perceptual digest of the sound, 256 bits in hex; null where it is silent"),
)
SCHEMA = pa.schema([(column.name, column.type) for column in COLUMNS])
EXTRA = "extra."


def ledger(lines: list[dict[str, Any]]) -> pa.Table:
    """A table in the ledger's schema; names outside it must begin with ``extra.`` (strings).

    Raises ``ValueError`` for any other name: a column is declared before it is written.
    """
    names = {name for line in lines for name in line}
    unknown = {name for name in names if name not in SCHEMA.names and not name.startswith(EXTRA)}
    if unknown:
        raise ValueError(f"undeclared columns: {sorted(unknown)}")
    schema = pa.schema(list(SCHEMA) + [pa.field(name, pa.string()) for name in sorted(names) if name.startswith(EXTRA)])
    return pa.Table.from_pylist(lines, schema=schema)


def read_index(dataset: Path) -> pa.Table:
    """All ledger lines of a dataset's committed shards, in row order, read from the shards' own ledgers.

    Raises ``Corrupt`` where a ledger does not match its record.
    """
    from contracts.shards import committed

    tables = [shard.ledger() for shard in committed(dataset)]
    if not tables:
        return SCHEMA.empty_table()
    tables.insert(0, SCHEMA.empty_table())  # a ledger of an older version lacks columns: they are null
    return pa.concat_tables(tables, promote_options="default").sort_by([("row", "ascending"), ("span", "ascending")])


def samples(index: pa.Table) -> pa.Table:
    """The lines of ``index`` that are samples: kept spans."""
    import pyarrow.compute as pc

    return index.filter((pc.field("level") == "span") & (pc.field("state") == "kept"))


@dataclass(frozen=True)
class Account:
    """Counts that must add up. Raises ``ValueError`` from :meth:`check` where they do not."""

    read: int
    kept: int
    rejected: dict[Reason, int]
    failed: dict[str, int]

    def check(self) -> None:
        total = self.kept + sum(self.rejected.values()) + sum(self.failed.values())
        if self.read != total:
            raise ValueError(f"accounts do not add up: read {self.read}, accounted for {total}")


def account(index: pa.Table, level: str = "row") -> Account:
    """Count the lines of one level (``row`` or ``span``) by how they ended."""
    states: dict[str, dict[str, int]] = {"kept": {}, "rejected": {}, "failed": {}}
    read = 0
    for line in index.select(["level", "state", "reason"]).to_pylist():
        if line["level"] == level:
            read += 1
            ended = states[line["state"]]
            ended[line["reason"] or ""] = ended.get(line["reason"] or "", 0) + 1
    rejected = {Reason(reason): count for reason, count in states["rejected"].items()}
    return Account(read, sum(states["kept"].values()), rejected, states["failed"])
