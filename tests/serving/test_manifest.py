"""A manifest's lines are read one by one: each is a row, or says why it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Misuse
from serving.manifest import Line, read_lines


def read(folder: Path, *lines: str) -> list[Line]:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return read_lines(path)


def test_reads_and_places(tmp_path: Path) -> None:
    lines = read(
        tmp_path,
        '{"audio": "a/one.wav", "seed": 4}',
        "",
        '{"audio": "two.flac", "out": "deep/zwei.mp4", "portrait": "p.png", "consent": "A, test", "steps": 5}',
        '{"id": "third", "audio": "two.flac", "model": "0123456789ab"}',
    )
    assert [(line.number, line.name, str(line.out)) for line in lines] == [
        (1, "one", "one.mp4"),
        (3, "two", "deep/zwei.mp4"),
        (4, "third", "third.mp4"),
    ]
    assert lines[0].row is not None
    assert (lines[0].row.seed, lines[0].row.model) == (4, "champion")


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ('{"audio": "x.wav", "sead": 1}', "BAD_MANIFEST", "sead"),
        ('{"audio": "x.wav", "seed": NaN}', "BAD_MANIFEST", "NaN"),
        ('{"audio": "x.wav", "seed": -1}', "BAD_MANIFEST", "seed"),
        ('{"audio": "x.wav", "steps": 0}', "BAD_MANIFEST", "steps"),
        ('{"audio": "x.wav", "size": 33}', "BAD_MANIFEST", "size"),
        ('{"out": "x.mp4"}', "BAD_MANIFEST", "audio"),
        ('["x.wav"]', "BAD_MANIFEST", "not a JSON object"),
        ("[" * 60_000, "BAD_MANIFEST", "not JSON"),
        ("{", "BAD_MANIFEST", "not JSON"),
        ('{"audio": "' + "x" * 70_000 + '"}', "BAD_MANIFEST", "longer than"),
        ('{"audio": "x.wav", "out": "../x.mp4"}', "PATH_ESCAPE", "under the folder"),
        ('{"audio": "x.wav", "out": "/x.mp4"}', "BAD_MANIFEST", "under the folder"),
        ('{"audio": "x.wav", "out": "x.avi"}', "BAD_MANIFEST", "mp4"),
        ('{"audio": "x.wav", "id": "a/b"}', "BAD_ID", "a/b"),
        ('{"audio": "x.wav", "id": "..", "seed": 1}', "BAD_ID", "must match"),
        ('{"audio": "fine.wav", "seed": 1}', "DUPLICATE_ID", "line 1's"),
    ],
)
def test_a_wrong_line_is_told_and_the_next_is_read(tmp_path: Path, line: str, code: str, says: str) -> None:
    fine, wrong, after = read(tmp_path, '{"audio": "fine.wav"}', line, '{"audio": "after.wav"}')
    assert fine.row is not None
    assert after.row is not None
    assert (wrong.row, wrong.number, after.number) == (None, 2, 3)
    assert wrong.error is not None
    assert (wrong.error.reason, says in wrong.error.detail) == (code, True)


def test_a_line_twice_is_the_same_video(tmp_path: Path) -> None:
    assert all(line.row is not None for line in read(tmp_path, '{"audio": "a.wav"}', '{"audio": "a.wav"}'))


def test_byte_order_mark_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n{"audio": "b.wav"}\r\n')
    assert [line.name for line in read_lines(path)] == ["a", "b"]


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no jobs"):
        read(tmp_path, "")
    with pytest.raises(Misuse, match="does not exist"):
        read_lines(tmp_path / "none.jsonl")
