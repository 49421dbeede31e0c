"""Flash and beep stay within 20 ms, whatever the clock, and nothing that is decoded is changed."""

from pathlib import Path

import pytest
from clock.campaign import PROMISE_MS
from clock.flash_and_beep import RATES, apart_ms, cases, source

from contracts.files import sha256_file

NAMES = list(dict.fromkeys(name for name, _ in cases(Path())))


@pytest.mark.parametrize("name", NAMES)
def test_flash_and_beep_meet(tmp_path, name):
    tried = 0
    for said, make in cases(tmp_path):
        if said == name:
            path = make()
            before = sha256_file(path)
            apart, count = apart_ms(path)
            assert abs(apart) <= PROMISE_MS
            assert count > 20
            assert sha256_file(path) == before
            tried += 1
    assert tried


def test_the_measure_sees_what_is_apart(tmp_path):
    """The same clip, its sound moved by 80 ms before it is written: the measure must say so."""
    from clock.flash_and_beep import H264, ffmpeg

    good = source(tmp_path / "a.mkv", *H264, "-c:a", "pcm_s16le")
    moved = ffmpeg("-i", str(good), "-itsoffset", "0.08", "-i", str(good), "-map", "0:v", "-map", "1:a", "-c", "copy",
                   str(tmp_path / "b.mkv"))  # fmt: skip
    assert apart_ms(moved)[0] == pytest.approx(80, abs=21)
    assert {"24000/1001", "25", "30000/1001", "30", "50", "60", "120"} <= set(RATES)
