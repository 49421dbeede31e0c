"""What safetensors files hold, read without torch: the shapes of their tensors, and whether every value is finite."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts.errors import Corrupt

# unsigned words of a type, and the bits of its exponent: where all of them are set, the value is infinite or none
FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
WHOLE = frozenset({"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"})
BLOCK = 1 << 22  # values looked at together: 32 MB at most


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its name, type and shape, and the bytes ``start`` to ``end`` of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def stored(path: Path) -> Iterator[Stored]:
    """The tensors of the safetensors file at ``path``, from its header alone. Raises ``Corrupt`` for no such file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = (int(offset) + 8 + length for offset in entry["data_offsets"])
            if not 8 + length <= start <= end <= size:
                raise ValueError(f"{name} lies outside of the file")
            yield Stored(name, str(entry["dtype"]), tuple(map(int, entry["shape"])), start, end)
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Corrupt(path, f"not a safetensors file: {line}") from error


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name of all safetensors files in ``folder``. Raises ``Corrupt`` where a header is none."""
    return {tensor.name: tensor.shape for path in sorted(folder.glob("*.safetensors")) for tensor in stored(path)}


def check_finite(path: Path) -> None:
    """Raise ``Corrupt`` unless every value of every tensor in the safetensors file is finite.

    A digest tells that a file is as it was written, not that a training ended well; safetensors has no such rule.
    """
    for tensor in stored(path):
        if tensor.kind in WHOLE:
            continue
        if tensor.kind not in FLOATS:
            raise Corrupt(path, f"{tensor.name} has the type {tensor.kind!r}, which is not one of ours")
        words, exponent = FLOATS[tensor.kind]
        kind = np.dtype(words)
        left = (tensor.end - tensor.start) // kind.itemsize
        with path.open("rb") as file:
            file.seek(tensor.start)
            while left:
                values = np.fromfile(file, kind, min(left, BLOCK))
                left -= len(values)
                if not len(values):
                    raise Corrupt(path, f"{tensor.name} ends before its time")
                if ((values & kind.type(exponent)) == exponent).any():
                    raise Corrupt(path, f"{tensor.name} is not finite")
