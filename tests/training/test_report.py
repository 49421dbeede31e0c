"""The page about a training run."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Misuse
from training.record import Record
from training.report import write_training_report


def test_the_report_stands_alone_and_says_what_happened(done, tmp_path):
    page = tmp_path / "report.html"
    write_training_report(done.out, page)
    text = page.read_text()
    assert "tones, trained" in text
    for stage in ("coder", "mean", "mouth"):
        assert f"id='{stage}'" in text
    assert text.count("data:image/png;base64,") == 4  # curves of two stages, two pictures of one
    assert "src='http" not in text
    assert "href='http" not in text
    assert "new (the bar)" in text
    assert "skipped" not in text
    Record(done.out / "mean").append("note", 0, {}, text="fewer <faces> than asked for")
    write_training_report(done.out, page)
    assert "fewer &lt;faces&gt; than asked for" in page.read_text()
    with pytest.raises(Misuse, match="holds no training"):
        write_training_report(Path(tmp_path / "none"), page)
