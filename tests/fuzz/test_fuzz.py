"""Sixty cases of the fuzz campaign: nothing crashes, hangs, writes outside, or ends in an error that is not ours."""

from __future__ import annotations

from pathlib import Path

from fuzz.campaign import KINDS, campaign

EACH = 20


def test_mutated_files_end_in_known_ways(tmp_path: Path) -> None:
    jobs = [(kind, number) for number in range(EACH) for kind in KINDS]
    done = campaign(jobs, 1, tmp_path, {}, tmp_path / "log.jsonl")
    assert len(done) == EACH * len(KINDS)
    bad = {name: ended for name, ended in done.items() if ended.split()[0] in ("CRASH", "HANG", "OUTSIDE", "INTERNAL")}
    assert not bad
    assert len({ended for name, ended in done.items() if name.startswith("media:")}) > 3  # they are not all alike
