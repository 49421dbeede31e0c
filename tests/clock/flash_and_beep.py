"""A flash and a beep at one moment: how far apart they are after decoding, for every way to write a clock down."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from contracts.sample import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from preprocessing.media import decode, probe
from preprocessing.media.process import ffmpeg_binary

RATES = ("24000/1001", "25", "30000/1001", "30", "50", "60", "120", "12", "15000/1001")
SOUNDS = (8000, 11025, 22050, 44100, 48000, 96000)
LAST = 0.4  # s that flash and beep last
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
MPEG = ("-c:v", "mpeg2video", "-q:v", "2", "-c:a", "mp2")
PCM = ("-c:a", "pcm_s16le")
VFR = "select='not(mod(n,3))*not(mod(n,7))+not(mod(n,11))'"  # of 200 pictures a second: gaps of 15 to 55 ms


def ffmpeg(*arguments: str) -> Path:
    """Run ffmpeg; the last argument is the file it makes, which is returned."""
    argv = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")
    return Path(arguments[-1])


def source(
    path: Path, *more: str, rate: str = "25", picture: int = 25, seconds: float = 2.0, sound: int = 48000,
    layout: str = "mono", size: str = "64x64", filters: str = "",
) -> Path:  # fmt: skip
    """White pictures from number ``picture`` on for 0.4 s, with them a 1 kHz beep; black and silent elsewhere."""
    at = float(picture / Fraction(rate))
    box = f"drawbox=color=white:t=fill:enable='between(t,{at}-1e-4,{at}+{LAST})'"
    seen = f"color=black:size={size}:rate={rate}:duration={seconds},{box}{',' + filters if filters else ''}"
    beep = f"aevalsrc='0.5*sin(2*PI*1000*t)*between(t,{at},{at}+{LAST})':sample_rate={sound}:duration={seconds}"
    heard = f"{beep},aformat=channel_layouts={layout}" if layout == "mono" else f"{beep},{_spread(layout)}"
    return ffmpeg("-f", "lavfi", "-i", seen, "-f", "lavfi", "-i", heard, *(more or H264), str(path))


def _spread(layout: str) -> str:
    """The mono beep in every channel of ``layout``."""
    count = {"stereo": 2, "2.1": 3, "quad": 4, "5.0": 5, "5.1": 6, "6.1": 7, "7.1": 8}[layout]
    return f"pan={layout}|" + "|".join(f"c{channel}=c0" for channel in range(count))


def apart_ms(path: Path) -> tuple[float, int]:
    """Milliseconds by which the beep trails the flash in what is decoded, and the frames decoded.

    A flash is seen from the first frame whose middle it covers: by itself that is up to 20 ms either way.
    Raises ``AssertionError`` where frames and sound are not of one length: round(25 s) frames, 640 samples each.
    """
    found = probe(path)
    with decode(found) as decoding:
        light = np.array([frame[..., :3].mean() for frame in decoding])
        sound, count = decoding.sound, decoding.count
    first, last = found.overlap
    assert len(light) == count == round(FPS * (last - first)), (len(light), count, last - first)
    assert len(sound) == SAMPLES_PER_FRAME * count, len(sound)
    flash = int((light > (light.min() + light.max()) / 2).argmax()) / FPS
    loud = np.abs(sound.astype(int))
    beep = int((loud > 0.25 * loud.max()).argmax()) / SAMPLE_RATE
    return 1000 * (beep - flash), count


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Name and maker of every clip; each maker writes into ``folder``."""
    for rate in RATES:
        for phase in (0, 1, 2):  # where in the grid of 25 the flash begins
            picture = round(Fraction(rate)) + phase
            yield (
                f"{float(Fraction(rate)):.3f} fps",
                lambda r=rate, p=picture: source(folder / "a.mp4", rate=r, picture=p),
            )
    for name, more in {
        "mkv 23.976": H264, "mov pcm": (*H264, *PCM), "avi": ("-c:v", "mpeg4", *PCM),
        "mpg": MPEG, "ts": MPEG,
        "webm vp9 opus": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"),
    }.items():  # fmt: skip
        rate, suffix = "24000/1001" if "23.976" in name else "25", name.split()[0]
        yield name, lambda n=suffix, m=more, r=rate: source(folder / f"b.{n}", *m, rate=r)
    # 209 and 210 are the first pictures kept from one second on
    lossless = ("-fps_mode", "passthrough", "-c:v", "ffv1", "-c:a", "flac")
    yield "variable rate", lambda: source(folder / "v.mkv", *lossless, rate="200", picture=209, filters=VFR)
    vfr = ("-fps_mode", "vfr", "-enc_time_base", "1/1000", *H264)
    yield "variable rate mp4", lambda: source(folder / "v.mp4", *vfr, rate="200", picture=209, filters=VFR)
    for cut in ("0.12", "0.52", "0.76"):  # of whole pictures: at others a copied file is itself up to 40 ms apart
        yield "edit list", lambda c=cut: _cut(folder, c)
    for late, first in ((0.013, "sound"), (0.31, "sound"), (0.7, "sound"), (0.013, "pictures"), (0.7, "pictures")):
        yield f"{'pictures' if first == 'sound' else 'sound'} start late", lambda x=late, f=first: _late(folder, x, f)
    for angle in (90, 180, 270):
        yield f"rotated {angle}", lambda a=angle: _turned(folder, a)
    for pixels in ("yuv444p10le", "yuv420p10le", "yuva420p", "gray", "gray10le", "gbrp", "bgra", "yuv410p"):
        yield f"{pixels}", lambda p=pixels: source(folder / "p.mkv", "-c:v", "ffv1", "-pix_fmt", p)
    yield "255x257", lambda: source(folder / "o.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv444p", size="255x257")
    for hertz in SOUNDS:
        yield f"{hertz} Hz", lambda h=hertz: source(folder / "s.mkv", *H264, *PCM, sound=h)
    for layout in ("stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1"):
        yield f"{layout} channels", lambda x=layout: source(folder / "c.mkv", *H264, *PCM, layout=x)


def _cut(folder: Path, start: str) -> Path:
    whole = source(folder / "whole.mp4", *H264, "-g", "50")
    return ffmpeg("-ss", start, "-i", str(whole), "-c", "copy", str(folder / "cut.mp4"))


def _late(folder: Path, seconds: float, first: str) -> Path:
    """One track moved, flash and beep with it: made apart by as much beforehand, they meet again."""
    at = 1.2
    flash, beep = (at - seconds, at) if first == "sound" else (at, at - seconds)
    flash = round(flash * 1000) / 1000
    box = f"drawbox=color=white:t=fill:enable='between(t,{flash}-1e-4,{flash}+{LAST})'"
    seen = ffmpeg("-f", "lavfi", "-i", f"color=black:size=64x64:rate=1000:duration=2,{box}", "-r", "1000",
                  "-c:v", "ffv1", str(folder / "seen.mkv"))  # fmt: skip
    tone = f"aevalsrc='0.5*sin(2*PI*1000*t)*between(t,{beep},{beep}+{LAST})':sample_rate=48000:duration=2"
    heard = ffmpeg("-f", "lavfi", "-i", tone, *PCM, str(folder / "heard.mkv"))
    moved = ("-itsoffset", str(seconds))
    inputs = (
        (*moved, "-i", str(seen), "-i", str(heard)) if first == "sound" else ("-i", str(seen), *moved, "-i", str(heard))
    )
    return ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", str(folder / "late.mkv"))


def _turned(folder: Path, angle: int) -> Path:
    upright = source(folder / "upright.mp4", size="96x64")
    return ffmpeg("-display_rotation", str(angle), "-i", str(upright), "-c", "copy", str(folder / "turned.mp4"))


def measure_clock() -> list[tuple[str, float]]:
    """Name of every kind of clip, and the worst |sound - picture| found for it, in milliseconds."""
    worst: dict[str, float] = {}
    with TemporaryDirectory(prefix="clock-") as folder:
        for name, make in cases(Path(folder)):
            apart, _ = apart_ms(make())
            worst[name] = max(worst.get(name, 0.0), abs(apart))
    return list(worst.items())
