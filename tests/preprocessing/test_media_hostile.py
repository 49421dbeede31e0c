"""Files that lie, are cut, are something else, or would like to cost a lot; and an ffmpeg that hangs."""

import contextlib
import importlib
import os
import resource
import shutil
import struct
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.media import decode, decode_sound, encode_video, nursery, probe
from preprocessing.media.pipe import Piped
from preprocessing.media.quick import Quick


def outcome(path, limits=None) -> Reason | None:
    """The reason for which a clip is refused, or ``None``."""
    try:
        with decode(probe(path, limits), limits) as decoding:
            for _ in decoding:
                pass
    except Reject as refused:
        return refused.reason
    return None


def wav_of_floats(samples: np.ndarray) -> bytes:
    data = samples.astype("<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)
    return head + struct.pack("<4sI", b"data", len(data)) + data


def test_sound_whose_packets_tell_no_time_ends_before_its_declared_end(ffmpeg, monkeypatch):
    path = ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "s.flac")
    module = importlib.import_module("preprocessing.media.probe")
    scan = module._scan

    def timeless(*given):
        found = scan(*given)
        found["tracks"][0] |= {"end": None, "pts": []}
        return found

    assert probe(path, need=("audio",)).audio
    monkeypatch.setattr(module, "_scan", timeless)
    with pytest.raises(Reject, match="declared end") as refused:
        probe(path, need=("audio",))
    assert refused.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("name", ["-i.mp4", "two words.mp4", "'; rm -rf x.mp4", "%n%s.mp4", "a,b[c]=d:e.mp4", "😀.mp4"])
def test_odd_names_are_read(talking, tmp_path, monkeypatch, name):
    talking("a.mp4", seconds=1).rename(tmp_path / name)
    (tmp_path / "x.mp4").write_text("canary")
    monkeypatch.chdir(tmp_path)
    assert outcome(Path(name)) is None
    assert (tmp_path / "x.mp4").read_text() == "canary"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"\0", Reason.BAD_CONTAINER),
        (b"version https://git-lfs.github.com/spec/v1\n" * 9, Reason.BAD_CONTAINER),
        (bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)), Reason.BAD_CONTAINER),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n", Reason.BAD_CONTAINER),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", Reason.BAD_CONTAINER),
        (b"GIF89a" + bytes(200), Reason.BAD_CONTAINER),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_what_is_no_media_is_refused(tmp_path, content, reason, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert outcome(path) == reason


def test_a_playlist_reaches_nothing(tmp_path, talking):
    """A playlist of a file that stands beside it would be followed by an ffmpeg without a whitelist."""
    talking("secret.ts", seconds=1)
    for name, text in (
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile secret.ts\n"),
    ):
        (tmp_path / name).write_text(text)
        assert outcome(tmp_path / name) == Reason.BAD_CONTAINER


def test_sound_alone_and_pictures_alone(ffmpeg):
    tone = ("-f", "lavfi", "-i", "sine=duration=1")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=1")
    assert outcome(ffmpeg(*tone, "x.mp4")) == Reason.NO_VIDEO
    assert outcome(ffmpeg(*picture, "-pix_fmt", "yuv420p", "y.mp4")) == Reason.NO_AUDIO


def test_cover_art_is_no_video(ffmpeg, noise, tmp_path):
    from PIL import Image

    Image.fromarray(noise(1, 64, 64)[0]).save(tmp_path / "cover.png")
    cover = ("-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1", "-disposition:v", "attached_pic")
    path = ffmpeg("-f", "lavfi", "-i", "sine=duration=1", *cover, "-c:v", "png", "x.m4a")
    assert outcome(path) == Reason.NO_VIDEO
    assert len(decode_sound(path)) == 16000


def test_many_streams(ffmpeg):
    maps = [word for _ in range(40) for word in ("-map", "0:a")]
    path = ffmpeg("-f", "lavfi", "-i", "sine=duration=1", *maps, "x.mkv")
    assert outcome(path) == Reason.TOO_MANY_STREAMS


def test_a_picture_too_large_costs_next_to_nothing(ffmpeg):
    bomb = ffmpeg(
        "-f", "lavfi", "-i", "color=gray:size=8192x8192:rate=5:duration=1", "-f", "lavfi", "-i", "sine=duration=1",
        "-c:v", "libx264", "-preset", "ultrafast", "x.mp4",
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert outcome(bomb) == Reason.TOO_MANY_PIXELS
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # s; decoding takes 8


def test_a_header_that_lies_about_the_size_is_caught_by_the_decoder(ffmpeg):
    """The container says 64 x 64, the pictures are far beyond the limit."""
    path = ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=640x480:rate=25:duration=1", "-f", "lavfi", "-i", "sine=duration=1",
        "-pix_fmt", "yuv420p", "-c:v", "libx264", "x.mp4",
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 4 + 24  # width and height in the sample description
    assert struct.unpack_from(">HH", data, at) == (640, 480)
    struct.pack_into(">HH", data, at, 64, 64)
    path.write_bytes(data)
    assert outcome(path, Limits(video_pixels=320 * 240)) in (Reason.TOO_MANY_PIXELS, Reason.DECODE_ERROR)


@pytest.mark.parametrize("layout", [(), ("-movflags", "+faststart")])
def test_every_cut_is_noticed(talking, layout):
    path = talking("x.mp4", seconds=1, more=("-g", "12", *layout))
    data = path.read_bytes()
    cuts = np.linspace(1, len(data) - 1, 15).astype(int)
    for size in cuts:
        path.write_bytes(data[:size])
        assert outcome(path) in (Reason.BAD_CONTAINER, Reason.TRUNCATED, Reason.DECODE_ERROR), size


@pytest.mark.parametrize("name", ["x.mpg", "x.avi", "x.mkv"])
def test_a_cut_elsewhere_is_noticed(talking, name):
    more = ("-c:v", "mpeg1video", "-c:a", "mp2") if name == "x.mpg" else ()
    path = talking(name, seconds=2, more=more)
    data = path.read_bytes()
    for share in (0.4, 0.63, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        assert outcome(path) in (Reason.BAD_CONTAINER, Reason.TRUNCATED, Reason.DECODE_ERROR), share


def test_damage_in_the_middle_is_noticed(talking):
    path = talking("x.mp4", seconds=2, more=("-g", "10"))
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)
    assert outcome(path) in (Reason.DECODE_ERROR, Reason.TRUNCATED)


def test_a_wav_that_claims_2_gb(tmp_path):
    data = bytearray(wav_of_floats(np.zeros(16000)))
    struct.pack_into("<I", data, 4, 2_000_000_036)
    struct.pack_into("<I", data, 40, 2_000_000_000)
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(Reject) as refused:
        decode_sound(tmp_path / "x.wav")
    assert refused.value.reason in (Reason.TRUNCATED, Reason.TOO_LONG)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_sound_that_is_no_number(tmp_path, ffmpeg, value):
    samples = np.full(32000, 0.1, np.float32)
    samples[20000] = value
    (tmp_path / "x.wav").write_bytes(wav_of_floats(samples))
    with pytest.raises(Reject) as refused:
        decode_sound(tmp_path / "x.wav")
    assert refused.value.reason == Reason.NON_FINITE
    clip = ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=2", "-i", str(tmp_path / "x.wav"),
        "-c:v", "mpeg4", "-c:a", "copy", "x.mov",
    )  # fmt: skip
    assert outcome(clip) == Reason.NON_FINITE


def test_order_of_reasons(ffmpeg):
    """Both without sound and too long: the length comes first; too short comes last."""
    path = ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=3", "-pix_fmt", "yuv420p", "x.mp4")
    assert outcome(path, Limits(duration_s=2)) == Reason.TOO_LONG
    assert outcome(path, Limits(duration_s=2, video_pixels=100)) == Reason.TOO_MANY_PIXELS
    assert outcome(path, Limits(shortest_s=60)) == Reason.NO_AUDIO


def test_a_fault_is_told_in_the_same_words_each_time(talking):
    """Zeros in the middle, at which the sound's decoder fails; the pictures' goes on until it is ended."""
    data = bytearray((path := talking("x.mp4", more=("-c:v", "mpeg4"))).read_bytes())
    middle = data.index(b"mdat") + 4 + len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    found, told = probe(path), set()
    for pause in (0.0, 0.0, 0.1, 0.2):
        with decode(found) as decoding, pytest.raises(Reject) as refused:
            [time.sleep(pause) for _ in decoding]
        told.add(refused.value.detail)
    assert len(told) == 1
    assert "frames of sound: " in told.pop()


# A child of its own is what a hang leaves behind, unless the whole group goes. It also tries to write a file.
HANG = """#!{python}
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({target!r}, "w").write("x")
time.sleep(600)
"""
# What it starts leaves its group and its session.
LEAVE = """#!{python}
import subprocess, sys, time
def main(*arguments):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {target!r}], start_new_session=True)
    time.sleep(600)
if __name__ == "__main__":
    main()
"""
FLOOD = """#!{python}
import sys
while True:
    sys.stderr.write("x" * 100000)
"""


def members(group: int) -> set[int]:
    """Living processes of a process group."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = status.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(owner) == group and state != "Z":
            found.add(int(status.parent.name))
    return found


@pytest.mark.parametrize(("script", "processes"), [(HANG, 2), (FLOOD, 1)])
def test_an_ffmpeg_that_hangs_or_floods_is_ended(talking, tmp_path, monkeypatch, script, processes):
    found = replace(probe(talking("x.mp4", seconds=1)), pixels="rgb24")  # as RGB: that is left to ffmpeg
    target, fake = tmp_path / "written", tmp_path / "ffmpeg"
    fake.write_text(script.format(python=sys.executable, target=str(target)))
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with decode(found, Limits(decode_deadline_s=2.0)) as decoding:
        group = decoding._source.pid
        patience = time.monotonic() + 30
        while len(members(group)) < processes and time.monotonic() < patience:
            time.sleep(0.01)
        assert len(members(group)) == processes
        began = time.monotonic()
        with pytest.raises(Reject) as refused:
            next(iter(decoding))
        assert time.monotonic() - began < 3.0
        assert refused.value.reason == Reason.TIMEOUT
        assert not members(group)
    assert not target.exists() or not target.read_text()


@pytest.mark.parametrize("quick", [True, False])
def test_what_left_the_group_is_ended(talking, tmp_path, monkeypatch, nursery_of, quick):
    found = probe(talking("x.mp4", seconds=1))
    target, fake = tmp_path / "daemon", tmp_path / "ffmpeg"
    script = LEAVE.format(python=sys.executable, target=str(target))
    if quick:
        nursery_of(script)
    else:
        found = replace(found, pixels="rgb24")  # as RGB: that is left to ffmpeg
        fake.write_text(script)
        fake.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))

    def daemons() -> list[Path]:
        told = [(path, read(path)) for path in Path("/proc").glob("[0-9]*/cmdline")]
        return [path for path, line in told if str(target).encode() in line.split(b"\0")]

    def read(path: Path) -> bytes:
        with contextlib.suppress(OSError):
            return path.read_bytes()
        return b""

    with decode(found, Limits(decode_deadline_s=60.0)) as decoding:
        patience = time.monotonic() + 30
        while not daemons() and time.monotonic() < patience:
            time.sleep(0.01)
        assert daemons()
        assert not members(decoding._source.pid) & {int(path.parts[2]) for path in daemons()}
    patience = time.monotonic() + 5
    while daemons() and time.monotonic() < patience:
        time.sleep(0.01)
    assert not daemons()


TAIL = 320  # samples (20 ms): how a resampler fades at its end differs between versions of ffmpeg
HELD = """
import subprocess, sys, time
def main(*arguments):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open({target!r}, "w").write("x") if {write} else time.sleep(600)
"""


@pytest.fixture
def nursery_of(tmp_path, monkeypatch):
    """Let decoders be forked from a process in which ``read`` is the script given."""

    def start(script: str) -> nursery.Nursery:
        folder = tmp_path / "other"
        folder.mkdir()
        for name in ("nurse.py", "scan.py"):
            shutil.copy(nursery.NURSE.with_name(name), folder / name)
        (folder / "read.py").write_text(script)
        monkeypatch.setattr(nursery, "NURSE", folder / "nurse.py")
        monkeypatch.setattr(nursery, "NURSERY", nursery.Nursery())
        return nursery.NURSERY

    yield start
    nursery.NURSERY.close()


def test_a_quick_decoder_that_hangs_is_ended_with_all_it_started(talking, nursery_of):
    found = probe(talking("x.mp4", seconds=1))
    nursery_of(HELD.format(target="", write=False))
    with decode(found, Limits(decode_deadline_s=2.0)) as decoding:
        group = decoding._source.pid
        patience = time.monotonic() + 30
        while len(members(group)) < 2 and time.monotonic() < patience:
            time.sleep(0.01)
        assert len(members(group)) == 2
        began = time.monotonic()
        with pytest.raises(Reject) as refused:
            next(iter(decoding))
        assert time.monotonic() - began < 10.0
        assert refused.value.reason == Reason.TIMEOUT
        assert not members(group)


@pytest.mark.parametrize("does", ["os._exit(3)", "os.kill(os.getpid(), 11)", "bytearray(1 << 32)", "x = 1 / 0"])
def test_a_quick_decoder_that_dies_leaves_the_file_to_ffmpeg(talking, nursery_of, does):
    path = talking("x.mp4", seconds=1)
    with decode(probe(path)) as decoding:
        expected, sound = list(decoding), decoding.sound
    nursery_of(f"import os\ndef main(*arguments):\n    {does}\n")
    with decode(probe(path)) as decoding:
        assert np.array_equal(list(decoding), expected)
        assert np.array_equal(decoding.sound[:-TAIL], sound[:-TAIL])


def test_a_quick_decoder_can_write_no_file(talking, nursery_of, tmp_path):
    path = talking("x.mp4", seconds=1)
    nursery_of(HELD.format(target=str(tmp_path / "written"), write=True))
    assert outcome(path) is None
    assert not (tmp_path / "written").exists() or not (tmp_path / "written").read_text()


def test_decoders_end_with_the_process_they_are_forked_from(talking, monkeypatch):
    path = talking("x.mp4", size="640x480")
    monkeypatch.setattr(nursery, "NURSERY", nursery.Nursery())
    with decode(probe(path)) as decoding:
        frames = iter(decoding)
        next(frames)
        group = decoding._source.pid
        assert len(members(group)) == 1
        nursery.NURSERY._process.kill()
        patience = time.monotonic() + 10
        while members(group) and time.monotonic() < patience:
            time.sleep(0.01)
        assert not members(group)
        assert len(list(frames)) == 49, "ffmpeg took over"
    assert outcome(path) is None, "and the next begins anew"
    nursery.NURSERY.close()


MADE = [(), ("-g", "5", "-bf", "2"), ("-r", "30"), ("-ac", "2", "-ar", "48000")]
FULL_COLOUR = [("-pix_fmt", "yuv444p"), ("-pix_fmt", "yuvj444p", "-color_range", "pc", "-colorspace", "bt709")]


@pytest.mark.parametrize("more", MADE + FULL_COLOUR)
def test_both_decoders_give_the_same(talking, monkeypatch, more):
    found = probe(talking("x.mp4", more=more))
    assert found.halved is (more not in FULL_COLOUR)
    for span in ((None, None), (0.41, 1.3)):
        given = []
        for each in (Quick, Piped):
            monkeypatch.setattr(sys.modules["preprocessing.media.decode"], "Quick", each)
            with decode(found, start_s=span[0], end_s=span[1]) as decoding:
                planes = [picture.copy().planes for picture in decoding.pictures()]
                assert type(decoding._source) is each
                given.append((planes, decoding.sound, decoding.source_frames))
        (quick, sound, count), (piped, other, counted) = given
        assert len(quick) == len(piped)
        assert all(np.array_equal(a, b) for one, two in zip(quick, piped) for a, b in zip(one, two))
        assert np.array_equal(sound[:-TAIL], other[:-TAIL])
        assert count == counted


def test_the_callers_time_is_not_counted(talking):
    with decode(probe(talking("x.mp4", seconds=1, size="320x240")), Limits(decode_deadline_s=1.0)) as decoding:
        for i, _ in enumerate(decoding):
            if i < 3:
                time.sleep(0.5)
    assert decoding.sound.size == 16000


def test_leaving_early_leaves_nothing_behind(talking):
    path = talking("x.mp4", size="640x480")
    probe(path)  # starts the process that decoders are forked from
    handles, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        with decode(probe(path)) as decoding:
            next(iter(decoding))
            pid = decoding._source.pid
        assert not members(pid)
    assert len(os.listdir("/proc/self/fd")) == handles
    assert threading.active_count() == threads


def test_memory_is_bounded(talking):
    """A limit too low for the decoder ends it, and the clip is refused, not the run."""
    path = talking("x.mp4", seconds=1)
    assert outcome(path, Limits(decode_memory_mb=40)) == Reason.DECODE_ERROR


def test_no_report_file_is_written(talking, tmp_path, monkeypatch):
    monkeypatch.setenv("FFREPORT", f"file={tmp_path}/report.log:level=32")
    path = talking("x.mp4", seconds=1)
    assert outcome(path) is None
    encode_video(tmp_path / "y.mp4", [np.zeros((32, 32, 3), np.uint8)], np.zeros(640, np.float32))
    assert not (tmp_path / "report.log").exists()
