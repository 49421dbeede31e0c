"""Rows of the matrix about files: no media, cut, damaged, lying, too large, too long, lacking a stream."""

from __future__ import annotations

import io
import re
import struct
import wave
import zlib

import numpy as np
from hostile import forgery
from hostile.bench import Case, Ended, Matrix
from hostile.factory import Factory, Listener

BROKEN = ("BAD_CONTAINER", "TRUNCATED", "DECODE_ERROR")
CUTS = 211
FEW_CUTS = 12


def no_media(factory: Factory, full: bool) -> Matrix:
    noise = factory.rng.integers(0, 256, 5000, np.uint8).tobytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    cases = [Case("zero bytes", {"file": factory.bytes_(b"")}, ("EMPTY_FILE",))]
    for says, data in (("one byte", b"\0"), ("random bytes", noise), ("text", pointer), ("a GIF", b"GIF89a" + noise)):
        for suffix in (".mp4", ".wav") if full or says == "one byte" else (".mp4",):
            cases.append(Case(f"{says} named {suffix}", {"file": factory.bytes_(data, suffix)}, ("BAD_CONTAINER",)))
    return Matrix(cases)


def playlists(factory: Factory, full: bool) -> Matrix:
    listener = Listener()
    address = f"http://127.0.0.1:{listener.port}/a.ts"
    beside = factory.talking("beside.ts", seconds=0.6)
    texts = {
        "HLS of an address": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n",
        "HLS of a file beside it": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{beside}\n#EXT-X-ENDLIST\n",
        "ffconcat of a file": f"ffconcat version 1.0\nfile {beside}\n",
        "ffconcat of an address": f"ffconcat version 1.0\nfile {address}\n",
        "ffconcat of /etc/passwd": "ffconcat version 1.0\nfile /etc/passwd\n",
        "DASH": f"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{address}</BaseURL></MPD>",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
    }
    suffixes = (".mp4", ".m3u8", ".wav") if full else (".mp4",)
    cases = [
        Case(f"{says} named {suffix}", {"file": factory.bytes_(text.encode() + b"\n" * n, suffix)}, ("BAD_CONTAINER",))
        for says, text in texts.items()
        for n, suffix in enumerate(suffixes)  # a line more each, for the same content again is refused for that
    ]
    return Matrix(cases, lambda: _silence(listener))


def external_data(factory: Factory, full: bool) -> Matrix:
    listener = Listener()
    data = factory.read(factory.talking())
    quick = factory.read(factory.talking("", "-movflags", "+faststart"))
    targets = [f"http://127.0.0.1:{listener.port}/a.mp4", "file:///etc/passwd", "/etc/passwd", "good.wav", ""]
    cases = [
        Case(f"data at {target!r}", {"file": factory.bytes_(forgery.external(data, target))}, ("BAD_CONTAINER",))
        for target in targets
    ]
    cases.append(Case("index first", {"file": factory.bytes_(forgery.external(quick, targets[0]))}, ("BAD_CONTAINER",)))
    return Matrix(cases, lambda: _silence(listener))


def _silence(listener: Listener) -> list[str]:
    listener.close()
    return [f"{listener.heard} connections"] if listener.heard else []


def cuts(factory: Factory, full: bool) -> Matrix:
    more = ("-g", str(12 + factory.seed), "-movflags", "+faststart")
    data = factory.read(factory.talking("", *more, seconds=1, size="128x96"))
    where = np.linspace(1, len(data) - 1, CUTS).astype(int)
    if not full:
        where = where[:: CUTS // (FEW_CUTS - 1)]
    cases = [Case(f"cut at {at}", {"file": factory.bytes_(data[:at])}, BROKEN[:2]) for at in where]
    plain = factory.read(factory.talking())
    index = next(at - 8 for kind, at, _ in forgery.boxes(plain) if kind == b"moov")
    cases.append(Case("no index", {"file": factory.bytes_(plain[:index])}, ("BAD_CONTAINER",)))
    return Matrix(cases)


def corrupt_group(factory: Factory, full: bool) -> Matrix:
    cases = []
    for number in range(20 if full else 4):
        name = factory.talking("", "-g", "10", "-bf", "0", seconds=2, size="160x120")
        data = bytearray(factory.read(name))
        (media,) = forgery.payload(bytes(data), b"mdat")
        end = next(stop for kind, _, stop in forgery.boxes(bytes(data)) if kind == b"mdat")
        start = media + int((end - media) * factory.rng.uniform(0.3, 0.6))
        size = (end - media) // 6
        junk = factory.rng.integers(0, 256, size, np.uint8).tobytes() if number % 2 else bytes(size)
        data[start : start + size] = junk
        cases.append(Case(f"{'random bytes' if number % 2 else 'zeros'} from {start}",
                          {"file": factory.bytes_(bytes(data))}, ("DECODE_ERROR",), check=_names_frame))  # fmt: skip
    return Matrix(cases)


def _names_frame(one: Ended) -> list[str]:
    detail = one.lines[0]["detail"]
    return [] if re.search(r"after \d+ of \d+ frames", detail) else [f"no frame is named: {detail}"]


def many_pixels(factory: Factory, full: bool) -> Matrix:
    picture = f"color=c=0x{(0x808080 + 4111 * factory.seed):06x}:size=8192x8192:rate=2:duration=1"
    tone = ("-f", "lavfi", "-i", "sine=duration=1")
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    bomb = factory.ffmpeg("-f", "lavfi", "-i", picture, *tone, *x264, name="bomb.mp4")
    data = bytearray(factory.read(bomb))
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    struct.pack_into(">HH", data, at, 64, 64)
    cases = [Case("8192 x 8192", {"file": bomb}, ("TOO_MANY_PIXELS",), seconds=0.5, megabytes=200)]
    liar = factory.bytes_(bytes(data))
    cases.append(
        Case("the same, the header says 64 x 64", {"file": liar}, ("TOO_MANY_PIXELS", "DECODE_ERROR", "TRUNCATED"))
    )
    if full:
        bomb = factory.ffmpeg("-f", "lavfi", "-i", picture, *tone, "-c:v", "mjpeg", "-q:v", "31", name="bomb.mkv")
        # the demuxer's own look at such a picture is refused, and then it has no size
        ends = ("TOO_MANY_PIXELS", "NO_VIDEO")
        cases.append(Case("as JPEG in Matroska", {"file": bomb}, ends, seconds=0.5, megabytes=200))
    return Matrix(cases)


def lying_length(factory: Factory, full: bool) -> Matrix:
    data = factory.read(factory.talking())
    forged = {
        "10 hours": forgery.claim_length(data, 36_000),
        "10 million frames": forgery.claim_frames(data, 10_000_000),
        "both": forgery.claim_frames(forgery.claim_length(data, 36_000), 10_000_000),
        "400 million frames": forgery.claim_frames(data, 400_000_000),
    }
    ends = ("TRUNCATED", "TOO_LONG")
    return Matrix([Case(f"claims {says}", {"file": factory.bytes_(data)}, ends) for says, data in forged.items()])


def long_clip(factory: Factory, full: bool) -> Matrix:
    picture = f"color=c=0x{4111 * factory.seed:06x}:size=32x32:rate=1:duration=1800"
    tone = ("-f", "lavfi", "-i", "sine=duration=1800:sample_rate=8000")
    name = factory.ffmpeg(
        "-f", "lavfi", "-i", picture, *tone, "-c:v", "mpeg4", "-c:a", "pcm_mulaw", name="long.mov"
    )  # fmt: skip
    return Matrix(
        [
            Case("30 minutes", {"file": name}, ("TOO_LONG",)),
            Case("30 minutes of them", {"file": name, "id": "s", "start_s": 1, "end_s": 1799}, ("TOO_LONG",)),
        ]
    )


def short_clip(factory: Factory, full: bool) -> Matrix:
    return Matrix(
        [
            Case("0.2 s", {"file": factory.talking(seconds=0.2)}, ("TOO_SHORT",)),
            Case("0.2 s of a face", {"file": factory.face("-t", "0.2")}, ("TOO_SHORT",)),
            Case("0.2 s of sound", {"file": factory.voice(seconds=0.2)}, ("TOO_SHORT",)),
            Case("a span of 0.2 s", {"file": factory.talking(), "start_s": 0.3, "end_s": 0.5}, ("TOO_SHORT",)),
            Case("a span beyond the end", {"file": factory.talking(), "start_s": 90, "end_s": 95}, ("TOO_SHORT",)),
            Case("a span that ends before it begins", {"file": factory.talking(), "start_s": 0.9, "end_s": 0.1},
                 ("TOO_SHORT", "BAD_MANIFEST")),
        ]
    )  # fmt: skip


def many_streams(factory: Factory, full: bool) -> Matrix:
    sound = factory.root / factory.voice(seconds=0.1)
    clip = factory.root / factory.talking()
    text = factory.root / factory.bytes_(b"1\n00:00:00,000 --> 00:00:00,900\nx\n\n", ".srt")
    many = factory.ffmpeg("-i", str(sound), *["-map", "0:a"] * 1000, "-c", "copy", name="many.mkv")
    titled = factory.ffmpeg(
        "-i", str(clip), "-i", str(text), "-map", "0", *["-map", "1:s"] * 300, "-c", "copy", name="titled.mkv"
    )  # fmt: skip
    cover = factory.ffmpeg(
        "-f", "lavfi", "-i", "color=red:size=64x64:rate=1:duration=1", "-frames:v", "1", name="c.png"
    )
    covered = factory.ffmpeg(
        "-i", str(factory.root / factory.voice()), "-i", str(factory.root / cover), "-map", "0", "-map", "1",
        "-disposition:v", "attached_pic", "-c:v", "png", "-c:a", "aac", name="covered.m4a",
    )  # fmt: skip
    return Matrix(
        [
            Case("1000 sound tracks", {"file": many, "kind": "clip"}, ("TOO_MANY_STREAMS",)),
            Case("300 subtitle tracks", {"file": titled}, ("TOO_MANY_STREAMS",)),
            Case("cover art alone", {"file": covered, "kind": "clip"}, ("NO_VIDEO",)),
        ]
    )


def no_stream(factory: Factory, full: bool) -> Matrix:
    clip = factory.root / factory.talking()
    cases = [
        Case("no sound", {"file": factory.ffmpeg("-i", str(clip), "-an", "-c", "copy", name="v.mp4")}, ("NO_AUDIO",)),
        Case(
            "no pictures", {"file": factory.ffmpeg("-i", str(clip), "-vn", "-c", "copy", name="a.mp4")}, ("NO_VIDEO",)
        ),
        Case("speech without sound", {"file": "v.mp4", "id": "speech", "kind": "speech"}, ("NO_AUDIO",)),
    ]
    if full:
        bare = factory.ffmpeg("-f", "lavfi", "-i", "color=red:duration=2", "-an", name="v.mkv")
        cases.append(Case("a face without sound", {"file": factory.face("-an", "-c:v", "copy")}, ("NO_AUDIO",)))
        cases.append(Case("no sound in Matroska", {"file": bare}, ("NO_AUDIO",)))
    return Matrix(cases)


def no_numbers(factory: Factory, full: bool) -> Matrix:
    cases = []
    for value in (np.nan, np.inf, -np.inf) if full else (np.nan, np.inf):
        for share in (1.0, 1e-4):
            samples = np.full(32000, 0.1, np.float32)
            samples[16000 : 16000 + max(1, round(share * 16000))] = value
            sound = factory.bytes_(forgery.wav_of_floats(samples), ".wav")
            cases.append(Case(f"{value} in speech", {"file": sound}, ("NON_FINITE",)))
            clip = factory.ffmpeg(
                "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=2", "-i", str(factory.root / sound),
                "-c:v", "mpeg4", "-c:a", "copy", name=factory.fresh(".mov"),
            )  # fmt: skip
            cases.append(Case(f"{value} in a clip's sound", {"file": clip}, ("NON_FINITE",)))
    return Matrix(cases)


def lying_wav(factory: Factory, full: bool) -> Matrix:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(factory.rng.integers(-3000, 3000, 16000).astype("<i2").tobytes())
    floats = forgery.wav_of_floats(factory.rng.uniform(-0.1, 0.1, 8000))
    cases = []
    for says, data in (("16 bits", buffer.getvalue()), ("floats", floats)):
        for claim in (2_000_000_000, 40_000, 2**32 - 40) if full else (2_000_000_000, 40_000):
            forged = factory.bytes_(forgery.claim_bytes(data, claim), ".wav")
            cases.append(Case(f"{says}, claims {claim} bytes", {"file": forged}, ("TRUNCATED",)))
    return Matrix(cases)


def stills(factory: Factory, full: bool) -> Matrix:
    at = str(1.5 + 0.2 * factory.seed)
    face = factory.face("-ss", at, "-frames:v", "1", "-q:v", "2", name="face.jpg")
    jpeg = factory.read(face)
    whole = factory.read(factory.ffmpeg("-i", str(factory.root / face), name="face.png"))
    broken = bytearray(whole)
    broken[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    text = forgery.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    secret = b"PK\x03\x04 this must not be kept " * 8
    damaged = ("DECODE_ERROR", "TRUNCATED")
    cases = [
        Case("14000 x 14000", {"file": factory.bytes_(forgery.png(14000, 14000), ".png")}, ("TOO_MANY_PIXELS",)),
        Case("9000 x 9000", {"file": factory.bytes_(forgery.png(9000, 9000), ".png")}, ("TOO_MANY_PIXELS",)),
        Case("two thousand million wide", {"file": factory.bytes_(_wide_png(), ".png")}, ("TOO_MANY_PIXELS", *damaged)),
        Case("a text chunk of 200 MB", {"file": factory.bytes_(forgery.png(64, 64, text), ".png")}, damaged),
        Case("a cut JPEG", {"file": factory.bytes_(jpeg[: len(jpeg) // 2], ".jpg")}, damaged),
        Case("a cut PNG", {"file": factory.bytes_(whole[: len(whole) // 2], ".png")}, damaged),
        Case("a damaged PNG", {"file": factory.bytes_(bytes(broken), ".png")}, damaged),
        Case("a clip named .png", {"file": factory.talking(".png.mp4"), "kind": "face"}, ("BAD_CONTAINER",)),
        Case("a PDF named .jpg", {"file": factory.bytes_(b"%PDF-1.4\n" + jpeg, ".jpg")}, ("BAD_CONTAINER",)),
        Case("PostScript named .jpg", {"file": factory.bytes_(b"%!PS-Adobe-3.0 EPSF\n", ".jpg")}, ("BAD_CONTAINER",)),
        Case("a picture that is an archive, too", {"file": factory.bytes_(whole + secret, ".png")},
             check=lambda one: ["the archive was kept"] if secret[:20] in b"".join(
                 data for members in one.members.values() for data in members.values()) else []),
    ]  # fmt: skip
    return Matrix(cases)


def _wide_png() -> bytes:
    data = bytearray(forgery.png(64, 64))
    struct.pack_into(">II", data, 16, 2**31 - 1, 1)
    struct.pack_into(">I", data, 29, zlib.crc32(bytes(data[12:29])))
    return bytes(data)
