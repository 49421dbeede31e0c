"""Mutated media files through what ingestion does with them: probe, decode, faces, sample."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutation import mutate
from hostile.factory import Factory

from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.plan import PlannedRow

LOSSY = ("-c:v", "libx264", "-g", "8", "-c:a", "aac")
CLIPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (".mp4", LOSSY),
    (".mp4", (*LOSSY, "-movflags", "+faststart")),
    (".mp4", (*LOSSY, "-movflags", "+frag_keyframe+empty_moov")),
    (".mov", ("-c:v", "mpeg4", "-c:a", "pcm_s16le")),
    (".mov", ("-c:v", "qtrle", "-pix_fmt", "argb", "-c:a", "pcm_s24le")),
    (".mov", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "adpcm_ima_qt")),
    (".mkv", ("-c:v", "libx264", "-c:a", "flac")),
    (".mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrp", "-c:a", "pcm_f32le")),
    (".webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")),
    (".avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
    (".mpg", ("-c:v", "mpeg1video", "-c:a", "mp2")),
    (".ts", ("-c:v", "mpeg2video", "-c:a", "mp2")),
)
SPEECH = (("pcm_s16le", ".wav"), ("pcm_f32le", ".wav"), ("flac", ".flac"), ("libmp3lame", ".mp3"),
          ("libvorbis", ".ogg"), ("aac", ".m4a"))  # fmt: skip
STILLS = (".png", ".jpg", ".webp")


def prepare(folder: Path) -> None:
    """The valid files that mutations start from, under ``folder``: 12 clips and 2 of a face, 6 of speech, 3 stills."""
    from hostile.factory import make_speaker

    folder.mkdir()
    speaker = folder.parent / "speaker.mp4"
    make_speaker(speaker)
    factory = Factory(folder, speaker, seed=7)
    for number, (suffix, more) in enumerate(CLIPS):
        factory.talking(f"clip{number:02d}{suffix}", *more, seconds=0.7, size="96x96")
    small = ("-t", "0.7", "-vf", "scale=176:176", "-c:a", "aac")
    factory.face(*small, "-c:v", "libx264", name="face0.mp4")
    factory.face(*small, "-c:v", "mpeg4", name="face1.avi")
    for number, (codec, suffix) in enumerate(SPEECH):
        tone = ("-f", "lavfi", "-i", "sine=frequency=300:duration=0.7:sample_rate=16000", "-c:a", codec)
        factory.ffmpeg(*tone, name=f"speech{number}{suffix}")
    for number, suffix in enumerate(STILLS):
        factory.face("-ss", "1", "-frames:v", "1", "-vf", "scale=176:176", name=f"still{number}{suffix}")


@cache
def _seeds(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]


def make(rng: np.random.Generator, seeds: Path, root: Path) -> str:
    """Write one mutated file under ``root``; its name."""
    found = _seeds(seeds)
    suffix, data = found[int(rng.integers(len(found)))]
    name = f"x{suffix}"
    (root / name).write_bytes(mutate(rng, data, [other for _, other in found]))
    return name


def run(name: str, root: Path, tools: Any) -> str:
    """How the file ended: kept, a reason, or a failure's code with its last line."""
    from preprocessing.build import IngestSettings, build_row

    path = root / name
    row = row_from({"file": name})
    planned = PlannedRow(
        row=0, shard=0, key=row.key, sha256=sha256_file(path), bytes=path.stat().st_size, values=row
    )  # fmt: skip
    samples, lines = build_row(planned, root, tools, IngestSettings())
    first = lines[0]
    if first["state"] == "failed":
        return f"INTERNAL {first['detail'].strip().splitlines()[-1]}"
    if (first["state"] == "kept") != bool(samples):
        return "INTERNAL kept without a sample"
    return str(first["reason"] or "kept")
