"""Pictures and sound on one clock: rates, offsets, edit lists, spans."""

import itertools

import numpy as np
import pytest

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.media import decode, decode_sound, probe

SLACK_S = 0.020  # the promise: picture and sound at most 20 ms apart


def clip(path, **span):
    with decode(probe(path), **span) as decoding:
        return np.stack(list(decoding)), decoding.sound, decoding


def onset_of_light(frames) -> float:
    return int((frames.mean(axis=(1, 2, 3)) > 127).argmax()) / 25


def onset_of_sound(sound) -> float:
    return int((np.abs(sound.astype(int)) > 1000).argmax()) / 16000


RATES = [(rate, "x.mp4") for rate in ("24000/1001", "25", "30000/1001", "30", "50", "60", "12", "120")]


@pytest.mark.parametrize(("rate", "name"), [*RATES, ("24000/1001", "x.mkv"), ("60", "x.mkv")])
def test_flash_and_beep_coincide(flash_and_beep, rate, name):
    frames, sound, decoding = clip(flash_and_beep(name, rate=rate))
    # a picture is shown from its own time on: at 12 pictures a second the flash itself may come late
    late = next(k for k in range(1000) if k / _float(rate) >= 1.0 - 1e-4) / _float(rate) - 1.0
    assert abs(onset_of_light(frames) - onset_of_sound(sound) - late) <= SLACK_S + 1e-3
    assert decoding.count == 50
    assert sound.shape == (640 * 50,)


def _float(rate: str) -> float:
    top, _, bottom = rate.partition("/")
    return float(top) / float(bottom or 1)


MPEG = ("-c:v", "mpeg2video", "-q:v", "2", "-c:a", "mp2")
OTHERS = {"x.mpg": MPEG, "x.ts": MPEG, "x.avi": ("-c:v", "mpeg4", "-c:a", "pcm_s16le"), "x.mov": ()}


@pytest.mark.parametrize("name", OTHERS)
def test_flash_and_beep_in_other_containers(flash_and_beep, name):
    frames, sound, _ = clip(flash_and_beep(name, rate="25", more=OTHERS[name]))
    assert abs(onset_of_light(frames) - onset_of_sound(sound)) <= SLACK_S + 1e-3
    assert frames.shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("delay", [-0.7, -0.013, 0.013, 0.31])
def test_a_late_track_is_late(flash_and_beep, ffmpeg, delay):
    """The sound track moved by ``delay`` (or the pictures, where it is below 0): only the overlap is given."""
    source = str(flash_and_beep("a.mov", rate="25", at=1.2, more=("-c:a", "pcm_s16le")))
    first, second = ("1:v", "0:a") if delay < 0 else ("0:v", "1:a")
    moved = ffmpeg(
        "-i", source, "-itsoffset", str(abs(delay)), "-i", source, "-map", first, "-map", second, "-c", "copy", "b.mov"
    )  # fmt: skip
    frames, sound, decoding = clip(moved)
    assert decoding.start_s == pytest.approx(abs(delay), abs=0.021)
    assert decoding.count == pytest.approx(25 * (2 - abs(delay)), abs=1)
    # sound and pictures were in step before, so now they are apart by the delay
    assert onset_of_sound(sound) - onset_of_light(frames) == pytest.approx(delay, abs=SLACK_S + 1e-3)


def test_an_edit_list_hides_what_it_cuts(flash_and_beep, ffmpeg):
    source = flash_and_beep("a.mp4", rate="25", more=("-g", "50"))
    cut = ffmpeg("-ss", "0.52", "-i", str(source), "-c", "copy", "b.mp4")  # starts between key frames
    found = probe(cut)
    assert found.video.discarded == 13
    frames, sound, decoding = clip(cut)
    assert decoding.source_frames == 37
    assert onset_of_light(frames) == pytest.approx(0.48, abs=SLACK_S + 1e-3)
    assert onset_of_sound(sound) == pytest.approx(0.48, abs=SLACK_S + 1e-3)


def test_variable_rate_follows_the_time_stamps(ffmpeg):
    # gaps of 15 to 70 ms; each picture's colour is its number, and so says when it is shown
    chosen = "select='not(mod(n,3))*not(mod(n,7))+not(mod(n,11))'"
    path = ffmpeg(
        "-f", "lavfi", "-i", "color=black:size=32x32:rate=200:duration=2.5",
        "-f", "lavfi", "-i", "sine=duration=2.5:sample_rate=16000",
        "-vf", "format=gbrp,geq=r='mod(N,250)':g='100*floor(N/250)':b=0," + chosen,
        "-fps_mode", "passthrough", "-c:v", "ffv1", "-c:a", "flac", "v.mkv",
    )  # fmt: skip
    found = probe(path)
    frames, _, decoding = clip(path)
    shown = [found.shown_s[found.shown_s < decoding.start_s + (i + 0.5) / 25 - 1e-4][-1] for i in range(decoding.count)]
    number = frames[:, 16, 16, 0] + 2.5 * frames[:, 16, 16, 1]
    np.testing.assert_allclose(number / 200, shown, atol=1e-3)
    assert len(np.unique(shown)) > 30


def test_a_span_is_a_part_of_the_whole(talking):
    path = talking("long.mp4", seconds=16, more=("-g", "100", "-c:a", "flac"))
    frames, sound, _ = clip(path)
    for start, end in ((0.0, 1.0), (2.0, 3.2), (12.48, 14.0), (15.0, 99.0)):
        part, heard, decoding = clip(path, start_s=start, end_s=end)
        assert decoding.count == round(25 * (min(end, 16) - start))
        at = round(25 * start)
        np.testing.assert_array_equal(part, frames[at : at + len(part)])
        np.testing.assert_allclose(heard[800:-800], sound[640 * at :][: len(heard)][800:-800], atol=30)
        assert (decoding.start_s, decoding.end_s) == (pytest.approx(start), pytest.approx(min(end, 16)))


def test_25_pictures_a_second_pass_one_to_one_whatever_the_phase(talking, ffmpeg):
    source = str(talking("a.mp4"))
    frames, _, _ = clip(ffmpeg("-i", source, "-itsoffset", "0.02", "-i", source,
                               "-map", "0:v", "-map", "1:a", "-c", "copy", "b.mp4"))  # fmt: skip
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


def test_the_length_is_that_of_the_shorter_track(ffmpeg):
    path = ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=4", "-f", "lavfi", "-i", "sine=duration=1.1",
        "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le", "x.mov",
    )  # fmt: skip
    frames, sound, decoding = clip(path)
    assert len(frames) == decoding.count == 28  # round(27.5), to even
    assert len(sound) == 28 * 640
    assert decoding.source_frames == 100  # and yet all of it was decoded


def test_too_little_overlap_is_too_short(talking):
    path = talking("x.mp4", seconds=0.3)
    with pytest.raises(Reject) as refused:
        decode(probe(path))
    assert refused.value.reason == Reason.TOO_SHORT
    with pytest.raises(Reject) as refused:
        decode(probe(talking("y.mp4")), start_s=5.0)
    assert refused.value.reason == Reason.TOO_SHORT


def test_sound_and_counts_belong_to_a_finished_decode(talking):
    with decode(probe(talking("x.mp4"))) as decoding:
        next(iter(decoding))
        with pytest.raises(RuntimeError, match="every frame"):
            _ = decoding.sound
        with pytest.raises(RuntimeError, match="every frame"):
            _ = decoding.source_frames


def test_rotation_is_undone(ffmpeg, talking):
    upright = talking("a.mp4", size="128x96")
    turned = ffmpeg("-display_rotation", "90", "-i", str(upright), "-c", "copy", "b.mp4")  # counter-clockwise
    found = probe(turned)
    assert (found.width, found.height, found.rotation) == (96, 128, 270)
    frames, _, _ = clip(turned)
    plain, _, _ = clip(upright)
    assert frames.shape[1:] == (128, 96, 3)
    difference = np.abs(frames[5].astype(int) - np.rot90(plain[5]).astype(int)).mean()
    assert difference < 6


def test_oblong_pixels_become_square(talking):
    found = probe(talking("x.mp4", size="128x96", more=("-vf", "setsar=4/3")))
    assert (found.width, found.height) == (171, 96)
    found = probe(talking("y.mp4", size="128x96", more=("-vf", "setsar=3/4")))
    assert (found.width, found.height) == (128, 128)


@pytest.mark.parametrize(("pixels", "reference"), [("yuv420p10le", "gbrp"), ("yuv444p", "yuv420p")])
def test_deep_and_full_colour_become_8_bit_rgb(talking, pixels, reference):
    """Where there is colour for each pixel, and not RGB, it is averaged by fours, as crops are stored."""
    frames, _, _ = clip(talking("x.mkv", more=("-c:v", "ffv1", "-pix_fmt", pixels)))
    alike, _, _ = clip(talking("y.mkv", more=("-c:v", "ffv1", "-pix_fmt", reference)))
    assert np.abs(frames.astype(int) - alike).mean() < 4


def test_the_full_range_is_handed_on_as_it_is(talking):
    path = talking("x.mp4", more=("-c:v", "libx264", "-qp", "4", "-pix_fmt", "yuvj420p"))
    assert probe(path).full
    assert not probe(talking("y.mp4")).full
    frames, _, _ = clip(path)
    reference, _, _ = clip(talking("z.mkv", more=("-c:v", "ffv1", "-pix_fmt", "yuv420p")))
    assert np.abs(frames.astype(int) - reference).mean() < 3


SPEECH = [
    *[(name, 44100, "stereo") for name in ("x.wav", "x.flac", "x.mp3", "x.m4a", "x.ogg")],
    ("x.wav", 8000, "mono"),
    ("x.wav", 96000, "7.1"),
]


@pytest.mark.parametrize(("name", "rate", "layout"), SPEECH)
def test_speech_files(ffmpeg, name, rate, layout):
    tone = f"sine=frequency=440:sample_rate={rate}:duration=2,aformat=channel_layouts={layout},volume=4"
    codec = ("-c:a", "libvorbis") if name == "x.ogg" else ()
    sound = decode_sound(ffmpeg("-f", "lavfi", "-i", tone, *codec, name))
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(32000, abs=1700 if name == "x.mp3" else 2)
    crossings = np.count_nonzero(np.diff(np.signbit(sound[1600:17600])))
    assert crossings == pytest.approx(880, abs=3)  # 440 Hz for a second
    assert 0.05 < np.abs(sound).max() <= 1.0


def test_speech_is_exact_where_nothing_is_to_be_done(tmp_path):
    from contracts.sample import encode_wav

    samples = np.random.default_rng(0).integers(-32768, 32768, 16000).astype(np.int16)
    (tmp_path / "a.wav").write_bytes(encode_wav(samples))
    np.testing.assert_array_equal(decode_sound(tmp_path / "a.wav"), samples.astype(np.float32) / 32768)
    part = decode_sound(tmp_path / "a.wav", start_s=0.25, end_s=0.85)
    np.testing.assert_array_equal(part, samples[4000:13600].astype(np.float32) / 32768)


def test_a_video_may_lend_its_sound(talking):
    assert len(decode_sound(talking("x.mp4"))) == 32000


def test_limits_hold(talking):
    path = talking("x.mp4", size="320x240")
    for limits, reason in (
        (Limits(video_pixels=320 * 239), Reason.TOO_MANY_PIXELS),
        (Limits(duration_s=1.9), Reason.TOO_LONG),
        (Limits(streams=1), Reason.TOO_MANY_STREAMS),
    ):
        with pytest.raises(Reject) as refused:
            probe(path, limits)
        assert refused.value.reason == reason
    assert probe(path, Limits(duration_s=1.9), start_s=0.5, end_s=1.5).duration_s == pytest.approx(2.0, abs=0.03)


def test_the_frames_of_a_span_are_those_it_holds_however_far_ffmpeg_ran_ahead(talking):
    with decode(probe(talking("a.mp4", seconds=3, rate="30")), start_s=0.5, end_s=1.5) as decoding:
        assert len(list(decoding)) == 25
    assert decoding.source_frames == 30
