"""Bytes made wrong at random: flips, cuts, splices, numbers on the edge; the same generator gives the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
HEAD = 1024  # bytes at either end where most formats keep what they say of themselves


def mutate(rng: np.random.Generator, data: bytes, others: Sequence[bytes]) -> bytes:
    """``data`` after one to four changes, parts of ``others`` among them."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        change(rng, out, others)
    return bytes(out)


def _at(rng: np.random.Generator, out: bytearray) -> int:
    """A place: anywhere, or near either end, where the headers are."""
    if not out:
        return 0
    span = min(len(out), HEAD)
    where = int(rng.integers(3))
    return int(
        rng.integers(len(out))
        if where == 0
        else rng.integers(span)
        if where == 1
        else len(out) - 1 - rng.integers(span)
    )


def _flip(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(int(rng.integers(1, 9)) if out else 0):
        out[_at(rng, out)] ^= 1 << int(rng.integers(8))


def _noise(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    at, size = _at(rng, out), int(rng.integers(1, 257))
    size = min(size, len(out) - at)
    out[at : at + size] = rng.integers(0, 256, size, np.uint8).tobytes()


def _zeros(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    at = _at(rng, out)
    size = min(int(rng.integers(1, 4097)), len(out) - at)
    out[at : at + size] = bytes(size)


def _chop(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    del out[int(rng.integers(len(out) + 1)) :]


def _drop(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    at = _at(rng, out)
    del out[at : at + int(rng.integers(1, 1025))]


def _repeat(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    at = _at(rng, out)
    part = out[at : at + int(rng.integers(1, 1025))]
    out[at:at] = part * int(rng.integers(1, 9))


def _splice(rng: np.random.Generator, out: bytearray, others: Sequence[bytes]) -> None:
    other = others[int(rng.integers(len(others)))]
    start = int(rng.integers(len(other) + 1))
    part = other[start : start + int(rng.integers(1, 8193))]
    at = _at(rng, out)
    if rng.integers(2):
        out[at : at + len(part)] = part
    else:
        out[at:at] = part


def _number(rng: np.random.Generator, out: bytearray, _: Sequence[bytes]) -> None:
    """A field set to a number that programs get wrong."""
    value, form = EDGES[int(rng.integers(len(EDGES)))], (">I", "<I", ">H", "<H")[int(rng.integers(4))]
    at = _at(rng, out) & ~3 if rng.integers(2) else _at(rng, out)
    if at + struct.calcsize(form) <= len(out):
        struct.pack_into(form, out, at, value & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))


CHANGES = (_flip, _flip, _noise, _zeros, _chop, _drop, _repeat, _splice, _number, _number)
