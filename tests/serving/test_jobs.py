"""Jobs are read strictly, and equal inputs are one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Misuse
from serving.jobs import Consent, Inputs, Job, check_jobs, read_jobs


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_reads_lines_and_places_them(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        '{"audio": "a/one.wav", "seed": 4}',
        "",
        '{"audio": "two.flac", "out": "deep/zwei.mp4", "portrait": "p.png", "consent": "A, test", "steps": 5}',
    )
    one, two = read_jobs(path, tmp_path / "out")
    assert one == Job(audio=tmp_path / "a/one.wav", out=tmp_path / "out/one.mp4", seed=4)
    assert two.out == tmp_path / "out/deep/zwei.mp4"
    assert two.portrait == tmp_path / "p.png"
    assert two.steps == 5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"audio": "x.wav", "sead": 1}', "sead"),
        ('{"audio": "x.wav", "seed": NaN}', "NaN"),
        ('{"audio": "x.wav", "seed": -1}', "seed"),
        ('{"audio": "x.wav", "steps": 0}', "steps"),
        ('{"audio": "x.wav", "size": 33}', "size"),
        ('{"out": "x.mp4"}', "audio"),
        ('["x.wav"]', "not a JSON object"),
        ("[" * 60_000, "not JSON"),
        ("{", "not JSON"),
        ('{"audio": "' + "x" * 70_000 + '"}', "longer than"),
        ('{"audio": "x.wav", "out": "../x.mp4"}', "under the folder"),
        ('{"audio": "x.wav", "out": "/x.mp4"}', "under the folder"),
    ],
)
def test_wrong_line_is_named_by_number(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(Misuse, match=says) as caught:
        read_jobs(manifest(tmp_path, '{"audio": "fine.wav"}', line), tmp_path)
    assert "jobs.jsonl: line 2" in str(caught.value)


def test_byte_order_mark_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n{"audio": "b.wav"}\r\n')
    assert [job.out.name for job in read_jobs(path, tmp_path)] == ["a.mp4", "b.mp4"]


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no jobs"):
        read_jobs(manifest(tmp_path, ""), tmp_path)
    with pytest.raises(Misuse, match="does not exist"):
        read_jobs(tmp_path / "none.jsonl", tmp_path)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    with pytest.raises(Misuse, match="two different jobs"):
        check_jobs([Job(audio=audio, out=tmp_path / "x.mp4", seed=seed) for seed in (1, 2)])
    with pytest.raises(Misuse, match="ends with"):
        check_jobs([Job(audio=audio, out=tmp_path / "x.avi")])
    with pytest.raises(Misuse, match="also an input"):
        check_jobs([Job(audio=tmp_path / "x.mp4", out=tmp_path / "x.mp4")])
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(Misuse, match="is a folder"):
        check_jobs([Job(audio=audio, out=tmp_path / "d.mp4")])
    check_jobs([Job(audio=audio, out=tmp_path / "x.mp4")] * 2)  # the same job twice is one job


def test_identity_follows_everything_that_shapes_the_video() -> None:
    base = Inputs(bundle="b", audio="a", seed=0)
    consent = Consent(who="A", purpose="test")
    others = [
        base.model_copy(update=change)
        for change in (
            {"bundle": "c"},
            {"audio": "x"},
            {"portrait": "p", "consent": consent},
            {"seed": 1},
            {"steps": 2},
            {"size": 64},
        )
    ]
    assert len({inputs.job for inputs in (base, *others)}) == 7
    assert base.job == Inputs(bundle="b", audio="a", seed=0).job
