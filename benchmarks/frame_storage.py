"""How stored crops should be compressed: a sequence of JPEGs, or all-intra H.264 at about the same quality.

    python benchmarks/frame_storage.py

Frames come from the clips of ``VOXFACE_CORPUS`` (the middle square of each), or are generated where it is not set.
One line per format and side: size, PSNR of the brightness, time to encode a frame, time to decode a single frame
drawn at random out of a clip that lies in memory (as training does).
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

CLIPS = 6
FRAMES = 12  # of each clip
SIDES = (256, 512)
DRAWS = 100
SEED = 0
EXACT = "BICUBIC"


@dataclass
class Figures:
    """What one format costs on one set of clips."""

    name: str
    side: int
    bytes_per_frame: float
    psnr: float
    encode_ms: float
    decode_ms: float


def main() -> None:
    cv2.setNumThreads(1)
    corpus = os.environ.get("VOXFACE_CORPUS")
    lines = []
    for side in SIDES:
        clips = list(recorded(Path(corpus), side)) if corpus else list(generated(side))
        jpegs = [measure(f"JPEG {q}", clips, jpeg_encode(q), jpeg_decode) for q in (95, 90)]
        for jpeg in jpegs:
            lines += [jpeg, match(clips, jpeg.psnr)]
    source = "clips of the corpus" if corpus else "generated clips"
    sys.stdout.write(f"{len(clips)} {source}, {FRAMES} frames each, one thread\n")
    sys.stdout.write(
        f"{'format':<16}{'side':>6}{'bytes/frame':>13}{'PSNR dB':>9}{'encode ms':>11}{'random decode ms':>18}\n"
    )
    for f in lines:
        sys.stdout.write(
            f"{f.name:<16}{f.side:>18}{f.bytes_per_frame:>18.0f}{f.psnr:>18.2f}{f.encode_ms:>18.2f}{f.decode_ms:>18.2f}\n"
        )


def recorded(corpus: Path, side: int) -> Iterator[np.ndarray]:
    """The middle square of the beginning of clips that are at least ``side`` high: uint8 [FRAMES, side, side, 3]."""
    from preprocessing.media import decode, probe

    with (corpus / "corpus.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "clips"]
    rows = [row for row in rows if min(int(row["width"]), int(row["height"])) >= side]
    for row in rows[:: max(1, len(rows) // CLIPS)][:CLIPS]:
        with decode(probe(corpus / row["file"]), start_s=0.0, end_s=1.0) as decoding:
            yield np.stack([square(frame, side) for frame, _ in zip(decoding, range(FRAMES))])


def square(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    half = min(height, width, 2 * side) // 2
    middle = frame[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half]
    return cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA)


def generated(side: int) -> Iterator[np.ndarray]:
    """Soft shapes with grain that drift."""
    rng = np.random.default_rng(SEED)
    for _ in range(CLIPS):
        soft = cv2.resize(rng.uniform(0, 255, (side // 32, side // 32, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
        yield np.stack(
            [
                np.clip(np.roll(soft, i, axis=1) + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)
                for i in range(FRAMES)
            ]
        )


def jpeg_encode(quality: int) -> Callable[[np.ndarray], list[bytes]]:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return lambda clip: [cv2.imencode(".jpg", frame[:, :, ::-1], options)[1].tobytes() for frame in clip]


def jpeg_decode(packets: list[bytes]) -> Callable[[int], np.ndarray]:
    return lambda i: cv2.imdecode(np.frombuffer(packets[i], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def h264_encode(crf: int) -> Callable[[np.ndarray], list[bytes]]:
    """Every frame an IDR picture with its own headers, so that each packet decodes alone."""

    def encode(clip: np.ndarray) -> list[bytes]:
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = (
            clip.shape[2],
            clip.shape[1],
            "yuvj420p",
        )  # full range, as JPEG has
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.thread_count = 1
        context.gop_size = 1
        context.options = {"preset": "veryfast", "crf": str(crf), "x264-params": "keyint=1:bframes=0:repeat-headers=1"}
        packets = []
        for frame in clip:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            packets += context.encode(picture.reformat(format="yuvj420p", interpolation=EXACT))
        return [bytes(packet) for packet in [*packets, *context.encode(None)]]

    return encode


def h264_decode(packets: list[bytes]) -> Callable[[int], np.ndarray]:
    context = av.CodecContext.create("h264", "r")
    context.thread_type = "NONE"

    def decode(i: int) -> np.ndarray:
        frames = [*context.decode(av.Packet(packets[i])), *context.decode(None)]
        context.flush_buffers()
        return frames[0].reformat(format="rgb24", interpolation=EXACT).to_ndarray()

    return decode


def luma(frame: np.ndarray) -> np.ndarray:
    """Brightness in 0..255: both formats halve the colours' resolution, by filters that differ between libraries."""
    return frame.astype(np.float64) @ (0.299, 0.587, 0.114)


def measure(
    name: str,
    clips: list[np.ndarray],
    encode: Callable[[np.ndarray], list[bytes]],
    opened: Callable[[list[bytes]], Callable[[int], np.ndarray]],
) -> Figures:
    """Encode all clips, decode all frames for the quality, then single ones for the time."""
    began = time.process_time()
    packed = [encode(clip) for clip in clips]
    encode_s = time.process_time() - began
    readers = [opened(packets) for packets in packed]
    squares = [
        float(((luma(reader(i)) - luma(clip[i])) ** 2).mean())
        for reader, clip in zip(readers, clips)
        for i in range(len(clip))
    ]
    rng = np.random.default_rng(SEED)
    draws = [(int(rng.integers(len(clips))), int(rng.integers(FRAMES))) for _ in range(DRAWS)]
    began = time.process_time()
    for clip, i in draws:
        readers[clip](i)
    decode_s = time.process_time() - began
    count = sum(len(clip) for clip in clips)
    return Figures(
        name=name,
        side=clips[0].shape[1],
        bytes_per_frame=sum(len(data) for packets in packed for data in packets) / count,
        psnr=10 * np.log10(255**2 / np.mean(squares)),
        encode_ms=1000 * encode_s / count,
        decode_ms=1000 * decode_s / DRAWS,
    )


def match(clips: list[np.ndarray], psnr: float) -> Figures:
    """All-intra H.264 at the coarsest rate factor that is no worse than ``psnr`` (or the best there is)."""
    low, high = 1, 33
    best = measure(f"H.264 crf {low}", clips, h264_encode(low), h264_decode)
    while low < high - 1:
        middle = (low + high) // 2
        tried = measure(f"H.264 crf {middle}", clips, h264_encode(middle), h264_decode)
        if tried.psnr >= psnr:
            low, best = middle, tried
        else:
            high = middle
    return best


if __name__ == "__main__":
    main()
