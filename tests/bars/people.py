"""Who is learnt from and who is tested on: manifests, or committed datasets, become two frozen splits.

``new``: speakers never seen. ``known``: unseen seconds of those learnt from (training.data). Where one corpus is given
for both, the rule of ``contracts.split.balanced`` keeps a quarter of each gender's speakers for the test; it is written
to ``split.json`` at the first run and holds from then on, whoever joins.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import Misuse
from contracts.index import read_index, samples
from contracts.selection import Chosen, Selection
from contracts.shards import committed
from contracts.split import balanced, read_split, write_split
from flows.choice import choose, speaker_of
from flows.params import SelectionParams, read_params
from training.data import verify
from training.prove import SHARE
from training.stages import Half

CORPUS = "VOXFACE_CORPUS"
USED = "group in ('clips', 'faces', 'speech')"  # of the corpus's table; the rest of it is there to be refused
DEMO_SPEAKERS = 12


@dataclass(frozen=True)
class People:
    """Both halves, the name of what they are, and the folder that keeps what is made of them."""

    name: str
    learn: Half
    test: Half
    folder: Path


def gather(work: Path, train: Path | None, test: Path | None) -> People:
    """Ingest what is not yet and split it. Raises ``Misuse`` where a manifest is missing or both hold the same people.

    ``train``, ``test``: manifests or committed datasets; one alone is split by the rule; without them the corpus of
    ``VOXFACE_CORPUS``, else the demo corpus.
    """
    if train is not None and test is not None and train.resolve() != test.resolve():
        return _two(work, train, test)
    given = train or test
    corpus = os.environ.get(CORPUS)
    if given is not None:
        name, dataset = given.stem, _dataset(work, given)
    elif corpus:
        name, dataset = "corpus", _ingest(work, Path(corpus) / "corpus.csv", work / "prove" / "data" / "corpus", USED)
    else:
        name, dataset = "demo", _demo(work)
    folder = work / "prove" / name
    half = Half(dataset, _split(dataset, folder))
    return People(name, half, half, folder)


def _split(dataset: Path, folder: Path) -> Selection:
    params = read_params().selection
    file = folder / "split.json"
    if read_split(file) is None:
        chosen = {sample.key for sample in choose(dataset, _without_split(params))[0].samples}
        lines = [line for line in samples(read_index(dataset)).to_pylist() if line["key"] in chosen]
        people = {speaker_of(line): line["gender"] or "unknown" for line in lines if line["kind"] == "clip"}
        write_split(file, balanced(people, SHARE, params.seed))
    return choose(dataset, params.model_copy(update={"split": str(file)}))[0]


def _two(work: Path, train: Path, test: Path) -> People:
    folder = work / "prove" / f"{train.stem}-{test.stem}"
    learn, other = (_whole(_dataset(work, given), side) for given, side in ((train, "train"), (test, "val")))
    seen = {sample.speaker for sample in learn.selection.samples}
    left = tuple(sample for sample in other.selection.samples if sample.speaker not in seen)
    if not left:
        raise Misuse(f"{test} holds nobody who is not in {train}: the test needs other people, by other names")
    return People(folder.name, learn, Half(other.dataset, other.selection.model_copy(update={"samples": left})), folder)


def _whole(dataset: Path, side: str) -> Half:
    """What the default rules leave of a dataset, all on one side."""
    chosen = choose(dataset, _without_split(read_params().selection))[0]
    moved = tuple(Chosen.model_validate(sample.model_dump() | {"split": side}) for sample in chosen.samples)
    return Half(dataset, chosen.model_copy(update={"samples": moved}))


def _without_split(params: SelectionParams) -> SelectionParams:
    return params.model_copy(update={"split": ""})


def _dataset(work: Path, given: Path) -> Path:
    if given.is_dir() and committed(given):
        return given
    if not given.is_file():
        raise Misuse(f"{given} is neither a manifest nor a committed dataset")
    return _ingest(work, given, work / "prove" / "data" / given.stem, "")


def _demo(work: Path) -> Path:
    demo = work / "demo"
    _voxface(work, "demo-corpus", str(demo), "--speakers", str(DEMO_SPEAKERS))
    return _ingest(work, demo / "manifest.csv", work / "dataset", "")


def _ingest(work: Path, manifest: Path, dataset: Path, where: str) -> Path:
    """Whether anything is to be done the command finds out by itself, in a second."""
    words = ["--manifest", str(manifest), "--data-root", str(manifest.parent), "--out", str(dataset)]
    _voxface(work, "ingest", *words, *(["--where", where] if where else []), accepted=(0, 1))
    return dataset


def _voxface(work: Path, *words: str, accepted: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, "-m", "flows", *words, "--work", str(work)], stdout=subprocess.DEVNULL)
    if done.returncode not in accepted:
        raise Misuse(f"voxface {' '.join(words)} ended with {done.returncode}")


def check(people: People) -> None:
    """Every digest of what will be read. Raises ``Corrupt``."""
    for half in (people.learn, people.test):
        verify(half.dataset, half.selection)
