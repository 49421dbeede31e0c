"""Manifests: three kinds of table and folders, and what one bad line costs."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, read_manifest

LINES = [
    {"file": "a.mp4", "speaker": "007", "gender": "f", "start_s": 1.5, "license": "CC0", "mood": "calm"},
    {"file": "b c.mp4", "face_x": 0.25, "face_y": 0.5, "box": "0.1 0.2 0.6 0.9"},
    {"file": "-i.wav"},
]


def _csv(lines) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line))
    return "\n".join([",".join(names)] + [",".join(str(line.get(name, "")) for name in names) for line in lines])


@pytest.mark.parametrize("form", ["csv", "csv-bom-crlf", "jsonl", "parquet"])
def test_every_form_reads_alike(tmp_path, form, caplog):
    if form == "parquet":
        path = tmp_path / "m.parquet"
        real = ("start_s", "face_x", "face_y")
        schema = pa.schema({name: pa.float64() if name in real else pa.string() for line in LINES for name in line})
        pq.write_table(pa.Table.from_pylist(LINES, schema=schema), path)
    elif form == "jsonl":
        path = tmp_path / "m.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in LINES) + "\n\n")
    else:
        path = tmp_path / "m.csv"
        text = _csv(LINES)  # without a last newline
        path.write_bytes(("\ufeff" + text.replace("\n", "\r\n") if "bom" in form else text).encode())
    with caplog.at_level(logging.WARNING):
        rows = read_manifest(path, tmp_path)
    assert [row.file for row in rows] == ["a.mp4", "b c.mp4", "-i.wav"]
    assert (rows[0].speaker, rows[0].gender, rows[0].start_s, rows[0].licence) == ("007", "f", 1.5, "CC0")
    assert rows[0].extra == {"mood": "calm"}
    assert rows[1].box == (0.1, 0.2, 0.6, 0.9)
    assert [row.kind for row in rows] == ["clip", "clip", "speech"]
    assert [record.message for record in caplog.records] == [f"{path.name}: columns kept as extra: mood"]


def test_bad_csv_lines_cost_one_row_each(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(
        b"file,start_s,face_x\n"
        b"good.mp4,0,0.5\n"
        b"late.mp4,soon,\n"  # 3
        b"few.mp4\n"  # 4
        b"nan.mp4,1,7\n"  # 5
        b",1,\n"  # 6
        b"\n"
        b"caf\xe9.mp4,,\n"  # 8, Latin-1
        b"good2.mp4,,\n"
    )
    rows = read_manifest(path, tmp_path)
    assert [row.file if isinstance(row, Row) else row.line for row in rows] == ["good.mp4", 3, 4, 5, 6, 8, "good2.mp4"]
    details = {row.line: row.detail for row in rows if isinstance(row, BadLine)}
    assert "start_s" in details[3]
    assert "1 cells, the header has 3" in details[4]
    assert "face_x" in details[5]
    assert "not UTF-8" in details[8]
    assert all(detail.startswith(f"line {line}: ") for line, detail in details.items())


def test_bad_json_lines_cost_one_row_each(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'{"file": "a.mp4"}\n{"file": \n[1]\n{"file": "b.mp4", "start_s": NaN}\n'
        + b"[" * 200_000
        + b"\n"
        + b'{"file": "'
        + b"x" * 3_000_000
        + b'"}\n'
        + b'{"file": "\\ud800.mp4"}\n{"file": "z.mp4"}'
    )
    rows = read_manifest(path, tmp_path)
    assert [row.file if isinstance(row, Row) else row.line for row in rows] == ["a.mp4", 2, 3, 4, 5, 6, 7, "z.mp4"]


def test_a_giant_csv_line_costs_one_row(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("file,note\na.mp4,x\nb.mp4," + "y" * 2_000_000 + "\nc.mp4,z\n")
    rows = read_manifest(path, tmp_path)
    assert [row.file if isinstance(row, Row) else row.line for row in rows] == ["a.mp4", 3, "c.mp4"]


def test_a_quote_that_never_ends_costs_one_row(tmp_path):
    path = tmp_path / "m.csv"
    lines = [
        "file,note",
        'a.mp4,"two',
        'lines"',
        'b.mp4,"open',
        *(f"c{n}.mp4,x" for n in range(40)),
        'd.mp4,"open',
        "e.mp4,y",
    ]
    path.write_text("\n".join(lines))
    rows = read_manifest(path, tmp_path)
    expected = ["a.mp4", 4, *(f"c{n}.mp4" for n in range(40)), 45, "e.mp4"]
    assert [row.file if isinstance(row, Row) else row.line for row in rows] == expected
    assert rows[0].extra == {"note": "two\nlines"}


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.csv", "name\na\n"), ("m.csv", ""), ("m.csv", "file,file\na,b\n"), ("m.txt", "file\n"), ("m.parquet", "no")],
)
def test_what_is_no_manifest_is_misuse(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(Misuse, match=name):
        read_manifest(tmp_path / name, tmp_path)
    with pytest.raises(Misuse, match="does not exist"):
        read_manifest(tmp_path / "nothing.csv", tmp_path)


def test_text_in_parquet_that_is_no_utf8_is_misuse(tmp_path):
    text = pa.array([b"a\xef.mp4"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"file": text}), tmp_path / "m.parquet")
    with pytest.raises(Misuse, match=r"m\.parquet: not a readable"):
        read_manifest(tmp_path / "m.parquet", tmp_path)


def test_a_folder_is_a_manifest(tmp_path):
    for name in ("b.mp4", "a/z.MOV", "a/p.png", "a/s.wav", "notes.txt", ".hidden.mp4", ".git/x.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    rows = read_manifest(tmp_path / "in", tmp_path)
    assert [(row.file, row.kind) for row in rows] == [
        ("in/a/p.png", "face"),
        ("in/a/s.wav", "speech"),
        ("in/a/z.MOV", "clip"),
        ("in/b.mp4", "clip"),
    ]
    with pytest.raises(Misuse, match="data root"):
        read_manifest(tmp_path / "in", tmp_path / "in" / "a")
    (tmp_path / "none").mkdir()
    with pytest.raises(Misuse, match="holds no"):
        read_manifest(tmp_path / "none", tmp_path)
