"""What the invisible mark survives: clips are marked, encoded, attacked and looked at; so are unmarked ones."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scoreboard import Scoreboard

from preprocessing.media.process import ffmpeg_binary
from serving.watermark import FOUND, PUBLIC_KEY, Mark, Marker, detect

SIDE, FRAMES = 256, 75
SEGMENT = 25  # frames of an unmarked segment
ATTACKS: dict[str, list[tuple[int, str]]] = {  # quality and filter of each encoding, after our own
    "as published": [],
    "CRF 28": [(28, "null")],
    "CRF 28, three times": [(28, "null")] * 3,
    "half size": [(23, f"scale={SIDE // 2}:{SIDE // 2}")],
    "10 % crop": [(23, "crop=iw*0.9:ih*0.9")],
    "10 % crop off centre, size restored, CRF 28": [(28, f"crop=iw*0.9:ih*0.9:0:ih*0.1,scale={SIDE}:{SIDE}")],
}


def read(path: Path, frames: int) -> np.ndarray:
    """The first frames of a clip, uint8 [n, 256, 256, 3]: the largest square in the middle, scaled."""
    square = f"crop='min(iw,ih)':'min(iw,ih)',scale={SIDE}:{SIDE},format=rgb24"
    argv = [ffmpeg_binary(), "-v", "error", "-i", f"file:{path}", "-vf", square, "-frames:v", str(frames)]
    done = subprocess.run([*argv, "-f", "rawvideo", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, SIDE, SIDE, 3)


def encode(frames: np.ndarray, crf: int, change: str) -> np.ndarray:
    """The frames after a filter and H.264."""
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    argv = [ffmpeg_binary(), "-v", "error", *raw, "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    argv += ["-vf", f"{change},crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p", "-c:v", "libx264"]
    argv += ["-preset", "veryfast", "-crf", str(crf), "-threads", "1", "-f", "nut", "-"]
    coded = subprocess.run(argv, input=frames.tobytes(), capture_output=True, check=True).stdout
    shape = [*probe_size(coded), 3]
    back = [ffmpeg_binary(), "-v", "error", "-f", "nut", "-i", "-", *raw[:2], "-pix_fmt", "rgb24", "-"]
    plain = subprocess.run(back, input=coded, capture_output=True, check=True).stdout
    return np.frombuffer(plain, np.uint8).reshape(-1, *shape)


def probe_size(coded: bytes) -> tuple[int, int]:
    """Height and width of a coded stream."""
    from io import BytesIO

    import av

    with av.open(BytesIO(coded)) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def clips(folders: list[Path], most: int) -> Iterator[tuple[Path, np.ndarray]]:
    """Clips that can be read and last a second, with their frames; spread over all there are."""
    files = [path for folder in folders for path in sorted(folder.glob("*.mp4"))]
    taken = 0
    for path in files[:: max(1, len(files) // most)]:
        try:
            frames = read(path, FRAMES)
        except (subprocess.CalledProcessError, ValueError):
            continue
        if len(frames) >= SEGMENT and taken < most:
            taken += 1
            yield path, frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path(os.environ.get("VOXFACE_WORK", "work")) / "demo")
    parser.add_argument("--most", type=int, default=40, help="clips")
    parser.add_argument("--keys", type=int, default=8, help="wrong keys that each unmarked segment is tried with")
    options = parser.parse_args()
    folders = [options.demo / "clips"]
    corpus = os.environ.get("VOXFACE_CORPUS")
    if corpus:
        folders.append(Path(corpus) / "clips")
    board = Scoreboard("watermark")
    seen: dict[str, list[Mark]] = {name: [] for name in ATTACKS}
    quality, cost, unmarked = [], [], []
    for path, frames in clips(folders, options.most):
        marker = Marker()
        marker(frames[:1])
        began = time.process_time()
        marked = marker(frames)
        cost.append((time.process_time() - began) / len(frames))
        quality.append(10 * np.log10(255**2 / ((marked.astype(np.float32) - frames) ** 2).mean()))
        published = encode(marked, 18, "null")
        for name, steps in ATTACKS.items():
            shown = published
            for crf, change in steps:
                shown = encode(shown, crf, change)
            seen[name].append(detect(shown))
        for key in [PUBLIC_KEY, *(b"%d" % number for number in range(options.keys))]:
            unmarked.append(detect(frames[:SEGMENT], key).p)
        print(f"{path.name}: {', '.join(f'{marks[-1].score:.1f}' for marks in seen.values())}", file=sys.stderr)
    if not quality:
        raise SystemExit(f"voxface: no clips under {', '.join(map(str, folders))}: make some by voxface demo-corpus")
    where = f"{len(quality)} clips of {'demo and real corpus' if corpus else 'the demo corpus'}"
    board.check(
        "W1", "marked against unmarked", f"{min(quality):.1f} dB at least, {where}", ">= 42", min(quality) >= 42
    )
    milliseconds = float(np.median(cost)) * 1e3
    board.check("W2", f"cost per frame of {SIDE}", f"{milliseconds:.2f} ms of processor", "< 3", milliseconds < 3)
    for number, (name, marks) in enumerate(seen.items(), start=3):
        found, scores = sum(mark.found for mark in marks), [mark.score for mark in marks]
        figure = f"{found} of {len(marks)} found (p < {FOUND:g}); score {min(scores):.1f} to {max(scores):.1f}"
        board.tell(f"W{number}", name, figure)
    p = np.array(unmarked)
    figure = f"{(p < FOUND).sum()} of {len(p)} at p < {FOUND:g}; {(p < 0.01).sum()} below 0.01; least {p.min():.2g}"
    board.check("W9", "false positives, segments by keys", figure, "<= 1/1000", (p < FOUND).mean() <= 1e-3)
    return board.close()


if __name__ == "__main__":
    sys.exit(main())
