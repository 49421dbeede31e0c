"""A frozen split: on which side of training and validation each speaker stands, for good."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from contracts.errors import Corrupt
from contracts.files import commit_bytes
from contracts.settings import Settings, canonical_digest, canonical_json

Side = Literal["train", "val"]


class Split(Settings):
    """Sides by speaker. A speaker who is not in it yet stands where their own hash puts them."""

    schema_version: Literal[1] = 1
    seed: int
    share: float = Field(gt=0, lt=1)  # of the speakers, in validation
    speakers: dict[str, Side]

    def side(self, speaker: str) -> Side:
        """Where ``speaker`` stands; the same answer before and after :meth:`extended`."""
        return self.speakers.get(speaker) or ("val" if fraction(speaker, self.seed) < self.share else "train")

    def extended(self, speakers: Iterable[str]) -> Split:
        """This split with ``speakers`` in it: new ones are added, none moves or goes."""
        everyone = {**self.speakers, **{name: self.side(name) for name in speakers}}
        return self.model_copy(update={"speakers": dict(sorted(everyone.items()))})


def fraction(speaker: str, seed: int) -> float:
    """A number in 0..1 that depends on the speaker and the seed alone."""
    digest = hashlib.sha256(f"{seed}\n{speaker}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def balanced(genders: Mapping[str, str], share: float, seed: int) -> Split:
    """A split for a corpus too small to leave it to chance: of every gender, ``share`` of the speakers, rounded up, are
    in validation, those with the smallest :func:`fraction`; one of each stays in training.

    ``genders`` by speaker. (Hashes that fall below 0.2, one by one, leave out 4 to 14 of 38 speakers: a seed's luck.)

    >>> split = balanced({"ann": "f", "bea": "f", "carl": "m", "dan": "m", "ed": "m"}, 0.25, 0)
    >>> [name for name, side in split.speakers.items() if side == "val"]
    ['ann', 'ed']
    """
    sides: dict[str, Side] = dict.fromkeys(genders, "train")
    for gender in set(genders.values()):
        ranked = sorted((name for name in genders if genders[name] == gender), key=lambda n: (fraction(n, seed), n))
        for name in ranked[: min(math.ceil(share * len(ranked)), len(ranked) - 1)]:
            sides[name] = "val"
    return Split(seed=seed, share=share, speakers=dict(sorted(sides.items())))


def write_split(path: Path, split: Split) -> None:
    """Commit ``split`` with its digest."""
    sealed = split.model_dump(mode="json") | {"digest": split.digest()}
    commit_bytes(path, (canonical_json(sealed) + "\n").encode())


def read_split(path: Path) -> Split | None:
    """The split at ``path``, or ``None`` where there is none. Raises ``Corrupt`` where it was edited or damaged."""
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
        digest = values.pop("digest")
        split = Split.model_validate(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Corrupt(path, f"not a readable split: {str(error).splitlines()[0]}") from error
    actual = canonical_digest(values)
    if actual != digest:
        raise Corrupt(path, "is not what it was frozen as: restore it, or freeze another", str(digest), actual)
    return split
