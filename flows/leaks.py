"""What stands on both sides of a split and should not: a speaker, a source, a picture, a face."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from contracts.identity import Identities

# Distance below which two faces count as one person's. On 174 corpus samples 0.5 finds 88 % of 86 pairs of one speaker,
# and 13 of 14 965 pairs of speakers named differently; of those looked at (five) each is one person. The first pair
# seen to be wrong is at 0.517. The network's author says 0.6: there it finds 99 %, and 59 pairs of speakers named
# differently.
FACE_DISTANCE = 0.5
PICTURE_BITS = 3
BLOCK = 2048  # rows of distances at once

Line = dict[str, Any]
Leak = dict[str, Any]


def find_leaks(
    lines: Iterable[Line],
    side: Callable[[str], str],
    faces: Identities | None,
    distance: float = FACE_DISTANCE,
    copy_of: Mapping[str, str] | None = None,
) -> list[Leak]:
    """Pairs of speakers, one on each side, that share something; ``lines`` are samples with ``speaker`` named.

    Each says ``what`` (``speaker``: names that differ in case, accents or signs only; ``source``: the same bytes;
    ``copy``: the same recording by ``copy_of``, key to key; ``picture``: nearly the same stored frame; ``face``: closer
    than ``distance``), both speakers, the nearest pair's keys, how many ``pairs``, and that one's ``distance``.
    ``faces`` None: pictures and faces are not compared.
    """
    by_key = {line["key"]: line for line in lines}
    leaks = [*_shared("speaker", by_key, side, lambda line: plain(line["speaker"]))]
    first = copy_of or {}
    leaks += _shared("copy", by_key, side, lambda line: first.get(line["key"], line["key"]))
    leaks += _shared("source", by_key, side, lambda line: line["source_sha256"] or "")
    if faces is not None:
        leaks += _alike(by_key, side, faces, distance)
    return sorted(leaks, key=lambda leak: (leak["what"], leak["train_speaker"], leak["val_speaker"]))


def plain(name: str) -> str:
    """A name without case, accents and signs.

    >>> plain("Zoë K. ") == plain("zoe-k")
    True
    """
    letters = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[\W_]+", "", "".join(c for c in letters if not unicodedata.combining(c))) or name


def _shared(
    what: str, by_key: dict[str, Line], side: Callable[[str], str], mark: Callable[[Line], str]
) -> Iterator[Leak]:
    groups: dict[str, dict[str, list[Line]]] = defaultdict(lambda: {"train": [], "val": []})
    for line in by_key.values():
        if mark(line):
            groups[mark(line)][side(line["speaker"])].append(line)
    for group in groups.values():
        pairs: dict[tuple[str, str], list[tuple[Line, Line]]] = defaultdict(list)
        for train in group["train"]:
            for val in group["val"]:
                pairs[train["speaker"], val["speaker"]].append((train, val))
        for found in pairs.values():
            yield _leak(what, *found[0], len(found), None)


def _alike(by_key: dict[str, Line], side: Callable[[str], str], faces: Identities, distance: float) -> Iterator[Leak]:
    inside = [place for place, key in enumerate(faces.keys) if key in by_key]
    sides = {name: [i for i in inside if side(by_key[faces.keys[i]]["speaker"]) == name] for name in ("train", "val")}
    for what, measure, limit in (("face", _distances, distance), ("picture", _bits, PICTURE_BITS + 0.5)):
        pairs: dict[tuple[str, str], list[tuple[float, Line, Line]]] = defaultdict(list)
        for start in range(0, len(sides["train"]), BLOCK):
            block = sides["train"][start : start + BLOCK]
            apart = measure(faces, block, sides["val"])
            for i, j in np.argwhere(apart < limit):
                train, val = by_key[faces.keys[block[i]]], by_key[faces.keys[sides["val"][j]]]
                pairs[train["speaker"], val["speaker"]].append((float(apart[i, j]), train, val))
        for found in pairs.values():
            nearest = min(found, key=lambda pair: (pair[0], pair[1]["key"], pair[2]["key"]))
            yield _leak(what, nearest[1], nearest[2], len(found), nearest[0])


def _distances(faces: Identities, rows: list[int], columns: list[int]) -> np.ndarray:
    """Euclidean distances [R, C] of embeddings."""
    a, b = (faces.embeddings[places].astype(np.float64) for places in (rows, columns))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def _bits(faces: Identities, rows: list[int], columns: list[int]) -> np.ndarray:
    """Differing bits [R, C] of fingerprints."""
    a, b = (faces.fingerprints[places].astype(">u8") for places in (rows, columns))
    unpacked = [np.unpackbits(x.view(np.uint8).reshape(len(x), 8), axis=1).astype(np.float32) for x in (a, b)]
    x, y = unpacked
    return x.sum(1)[:, None] + y.sum(1)[None] - 2 * x @ y.T


def _leak(what: str, train: Line, val: Line, pairs: int, distance: float | None) -> Leak:
    return {
        "what": what,
        "train_speaker": train["speaker"],
        "val_speaker": val["speaker"],
        "train": train["key"],
        "val": val["key"],
        "pairs": pairs,
        "distance": None if distance is None else round(distance, 3),
    }
