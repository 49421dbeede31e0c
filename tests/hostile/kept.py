"""Rows of the matrix about what is kept: converted exactly, or refused by the selection alone; faces and consent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from hostile.bench import Case, Ended, Matrix
from hostile.factory import Factory

from contracts.consent import PeoplePolicy
from contracts.reasons import Reason
from contracts.sample import SAMPLE_RATE, SAMPLES_PER_FRAME, decode_wav

EPSILON_S = 1e-3  # Matroska's time stamps are milliseconds
HALF_S = 0.020  # a change is at most this early or late
RATES = {"12": 12.0, "24000/1001": 24000 / 1001, "30": 30.0, "60": 60.0, "120": 120.0}
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
NEAR = 4  # grey levels of 255: 8-bit YUV and back


def sound_too_short(factory: Factory, full: bool) -> Matrix:
    cases = []
    for seconds in (1.0, 2.0) if full else (1.0,):
        sound = ("-t", "4", "-c:v", "copy", "-af", f"atrim=end={seconds}")
        cases.append(_face(factory, f"4 s of pictures, {seconds:g} s of sound", *sound, refused_by=(Reason.AV_LENGTH,)))
    return Matrix(cases)


def sound_late(factory: Factory, full: bool) -> Matrix:
    cases = []
    for milliseconds in (400, -400) if full else (400,):
        # within the sound itself, so that the time stamps do not tell
        moved = (
            f"adelay={milliseconds}" if milliseconds > 0 else f"atrim=start={-milliseconds / 1000},asetpts=PTS-STARTPTS"
        )
        more = ("-c:v", "copy", "-af", f"{moved},apad,atrim=end=4", "-t", "4")
        cases.append(_face(factory, f"sound {milliseconds:+d} ms", *more, refused_by=(Reason.AV_OFFSET,)))
    return Matrix(cases)


def poor_sound(factory: Factory, full: bool) -> Matrix:
    quiet = f"aevalsrc='{10 ** (-90 / 20):.8f}*sqrt(2)*sin({400 + factory.seed}*t)':s=48000:d=2"
    sounds = {
        "silence": ("anullsrc=r=48000:d=2", Reason.SILENT),
        "-90 dBFS": (quiet, Reason.SILENT),
        "a pure tone": (f"sine=frequency={440 + factory.seed}:duration=2", Reason.NOT_SPEECH),
    }
    kept = ("-t", "1.2", "-c:v", "copy", "-c:a", "pcm_s16le")
    cases = []
    for says, (source, refused_by) in sounds.items():
        more = ("-f", "lavfi", "-i", source, "-map", "0:v", "-map", "1:a", *kept)
        cases.append(_face(factory, says, *more, suffix=".mov", refused_by=(refused_by,)))
    loud = ("-af", f"volume={34 + factory.seed}dB", *kept)
    cases.append(_face(factory, "clipping", *loud, suffix=".mov", refused_by=(Reason.CLIPPED,)))
    return Matrix(cases)


def frozen(factory: Factory, full: bool) -> Matrix:
    at = 20 + factory.seed
    more = ("-vf", f"select='eq(n,{at})',loop=loop=80:size=1,setpts=N/25/TB", "-t", "2")
    # lips that stand still may be out of step by chance, too, and that reason comes first
    reasons = (Reason.STATIC_FRAMES, Reason.AV_OFFSET)
    return Matrix([_face(factory, "one picture, and speech", *more, refused_by=reasons, check=_still)])


def _still(one: Ended) -> list[str]:
    (span,) = [line for line in one.lines if line["level"] == "span"]
    return [] if span["static"] >= 0.9 else [f"{span['static']:.0%} of the frames are static"]


def rates(factory: Factory, full: bool) -> Matrix:
    cases = []
    for rate in RATES if full else ("12", "24000/1001", "120"):
        # no B-frames: without them the first picture stands at 0
        more = ("-t", "1.2", "-vf", f"fps={rate}", "-bf", "0", "-c:a", "pcm_s16le")
        cases.append(_face(factory, f"{rate} frames/s", *more, suffix=".mov", check=partial(_exact, seconds=1.2)))
    varied = "fps=60,select='gte(t,0.6)+not(mod(n,5))'"
    more = ("-t", "1.2", "-vf", varied, "-fps_mode", "passthrough", "-bf", "0", "-c:a", "pcm_s16le")
    cases.append(_face(factory, "12, then 60 frames/s", *more, suffix=".mov", check=partial(_exact, seconds=1.2)))
    return Matrix(cases, lambda: _time_faults(factory))


def _exact(one: Ended, seconds: float) -> list[str]:
    (span,) = [line for line in one.lines if line["level"] == "span"]
    (members,) = one.members.values()
    sound = len(decode_wav(members["wav"]))
    faults = []
    if abs(span["frames"] / 25 - seconds) > 0.0401 or span["frames"] != round(25 * (span["end_s"] - span["start_s"])):
        faults.append(f"{span['frames']} frames of {seconds} s")
    if sound != SAMPLES_PER_FRAME * span["frames"]:
        faults.append(f"{sound} samples of {span['frames']} frames")
    return faults


def _time_faults(factory: Factory) -> list[str]:
    """Numbered pictures at every rate: each output frame is the one that a player shows at its middle."""
    from preprocessing.media import decode, probe

    faults = []
    for says, rate in {**RATES, "12, then 60": 60.0}.items():
        count = round(1.6 * rate)
        numbered = (
            np.zeros((count, 32, 32, 3), np.uint8) + (np.arange(count) % 250).astype(np.uint8)[:, None, None, None]
        )
        shown = np.arange(count) / rate
        more: tuple[str, ...] = ("-c:v", "ffv1", "-pix_fmt", "gbrp")
        if "then" in says:
            chosen = (shown >= 0.8 - 1e-6) | (np.arange(count) % 5 == 0)
            more = (*more, "-vf", "select='gte(t,0.8)+not(mod(n,5))'", "-fps_mode", "passthrough")
            shown = shown[chosen]
        name = factory.pictures(numbered, *more, name=factory.fresh(".mkv"), rate=rate)
        with decode(probe(factory.root / name)) as clip:
            seen = np.array([frame[16, 16, 0] for frame in clip]).astype(float)
        (factory.root / name).unlink()
        if len(seen) != round(25 * (count / rate)):
            faults.append(f"{says} frames/s: {len(seen)} frames of {count / rate:.2f} s")
        middle = np.arange(len(seen)) / 25 + HALF_S
        early = np.array([shown[shown <= at - EPSILON_S][-1] for at in middle])
        late = np.array([shown[shown <= at + EPSILON_S][-1] for at in middle])
        got = seen / rate
        off = ~(np.isclose(got, early, atol=1e-6) | np.isclose(got, late, atol=1e-6))
        if off.any():
            faults.append(f"{says} frames/s: {off.sum()} of {len(off)} pictures are not the one shown")
    return faults


SOUNDS = (
    ("8000", "mono", "pcm_s16le", ".wav"), ("8000", "mono", "pcm_u8", ".wav"), ("96000", "7.1", "pcm_s24le", ".wav"),
    ("48000", "stereo", "pcm_s24le", ".wav"), ("44100", "stereo", "flac", ".flac"),
    ("192000", "mono", "pcm_f64le", ".wav"), ("22050", "5.1", "pcm_s32le", ".wav"),
)  # fmt: skip


def sounds(factory: Factory, full: bool) -> Matrix:
    cases = []
    for rate, layout, codec, suffix in SOUNDS if full else SOUNDS[:4]:
        tone = f"sine=frequency=440:sample_rate={rate}:duration=1.5,volume={4 + 0.1 * factory.seed}"
        more = ("-af", f"aformat=channel_layouts={layout}", "-c:a", codec)
        name = factory.ffmpeg("-f", "lavfi", "-i", tone, *more, name=factory.fresh(suffix))
        cases.append(Case(f"{rate} Hz {layout} {codec}", {"file": name}, check=_tone))
    more = ("-t", "1.2", "-c:v", "copy", "-ar", "96000", "-ac", "8", "-c:a", "pcm_s24le")
    cases.append(
        _face(factory, "96 kHz 7.1 of 24 bits in a clip", *more, suffix=".mov", check=partial(_exact, seconds=1.2))
    )
    return Matrix(cases)


def _tone(one: Ended) -> list[str]:
    (members,) = one.members.values()
    sound = decode_wav(members["wav"])
    crossings = int(np.count_nonzero(np.diff(np.signbit(sound[1600:17600]))))
    faults = [] if len(sound) == round(1.5 * SAMPLE_RATE) else [f"{len(sound)} samples of 1.5 s"]
    return faults + ([] if abs(crossings - 880) <= 2 else [f"{crossings / 2} Hz, not 440"])


def colours(factory: Factory, full: bool) -> Matrix:
    hdr = "scale=out_color_matrix=bt2020nc:out_range=tv,format=yuv420p10le"
    tags = ("-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", "smpte2084")
    forms: dict[str, tuple[str, tuple[str, ...]]] = {
        "10-bit HDR": (".mkv", ("-vf", hdr, *tags, "-c:v", "ffv1")),
        "alpha": (".mov", ("-c:v", "qtrle", "-pix_fmt", "argb")),
        "255 x 257": (".mkv", ("-vf", "scale=255:257", "-c:v", "ffv1", "-pix_fmt", "gbrp")),
        "16 bits": (".mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrp16le")),
    }
    cases = []
    for says, (suffix, more) in forms.items():
        check = partial(_exact, seconds=0.8)
        more = ("-t", "0.8", *more, "-c:a", "pcm_s16le")
        cases.append(_face(factory, says, *more, suffix=suffix, check=check))
    turned = factory.face("-t", "0.8", "-vf", "transpose=2", "-bf", "0", "-c:a", "pcm_s16le", name="lying.mov")
    upright = factory.ffmpeg(
        "-display_rotation", "-90", "-i", str(factory.root / turned), "-c", "copy", name="turned.mov"
    )
    cases.append(Case("turned by its metadata", {"file": upright}, check=partial(_exact, seconds=0.8)))
    return Matrix(cases, lambda: _colour_faults(factory, forms) + _still_faults(factory))


def pattern(width: int, height: int) -> np.ndarray:
    """Four quarters: red, green over blue, white; uint8 [H, W, 3]."""
    picture = np.zeros((height, width, 3), np.uint8)
    for quarter, colour in enumerate(COLOURS):
        rows = slice(0, height // 2) if quarter < 2 else slice(height // 2, height)
        columns = slice(0, width // 2) if quarter % 2 == 0 else slice(width // 2, width)
        picture[rows, columns] = colour
    return picture


def _pattern_faults(says: str, frame: np.ndarray, size: tuple[int, int], near: int = NEAR) -> list[str]:
    height, width = frame.shape[:2]
    if frame.dtype != np.uint8 or (width, height) != size:
        return [f"{says}: {frame.dtype} {width} x {height}, expected {size}"]
    faults = []
    for quarter, colour in enumerate(COLOURS):
        y, x = (1 + 2 * (quarter // 2)) * height // 4, (1 + 2 * (quarter % 2)) * width // 4
        if np.abs(frame[y, x].astype(int) - colour).max() > near:
            faults.append(f"{says}: quarter {quarter} is {frame[y, x]}, not {colour}")
    return faults


def _colour_faults(factory: Factory, forms: dict[str, tuple[str, tuple[str, ...]]]) -> list[str]:
    from preprocessing.media import decode, probe

    still = np.repeat(pattern(128, 96)[None], 15, axis=0)
    faults = []

    def look(says: str, path: Path, size: tuple[int, int]) -> None:
        with decode(probe(path)) as clip:
            frames = list(clip)
        path.unlink()
        faults.extend(_pattern_faults(says, frames[7], size))

    for says, (suffix, more) in forms.items():
        name = factory.pictures(still, *more, name=factory.fresh(suffix))
        look(says, factory.root / name, (255, 257) if says == "255 x 257" else (128, 96))
    for angle, turns in ((90, 3), (180, 2), (-90, 1)):
        lying = np.repeat(np.rot90(pattern(128, 96), turns)[None], 15, axis=0)
        plain = factory.pictures(np.ascontiguousarray(lying), "-c:v", "mpeg4", "-q:v", "1", name="lying.mov")
        turned = ("-display_rotation", str(angle), "-i", str(factory.root / plain), "-c", "copy")
        # MPEG-4's own loss is wider than the others'
        path = factory.root / factory.ffmpeg(*turned, name="upright.mov")
        with decode(probe(path)) as clip:
            frames = list(clip)
        faults.extend(_pattern_faults(f"turned by {angle}", frames[7], (128, 96), near=24))
        path.unlink()
    return faults


def _still_faults(factory: Factory) -> list[str]:
    """Pictures of 16 bits, with alpha, of odd sizes and turned by EXIF."""
    import cv2
    from PIL import Image

    from preprocessing.media import decode_still

    plain, path = pattern(255, 257), factory.root / "pattern.png"
    faults = []
    cv2.imwrite(str(path), plain[..., ::-1].astype(np.uint16) * 257)
    faults += _pattern_faults("PNG of 16 bits", decode_still(path), (255, 257))
    Image.fromarray(np.dstack([plain, np.full(plain.shape[:2], 255, np.uint8)])).save(path)
    faults += _pattern_faults("PNG with alpha", decode_still(path), (255, 257))
    Image.fromarray(plain).quantize(8).save(path)
    faults += _pattern_faults("PNG with a palette", decode_still(path), (255, 257))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    jpeg = path.with_suffix(".jpg")
    Image.fromarray(np.ascontiguousarray(np.rot90(plain))).save(jpeg, quality=100, subsampling=0, exif=exif)
    faults += _pattern_faults("JPEG turned by EXIF", decode_still(jpeg), (255, 257))
    path.unlink()
    jpeg.unlink()
    return faults


def faces(factory: Factory, full: bool) -> Matrix:
    side = 256
    away = f"pad={3 * side}:{side}:0:0:gray,crop={side}:{side}:'min({2 * side},max(0,(t-0.4)*0.7*{side}))':0"
    small = f"scale=iw*0.5:-2,pad={side}:{side}:40:40:gray"
    tiny = f"scale=iw*0.2:-2,pad={side}:{side}:40:40:gray"
    pair = "split[a][b];[a][b]hstack"
    cut = ("-t", "1")
    none = ("NO_FACE",)
    cases = [
        _face(factory, "two faces", *cut, "-vf", pair, ends=("MANY_FACES",)),
        _face(factory, "a face that leaves", "-t", "3", "-vf", away, ends=("FACE_LOST",)),
        _face(factory, "a face of 50 px", *cut, "-vf", small, ends=("FACE_SMALL",)),
        _face(factory, "a face of 20 px", *cut, "-vf", tiny, ends=("FACE_SMALL", "NO_FACE")),
        # a detector that sees it is no fault, as long as the sample is upright
        _face(
            factory, "a face on its side", *cut, "-vf", "transpose=1", ends=(*none, "FACE_LOST", "kept"), check=_upright
        ),
        Case("no face", {"file": factory.talking(size="320x240", seconds=1.2)}, none),
        Case("a cat", {"file": _moving(factory, _cat())}, none),
        Case("a drawing", {"file": _moving(factory, _drawing())}, none),
    ]
    return Matrix(cases)


def _upright(one: Ended) -> list[str]:
    return [
        f"{line['aligned']:.0%} aligned" for line in one.lines if line["aligned"] is not None and line["aligned"] < 0.9
    ]


def _cat() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.chelsea()[:256, 60:396])


def _drawing() -> np.ndarray:
    import cv2

    paper = np.full((256, 256, 3), 250, np.uint8)
    cv2.circle(paper, (128, 128), 90, (20, 20, 20), 3)
    for x in (98, 158):
        cv2.circle(paper, (x, 105), 6, (20, 20, 20), -1)
    cv2.ellipse(paper, (128, 150), (40, 25), 0, 20, 160, (20, 20, 20), 3)
    return paper


def _moving(factory: Factory, picture: np.ndarray) -> str:
    frames = np.stack([np.roll(picture, abs(n % 20 - 10) + factory.seed, axis=1) for n in range(30)])
    return factory.pictures(frames, "-c:v", "mpeg4", "-q:v", "3", name=factory.fresh(".mov"))


def consent(factory: Factory, full: bool) -> Matrix:
    given = "given; purpose=training"
    texts: dict[str, tuple[str | None, str]] = {
        "missing": (None, "NO_CONSENT"),
        "in no form": ("yes, of course", "NO_CONSENT"),
        "expired": (f"{given}; until=2026-01-31", "NO_CONSENT"),
        "not yet": (f"{given}; from=2027-01-01", "NO_CONSENT"),
        "withdrawn": ("withdrawn; on=2026-05-01", "NO_CONSENT"),
        "for another purpose": ("given; purpose=research", "NO_CONSENT"),
        "on its last day": (f"{given}; until=2026-06-15", "kept"),
        "in JSON": ('{"state": "given", "purpose": ["training"]}', "kept"),
    }
    cases = [
        Case(f"consent {says}", {"file": factory.voice(), "consent": text, "licence": "CC0"}, (ends,))
        for says, (text, ends) in texts.items()
    ]
    for licence in (None, "unknown", "proprietary"):
        values = {"file": factory.voice(), "consent": given, "licence": licence}
        cases.append(Case(f"licence {licence}", values, ("LICENCE",)))
    day = "2026-06-15"
    people = PeoplePolicy.model_validate({"require": ["consent", "licence"], "licences": ["CC0"], "day": day})
    return Matrix(cases, people=people)


def _face(
    factory: Factory,
    says: str,
    *more: str,
    suffix: str = ".mp4",
    ends: tuple[str, ...] = ("kept",),
    refused_by: tuple[Reason, ...] = (),
    check: Callable[[Ended], list[str]] | None = None,
) -> Case:
    name = factory.face(*more, name=factory.fresh(suffix))
    return Case(says, {"file": name}, ends, refused_by=refused_by, check=check)
