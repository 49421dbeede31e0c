"""Whose face a sample shows: one embedding per sample, made in a pass over the shards, to find a person twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from contracts.files import commit, lock
from contracts.identity import BITS, DIM, SCHEMA, identity_file
from contracts.sample import Frames, decode_features
from contracts.settings import canonical_digest
from contracts.shards import Shard, committed, open_shard
from preprocessing.faces import model_folder

VERSION = 1  # raise it when an embedding changes
WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
CORNERS = "shape_predictor_5_face_landmarks.dat"
BOX = 0.9  # side of dlib's box over the height from brow to chin
Progress = Callable[[int, int, str], None]


def embed(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit-free embedding float32 [128] of the face in uint8 RGB [H, W, 3]; ``points`` [478, 3] in 0..1 of it.

    dlib's ResNet (D. King, 2017): two pictures of one person are closer than 0.6 (Euclidean), by its author.
    """
    corners, network = _models()
    height, width = image.shape[:2]
    low, high = points[:, :2].min(0) * (width, height), points[:, :2].max(0) * (width, height)
    middle, half = (low + high) / 2, BOX * (high[1] - low[1]) / 2
    box = dlib.rectangle(*(round(float(edge)) for edge in (*(middle - half), *(middle + half))))
    picture = np.ascontiguousarray(image)
    return np.array(network.compute_face_descriptor(picture, corners(picture, box)), np.float32)


def fingerprint(image: np.ndarray) -> int:
    """64 bits of the picture uint8 [H, W, 3]: whether each of 8 x 8 patches is brighter than its right neighbour.

    The difference hash: a picture stored again at another size or quality differs in a few bits.
    """
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    levels = np.asarray(grey, np.int16)
    return int(np.packbits(levels[:, 1:] > levels[:, :-1]).view(">u8")[0])


def measure_identity(dataset: Path, *, workers: int = 1, progress: Progress | None = None) -> Path:
    """Embed what ``dataset`` lacks, one stored frame per sample; return the table (``contracts.identity``).

    Samples of shards that stand unchanged keep their line. Raises ``Corrupt`` for a damaged dataset.
    """
    out = identity_file(dataset, _digest())
    with lock(out.parent):
        before = pq.read_table(out).to_pylist() if out.is_file() else []
        known: dict[str, list[dict[str, Any]]] = {}
        for line in before:
            known.setdefault(line["tar_sha256"], []).append(line)
        shards = list(committed(dataset))
        todo = [shard for shard in shards if shard.record.keys and shard.record.tar_sha256 not in known]
        made: dict[str, list[dict[str, Any]]] = {}
        total = sum(len(shard.record.keys) for shard in todo)
        for shard, lines in _run(todo, workers):
            made[shard.record.tar_sha256] = lines
            if progress is not None:
                done = sum(len(other.record.keys) for other in todo if other.record.tar_sha256 in made)
                progress(done, total, "faces embedded")
        lines = [line for s in shards for line in (known | made).get(s.record.tar_sha256, [])]
        if lines != before or not out.is_file():
            with commit(out) as file:
                pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), file)
    return out


def _run(shards: list[Shard], workers: int) -> Iterator[tuple[Shard, list[dict[str, Any]]]]:
    if workers < 2 or len(shards) < 2:
        for shard in shards:
            yield shard, embed_shard(shard.folder, shard.record.shard)
        return
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=get_context("spawn")) as pool:
        numbers = [shard.record.shard for shard in shards]
        yield from zip(shards, pool.map(embed_shard, [shard.folder for shard in shards], numbers))


def embed_shard(dataset: Path, number: int) -> list[dict[str, Any]]:
    """The lines of one shard's samples; speech has no face and no line with an embedding."""
    shard = open_shard(dataset, number)
    assert shard is not None  # the caller has opened it
    lines = []
    for key in shard.record.keys:
        members = shard.read(key, ("frames", "npz"))
        line: dict[str, Any] = {"key": key, "tar_sha256": shard.record.tar_sha256, "frame": None}
        if "frames" in members:
            features = decode_features(members["npz"], ("landmarks", "landmarks_found"))
            seen = np.flatnonzero(features["landmarks_found"])
            frame = int(seen[len(seen) // 2])
            with Image.open(io.BytesIO(Frames(members["frames"])[frame])) as stored:
                image = np.asarray(stored.convert("RGB"))
            line |= {"frame": frame, "embedding": embed(image, features["landmarks"][frame]).tolist()}
            line["fingerprint"] = f"{fingerprint(image):0{BITS // 4}x}"
        lines.append(line)
    return lines


@cache
def _digest() -> str:
    """Identity of what makes the embeddings: weights, code version, shape of the result."""
    digests = [hashlib.sha256((model_folder() / name).read_bytes()).hexdigest() for name in (WEIGHTS, CORNERS)]
    return canonical_digest([VERSION, DIM, BITS, digests])


@cache
def _models() -> tuple[Any, Any]:
    folder = model_folder()
    return dlib.shape_predictor(str(folder / CORNERS)), dlib.face_recognition_model_v1(str(folder / WEIGHTS))
