"""What the rows break: datasets of random but repeatable samples, and a few real clips."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contracts.files import TEMPORARY, lock, sha256_file, sweep
from contracts.shards import committed, open_shard, write_shard

SHARDS = 16
FRAMES = 30  # of a clip


def samples_of(seed: int, number: int) -> tuple[list[tuple[str, dict[str, bytes]]], list[dict[str, Any]]]:
    """Samples and ledger lines of one shard: three to seven samples, and one refused row."""
    rng = random.Random(f"{seed}/{number}")
    samples, lines = [], []
    for row in range(rng.randint(3, 7)):
        key = f"drawn-{seed}-{number}-{row}-{rng.getrandbits(48):012x}"
        members = {name: rng.randbytes(rng.randint(100, 40_000)) for name in ("frames", "npz", "wav")}
        samples.append((f"{key}-s00", members | {"json": b"{}"}))
        facts = {"row": 100 * number + row, "state": "kept", "kind": "clip"}
        lines += [facts | {"level": "row", "key": key}, facts | {"level": "span", "key": f"{key}-s00", "span": 0}]
    refused = {"level": "row", "key": f"drawn-{seed}-{number}-refused", "state": "rejected", "reason": "NO_FACE"}
    return samples, [*lines, refused | {"row": 100 * number + 99}]


def complete(dataset: Path, seed: int, shards: int = SHARDS) -> None:
    """Make the shards that are missing, as ingestion does: under the lock, swept, by their records."""
    with lock(dataset):
        sweep(dataset)
        for number in range(shards):
            standing = open_shard(dataset, number)
            if standing is None or standing.record.rows != [f"{seed}/{number}"]:
                samples, lines = samples_of(seed, number)
                write_shard(dataset, number, samples, lines, steps={"clip": "steps"}, rows=[f"{seed}/{number}"])


def digests(dataset: Path) -> dict[str, str]:
    """SHA-256 of every file of every shard, by name."""
    return {path.name: sha256_file(path) for path in sorted(dataset.glob("shard-*"))}


def leftovers(dataset: Path) -> int:
    """Temporary files that a killed writer left."""
    return len(list(dataset.glob(f"{TEMPORARY}*")))


def lost_and_doubled(dataset: Path, expected: list[str]) -> tuple[int, int]:
    """How many of the ``expected`` samples no shard holds, and how many stand more than once."""
    found = Counter(key for shard in committed(dataset) for key in shard.offsets)
    return sum(key not in found for key in expected), sum(count - 1 for count in found.values())


def portraits() -> np.ndarray:
    """A face that sways, uint8 RGB [T, 320, 320, 3]: the portrait of scikit-image's wheel (public domain)."""
    import cv2
    from skimage import data

    still = np.ascontiguousarray(data.astronaut()[:400, 24:424])

    def pictures() -> Iterator[np.ndarray]:
        for t in range(FRAMES):
            turn = cv2.getRotationMatrix2D((200, 120), 6 * np.sin(t / 5), 0.8 + 0.03 * np.sin(t / 7))
            turn[:, 2] += (-40 + 6 * np.sin(t / 4), -10 + 4 * np.cos(t / 6))
            yield cv2.warpAffine(still, turn, (320, 320), borderMode=cv2.BORDER_REFLECT)

    return np.stack(list(pictures()))


def record_clips(folder: Path, clips: int) -> Path:
    """``talk-0.mp4`` and so on, ``face.png``, ``speech.wav``, an empty file; the manifest. Sounds differ."""
    import cv2

    from contracts.sample import encode_wav
    from preprocessing.media import encode_video

    folder.mkdir(parents=True, exist_ok=True)
    pictures = portraits()
    t = np.arange(640 * FRAMES) / 16000
    for clip in range(clips):
        tone = 0.3 * np.sin(2 * np.pi * (150 + 20 * clip) * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t))
        encode_video(folder / f"talk-{clip}.mp4", iter(pictures), tone.astype(np.float32))
    cv2.imwrite(str(folder / "face.png"), pictures[0][..., ::-1])
    (folder / "speech.wav").write_bytes(encode_wav((tone * 32767).astype(np.int16)))
    (folder / "nothing.mp4").write_bytes(b"")
    names = [f"talk-{clip}.mp4" for clip in range(clips)] + ["face.png", "speech.wav", "nothing.mp4"]
    manifest = folder / "manifest.csv"
    manifest.write_text("file,speaker\n" + "".join(f"{name},s{i}\n" for i, name in enumerate(names)))
    return manifest


def until(happened: Any, seconds: float = 60.0) -> bool:
    """Wait for ``happened()`` to hold; whether it did in time."""
    ended = time.monotonic() + seconds
    while not (held := happened()) and time.monotonic() < ended:
        time.sleep(0.02)
    return bool(held)
