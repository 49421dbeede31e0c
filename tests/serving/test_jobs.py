"""Places of videos are checked, and equal inputs are one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Misuse
from serving.jobs import Consent, Inputs, Job, check_jobs


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
            {"video": "v", "consent": consent},
            {"seed": 1},
            {"steps": 2},
            {"size": 64},
        )
    ]
    assert len({inputs.job for inputs in (base, *others)}) == 8
    assert base.job == Inputs(bundle="b", audio="a", seed=0).job


def test_what_was_published_before_there_were_videos_keeps_its_name() -> None:
    from contracts.settings import canonical_digest

    values = {"bundle": "b", "audio": "a", "portrait": None, "consent": None, "seed": 0, "steps": None, "size": None}
    assert Inputs(bundle="b", audio="a", seed=0).job == canonical_digest(values)
