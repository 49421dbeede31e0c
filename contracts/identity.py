"""The table of a dataset's faces: one embedding per sample, kept beside the shards and read to find leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import Corrupt

DIM = 128  # of an embedding
BITS = 64  # of a fingerprint
FOLDER = "scores"
NAME = "identity"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("tar_sha256", pa.string()),  # of the shard that holds the sample
        ("frame", pa.int64()),  # stored frame that was looked at; null for speech
        ("embedding", pa.list_(pa.float32())),  # [128]
        ("fingerprint", pa.string()),  # of the picture, 16 hexadecimal digits
    ]
)


@dataclass(frozen=True)
class Identities:
    """Samples with a face: ``keys`` [N], ``embeddings`` float32 [N, 128], ``fingerprints`` uint64 [N]."""

    keys: list[str]
    embeddings: np.ndarray
    fingerprints: np.ndarray


def identity_file(dataset: Path, digest: str) -> Path:
    """Where the embeddings made by the network of that digest lie: ``scores/identity@<digest>.parquet``."""
    return dataset / FOLDER / f"{NAME}@{digest[:12]}.parquet"


def read_identities(path: Path) -> Identities:
    """The faces in the table at ``path``. Raises ``Corrupt`` where it is none."""
    try:
        lines = [line for line in pq.read_table(path, schema=SCHEMA).to_pylist() if line["embedding"] is not None]
        embeddings = np.array([line["embedding"] for line in lines], np.float32).reshape(len(lines), DIM)
        fingerprints = np.array([int(line["fingerprint"], 16) for line in lines], np.uint64)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise Corrupt(path, f"not a readable table of faces: {error}") from error
    return Identities([line["key"] for line in lines], embeddings, fingerprints)
