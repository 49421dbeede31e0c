"""Videos written, and stills read."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from contracts.errors import Reject, Transient
from contracts.limits import Limits
from contracts.reasons import Reason
from contracts.sample import encode_wav
from preprocessing.media import decode, decode_still, encode_video, probe


def tone(seconds: float) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(16000 * seconds)) / 16000)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 7, 25, 60])
@pytest.mark.parametrize("seconds", [0.0, 0.5, 5.0])
def test_pictures_and_sound_are_as_long_as_the_frames(tmp_path, noise, count, seconds):
    path = tmp_path / "x.mp4"
    encode_video(path, iter(noise(count, 64, 48)), tone(seconds))
    found = probe(path)
    assert (found.width, found.height, found.fps) == (48, 64, pytest.approx(25))
    assert found.video.declared == found.video.packets == count
    assert found.video.end_s == pytest.approx(count / 25)
    assert found.audio.end_s == pytest.approx(count / 25, abs=1e-3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.mp4"]


def test_what_was_written_is_read_back(tmp_path, noise):
    frames, sound = noise(50, 128, 96), tone(2)
    encode_video(tmp_path / "x.mp4", frames, sound, crf=10)
    with decode(probe(tmp_path / "x.mp4")) as decoding:
        back = np.stack(list(decoding))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 8  # half of the colour resolution is lost at the blocks' edges
    assert np.abs(back.mean(axis=(1, 2)) - frames.mean(axis=(1, 2))).max() < 2  # and no colour cast
    heard = decoding.sound / 32768
    assert np.corrcoef(heard[2000:-2000], sound[2000:-2000])[0, 1] > 0.999  # in step to the sample


def test_equal_inputs_give_equal_bytes(tmp_path, noise):
    digests = set()
    for name in ("x.mp4", "y.mp4", "x.mp4"):
        encode_video(tmp_path / name, noise(30, 64, 64), tone(1.2))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    data = (tmp_path / "x.mp4").read_bytes()
    assert b"Lavf" not in data  # the version of the muxer
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_odd_sizes_grow_by_one(tmp_path, noise):
    frames = noise(15, 65, 47)
    encode_video(tmp_path / "x.mp4", frames, tone(0.6))
    with decode(probe(tmp_path / "x.mp4")) as decoding:
        back = next(iter(decoding))
    assert back.shape == (66, 48, 3)
    assert np.abs(back[:65, :47].astype(int) - frames[0]).mean() < 8


def test_a_sound_file_is_kept_at_its_own_rate(tmp_path, ffmpeg, noise):
    song = ffmpeg("-f", "lavfi", "-i", "sine=frequency=9000:sample_rate=44100:duration=3", "song.flac")
    encode_video(tmp_path / "x.mp4", noise(50, 64, 64), song)
    found = probe(tmp_path / "x.mp4")
    assert found.audio.end_s == pytest.approx(2.0, abs=1e-3)
    import av

    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.audio[0].rate == 44100
    (tmp_path / "short.wav").write_bytes(encode_wav((tone(0.3) * 32767).astype(np.int16)))
    encode_video(tmp_path / "y.mp4", noise(50, 64, 64), tmp_path / "short.wav")
    assert probe(tmp_path / "y.mp4").audio.end_s == pytest.approx(2.0, abs=1e-3)


def test_other_rates(tmp_path, noise):
    encode_video(tmp_path / "x.mp4", noise(30, 32, 32), tone(1), fps=30)
    found = probe(tmp_path / "x.mp4")
    assert (found.fps, found.video.end_s) == (pytest.approx(30), pytest.approx(1.0))


def test_frames_that_do_not_fit_are_refused(tmp_path, noise):
    path = tmp_path / "x.mp4"
    good = noise(2, 32, 32)
    for frames in (
        [],
        [good[0], np.zeros((32, 30, 3), np.uint8)],
        [good[0].astype(np.float32)],
        [good[0, :, :, 0]],
    ):
        with pytest.raises(ValueError, match="frame"):
            encode_video(path, frames, tone(1))
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="finite"):
        encode_video(path, good, np.full(10, np.nan, np.float32))


def test_an_error_among_the_frames_leaves_nothing(tmp_path, noise):
    def broken():
        yield from noise(5, 32, 32)
        raise KeyError("the renderer failed")

    with pytest.raises(KeyError, match="renderer"):
        encode_video(tmp_path / "x.mp4", broken(), tone(1))
    assert not list(tmp_path.iterdir())


def test_a_failing_ffmpeg_is_told(tmp_path, noise, monkeypatch):
    (tmp_path / "not.wav").write_text("not a sound file")
    with pytest.raises(RuntimeError, match="ffmpeg ended with status"):
        encode_video(tmp_path / "x.mp4", noise(2, 32, 32), tmp_path / "not.wav")
    assert not (tmp_path / "x.mp4").exists()
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho 'av_interleaved_write_frame(): No space left on device' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(Transient, match="NO_SPACE"):
        encode_video(tmp_path / "x.mp4", noise(20, 256, 256), tone(1))


def test_memory_is_flat_in_the_length(tmp_path):
    """Only a few frames are alive at a time, however many there are."""
    alive, most = set(), 0

    class Watched(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    def frames():
        nonlocal most
        for i in range(200):
            frame = np.full((64, 64, 3), i, np.uint8).view(Watched)
            alive.add(id(frame))
            most = max(most, len(alive))
            yield frame

    encode_video(tmp_path / "x.mp4", frames(), tone(8))
    assert most <= 4


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    return np.stack(np.broadcast_arrays(across[None], down[:, None], 128.0), axis=2).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_stills_in_three_formats(tmp_path, form):
    Image.fromarray(picture()).save(tmp_path / "x.bin", form, quality=95)
    back = decode_still(tmp_path / "x.bin")
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_stills_are_refused(tmp_path, form):
    Image.fromarray(picture()).save(tmp_path / "x.png", form)
    with pytest.raises(Reject) as refused:
        decode_still(tmp_path / "x.png")
    assert refused.value.reason == Reason.BAD_CONTAINER


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_stills_stand_upright(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(picture(), turn)).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(decode_still(tmp_path / "x.png"), picture())


def test_transparent_16_bit_grey_and_palette(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (200, 10, 10, 255)
    Image.fromarray(clear).save(tmp_path / "x.png")
    back = decode_still(tmp_path / "x.png")
    assert back[0, 0].tolist() == [200, 10, 10]
    assert back[7, 7].tolist() == [255, 255, 255]
    Image.fromarray((picture()[:, :, 0].astype(np.uint16) << 8) | 7).save(tmp_path / "y.png")
    np.testing.assert_array_equal(decode_still(tmp_path / "y.png")[:, :, 1], picture()[:, :, 0])
    Image.fromarray(picture()).convert("P").save(tmp_path / "z.png")
    assert decode_still(tmp_path / "z.png").shape == (40, 60, 3)


def test_a_still_too_large_is_not_decoded(tmp_path):
    def png(width: int, height: int) -> bytes:
        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

    for side in (9000, 14000, 60000):  # below, above and far above Pillow's own limit
        (tmp_path / "x.png").write_bytes(png(side, side))
        with pytest.raises(Reject) as refused:
            decode_still(tmp_path / "x.png")
        assert refused.value.reason == Reason.TOO_MANY_PIXELS
    Image.fromarray(picture()).save(tmp_path / "y.png")
    with pytest.raises(Reject):
        decode_still(tmp_path / "y.png", Limits(still_pixels=2399))
    assert decode_still(tmp_path / "y.png", Limits(still_pixels=2400)).shape == (40, 60, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_damaged_stills_are_refused(tmp_path, form):
    buffer = io.BytesIO()
    Image.fromarray(picture(200, 300)).save(buffer, form)
    data = buffer.getvalue()
    for size in (0, 3, len(data) // 3, len(data) - 40):
        (tmp_path / "x").write_bytes(data[:size])
        with pytest.raises(Reject) as refused:
            decode_still(tmp_path / "x")
        assert refused.value.reason in (
            Reason.EMPTY_FILE, Reason.BAD_CONTAINER, Reason.TRUNCATED, Reason.DECODE_ERROR
        )  # fmt: skip


def test_a_comment_is_kept(tmp_path, noise):
    import av

    encode_video(tmp_path / "x.mp4", noise(5, 32, 32), tone(0.2), comment="made; by=voxface 'x' \\ ü")
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.metadata["comment"] == "made; by=voxface 'x' \\ ü"
