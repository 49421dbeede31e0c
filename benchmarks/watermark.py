"""What the invisible mark survives: clips are marked, encoded, attacked and looked at; so are unmarked ones.

    make bench-mark
    VOXFACE_CORPUS=DIR PYTHONPATH=.:tests python benchmarks/watermark.py --most 8 --segments 40

Clips are those of the demo corpus, which is made where it is missing, and of ``VOXFACE_CORPUS``. False positives:
segments of a second that nobody marked, each looked at for the public key and for other keys.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scoreboard import Scoreboard, at_least_one, ended

from contracts.errors import Misuse
from preprocessing.media.process import ffmpeg_binary
from serving.watermark import FOUND, PUBLIC_KEY, Mark, Marker, detect, look, summed

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
SHARES = {"as published": 1.0, "CRF 28": 0.9, "half size": 0.8, "10 % crop": 0.7}  # of the clips, to be found after it
FALSE = 1e-3  # share of unmarked segments that may be called marked


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


def clips(folders: list[Path], most: int, frames: int = FRAMES) -> Iterator[tuple[Path, np.ndarray]]:
    """Clips that can be read and last a second, with their first frames; spread over all there are."""
    files = [path for folder in folders for path in sorted(folder.glob("*.mp4"))]
    taken = 0
    for path in files[:: max(1, len(files) // most)]:
        try:
            shown = read(path, frames)
        except (subprocess.CalledProcessError, ValueError):
            continue
        if len(shown) >= SEGMENT and taken < most:
            taken += 1
            yield path, shown


def unmarked(folders: list[Path], segments: int, keys: int) -> np.ndarray:
    """p-values of up to so many segments that nobody marked, by the public key and so many others; [segments, keys]."""
    each = -(-segments // max(1, sum(1 for folder in folders for _ in folder.glob("*.mp4"))))
    found: list[list[float]] = []
    for _, frames in clips(folders, segments, each * SEGMENT):
        for start in range(0, len(frames) - SEGMENT + 1, SEGMENT):
            if len(found) < segments:
                total = summed(frames[start : start + SEGMENT])
                found.append([look(*total, key).p for key in (PUBLIC_KEY, *(b"%d" % n for n in range(keys)))])
    return np.array(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=at_least_one, default=20, help="clips that are marked and attacked")
    parser.add_argument("--segments", type=at_least_one, default=200, help="unmarked seconds that are looked at")
    parser.add_argument("--keys", type=at_least_one, default=8, help="wrong keys that each of them is tried with")
    options = parser.parse_args()
    folders = [made_demo() / "clips"]
    corpus = os.environ.get("VOXFACE_CORPUS")
    if corpus:
        folders.append(Path(corpus) / "clips")
    board = Scoreboard("bench-mark")
    survived(board, folders, options.most, "the demo corpus and VOXFACE_CORPUS" if corpus else "the demo corpus")
    p = unmarked(folders, options.segments, options.keys)
    falsely, bound = int((p < FOUND).sum()), (float((p < FOUND).sum()) + 3) / p.size
    figure = (
        f"{falsely} of {p.size} at p < {FOUND:g} ({len(p)} seconds by {p.shape[1]} keys; with 95 % below {bound:.2%}"
    )
    figure += f"); {(p < 0.01).sum()} below 0.01; least {p.min():.2g}; by the public key {(p[:, 0] < FOUND).sum()}"
    board.check("W9", "false positives", figure, f"at most {FALSE:.1%}", (p < FOUND).mean() <= FALSE)
    return board.close()


def survived(board: Scoreboard, folders: list[Path], most: int, where: str) -> None:
    """Mark clips, attack them, look for the mark; what marking costs and changes."""
    seen: dict[str, list[Mark]] = {name: [] for name in ATTACKS}
    quality, cost = [], []
    for path, frames in clips(folders, most):
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
        print(f"{path.name}: {', '.join(f'{marks[-1].score:.1f}' for marks in seen.values())}", file=sys.stderr)
    if not quality:
        raise Misuse(f"no clips under {', '.join(map(str, folders))}")
    figure = f"{min(quality):.1f} dB at least, {len(quality)} clips of {where}"
    board.check("W1", "marked against unmarked", figure, ">= 42", min(quality) >= 42)
    milliseconds = float(np.median(cost)) * 1e3
    board.check("W2", f"cost per frame of {SIDE}", f"{milliseconds:.2f} ms of processor", "< 3", milliseconds < 3)
    for number, (name, marks) in enumerate(seen.items(), start=3):
        found, scores = sum(mark.found for mark in marks), [mark.score for mark in marks]
        figure = f"{found} of {len(marks)} found (p < {FOUND:g}); score {min(scores):.1f} to {max(scores):.1f}"
        share = SHARES.get(name)
        if share is None:
            board.tell(f"W{number}", f"found after: {name}", figure)
        else:
            board.check(f"W{number}", f"found after: {name}", figure, f">= {share:.0%}", found >= share * len(marks))


def made_demo() -> Path:
    """The demo corpus in the work folder, made where it is missing."""
    from preprocessing.demo.corpus import make_demo_corpus

    return make_demo_corpus(Path(os.environ.get("VOXFACE_WORK", "work")) / "demo").parent


if __name__ == "__main__":
    sys.exit(ended(main))
