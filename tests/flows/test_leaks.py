"""A split is frozen for good, and what stands on both sides of it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Corrupt, Misuse
from contracts.identity import DIM, Identities
from contracts.split import Split, read_split, write_split
from flows.choice import choose, freeze
from flows.leaks import find_leaks
from flows.params import SelectionParams

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=15, unique=True)


def sample(key: str, speaker: str, source: str = "") -> dict[str, Any]:
    return {"key": key, "speaker": speaker, "source_sha256": source or key, "kind": "clip", "gender": "f", "frames": 25}


def faces(of: dict[str, list[float]], prints: dict[str, int] | None = None) -> Identities:
    """Embeddings with the given first entries; pictures all different unless given."""
    rows = np.zeros((len(of), DIM), np.float32)
    for place, start in enumerate(of.values()):
        rows[place, : len(start)] = start
    bits = [(prints or {}).get(key, 0xFF << (8 * place)) for place, key in enumerate(of)]
    return Identities(list(of), rows, np.array(bits, np.uint64))


SPLIT = Split(seed=0, share=0.5, speakers={"ann": "train", "bea": "val", "carl": "val", "Ann": "val"})


@given(NAMES, NAMES, st.integers(0, 3))
def test_new_speakers_are_added_and_old_ones_never_move(old: list[str], new: list[str], seed: int) -> None:
    params = SelectionParams(seed=seed)
    first = freeze([sample(name, name) for name in old], params, None)
    later = freeze([sample(name, name) for name in new], params.model_copy(update={"val_share": 0.9}), first)
    assert {name: later.speakers[name] for name in old} == first.speakers
    assert set(later.speakers) == {*old, *new}
    assert all(first.side(name) == later.side(name) for name in [*old, *new, "someone else"])
    assert freeze([sample(name, name) for name in reversed(old)], params, None) == first


def test_a_split_that_was_edited_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert read_split(path) is None
    write_split(path, SPLIT)
    assert read_split(path) == SPLIT
    told = json.loads(path.read_bytes())
    told["speakers"]["ann"] = "val"
    path.write_text(json.dumps(told))
    with pytest.raises(Corrupt, match="frozen"):
        read_split(path)


def test_what_is_apart_is_no_leak() -> None:
    lines = [sample("a", "ann"), sample("b", "bea")]
    assert find_leaks(lines, SPLIT.side, faces({"a": [0.0], "b": [1.0]})) == []


@pytest.mark.parametrize(
    ("what", "lines", "known"),
    [
        ("speaker", [sample("a", "ann"), sample("b", "Ann")], None),
        ("source", [sample("a", "ann", "same"), sample("b", "bea", "same")], None),
        ("face", [sample("a", "ann"), sample("b", "bea")], faces({"a": [0.0], "b": [0.3, 0.3]})),
        ("picture", [sample("a", "ann"), sample("b", "bea")], faces({"a": [0.0], "b": [1.0]}, {"a": 7, "b": 0})),
    ],
)
def test_a_leak_is_named(what: str, lines: list[dict[str, Any]], known: Identities | None) -> None:
    (leak,) = find_leaks(lines, SPLIT.side, known)
    assert (leak["what"], leak["train"], leak["val"], leak["pairs"]) == (what, "a", "b", 1)
    assert (leak["train_speaker"], leak["val_speaker"]) == (lines[0]["speaker"], lines[1]["speaker"])


def test_the_nearest_pair_of_two_speakers_stands_for_all() -> None:
    lines = [sample("a", "ann"), sample("a2", "ann"), sample("b", "bea"), sample("c", "carl")]
    (leak,) = find_leaks(lines, SPLIT.side, faces({"a": [0.0], "a2": [0.1], "b": [0.3], "c": [2.0]}))
    assert (leak["train"], leak["pairs"], leak["distance"]) == ("a2", 2, 0.2)


def test_a_selection_goes_by_the_frozen_split(small_dataset: Any, tmp_path: Path) -> None:
    sides = {f"s{i}": ("val" if i == 3 else "train") for i in range(7)}
    write_split(tmp_path / "split.json", Split(seed=0, share=0.3, speakers=sides))
    selection, _ = choose(small_dataset.dataset, SelectionParams(split=str(tmp_path / "split.json")))
    val = {chosen.speaker for chosen in selection.samples if chosen.split == "val"}
    assert val - {"s7"} == {"s3"}  # s7 is new: its own hash decides
    assert selection.split == read_split(tmp_path / "split.json").digest()
    with pytest.raises(Misuse, match="voxface dataset split"):
        choose(small_dataset.dataset, SelectionParams(split=str(tmp_path / "none.json")))
