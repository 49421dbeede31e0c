"""LRS2 (BBC) and LRS3 (TED): lists of clips that are handed out already cut and cropped around one face.

LRS2: ``train.txt``, ``val.txt``, ``test.txt``, ``pretrain.txt`` with ``<video>/<clip>`` a line, in ``test.txt``
followed by ``NF`` or ``MV`` (kept as ``extra.tag``); a list of samples, ``<video>/<clip>.mp4, TRANSCRIPT``; and
pairs for evaluation, ``<clip that is heard> <clip that is seen>``. LRS3: such lists with ``<set>/<video>/<clip>``,
or AV-HuBERT's manifests (``.tsv``): the root, then ``id TAB video TAB audio TAB frames TAB samples``.
In a folder, transcripts and pairs are added to the clips of the lists; a file alone is read for itself.
LRS2 is under the BBC's agreement for research; LRS3 is CC BY-NC-ND 4.0 as TED's talks are.

The media, always clips: LRS2 ``main/<video>/<clip>.mp4`` (``pretrain/`` for that list); LRS3
``<set>/<video>/<clip>.mp4``, with a ``.tsv`` whatever its video column says (``--media``
overrides it). Fields: set, video, clip.
Nobody is named in either: the speaker stays unknown, the broadcast or talk is ``extra.video``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, Media
from preprocessing.corpora.lines import bad, row_or_bad, text_lines, whole

VIDEOS: dict[str, str] = {}
CLIPS = {"lrs2": "{set}/{video}/{clip}.mp4", "lrs3": "{set}/{video}/{clip}.mp4"}
FIELDS = frozenset({"set", "video", "clip"})
HANDED_OUT_AS_CLIPS = frozenset({"lrs2", "lrs3"})
LICENCES = {"lrs2": "BBC research agreement", "lrs3": "CC BY-NC-ND 4.0"}
STEMS = {
    "lrs2": re.compile(r"(?P<set>)(?P<video>\d{10,20})/(?P<clip>\d{5})"),
    "lrs3": re.compile(r"(?P<set>pretrain|trainval|test)/(?P<video>[A-Za-z0-9_-]{1,20})/(?P<clip>\d{5})"),
}
TAGS = frozenset({"NF", "MV"})


def read(corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
    """The clips of ``annotations``, a list or a folder of lists, in the order of the files' names.

    A clip that two lists name is a bad line the second time.
    """
    files = sorted(annotations.glob("*.t[xs][tv]")) if annotations.is_dir() else [annotations]
    if not files or not files[0].is_file():
        raise Misuse(
            f"{annotations} is no list and holds none (.txt, .tsv): give the lists of {corpus} or their folder"
        )
    files.sort(key=lambda path: (_split(path) is None, path.name))  # transcripts and pairs after what they belong to
    found: dict[str, dict[str, Any]] = {}
    places: dict[str, tuple[str, int]] = {}
    told: list[BadLine] = []
    for path in files:
        for item in _file(corpus, path, media):
            if isinstance(item, BadLine):
                told.append(item)
                continue
            number, values = item
            stem, listed = values["id"], _split(path) is not None
            if stem in found and listed:
                told.append(
                    bad(path.name, number, f"{stem} stands in {places[stem][0]} line {places[stem][1]} already")
                )
            elif stem in found:
                found[stem] = values | found[stem]
            else:
                found[stem], places[stem] = values, (path.name, number)
    for stem, values in found.items():
        yield row_or_bad(*places[stem], values)
    yield from told


def _split(path: Path) -> str | None:
    """``train`` for train.txt or train_first2000.txt; None for files that are no list of a split."""
    match = re.match(r"(pretrain|trainval|train|val(?:id)?|test)(?=[._-]|$)", path.stem.lower())
    return match.group(1) if match else None


def _file(corpus: str, path: Path, media: Media) -> Iterator[tuple[int, dict[str, Any]] | BadLine]:
    for line in text_lines(path, path.name):
        if isinstance(line, BadLine):
            yield line
        elif path.suffix != ".tsv":
            try:
                yield line[0], _listed(corpus, path, line[1], media)
            except ValueError as error:
                yield bad(path.name, line[0], str(error))
        elif line[0] > 1:
            try:
                yield line[0], _hubert(corpus, path, line[1], media)
            except ValueError as error:
                yield bad(path.name, line[0], str(error))


def _listed(corpus: str, path: Path, text: str, media: Media) -> dict[str, Any]:
    """A line of a list, of the samples with their transcripts, or of the pairs."""
    stem, comma, words = text.partition(", ")
    if comma:
        return _values(corpus, path, stem.removesuffix(".mp4"), media) | {"text": words.strip()}
    cells = text.split()
    if len(cells) == 1:
        return _values(corpus, path, cells[0], media)
    if len(cells) == 2 and cells[1] in TAGS:
        return _values(corpus, path, cells[0], media) | {"tag": cells[1]}
    if len(cells) == 2 and _split(path) is None and STEMS[corpus].fullmatch(cells[0]):
        return _values(corpus, path, cells[1], media) | {"paired_audio": cells[0]}
    raise ValueError(f"{text[:80]!r} is no clip, clip with a tag, transcript or pair")


def _hubert(corpus: str, path: Path, text: str, media: Media) -> dict[str, Any]:
    cells = text.split("\t")
    if len(cells) != 5:
        raise ValueError(f"{len(cells)} fields, 5 are needed")
    values = _values(corpus, path, cells[0], media)
    if media.template == CLIPS[corpus]:
        values["file"] = cells[1]
    return values | {"listed_frames": whole(cells[3], "frames"), "listed_samples": whole(cells[4], "samples")}


def _values(corpus: str, path: Path, stem: str, media: Media) -> dict[str, Any]:
    match = STEMS[corpus].fullmatch(stem)
    if match is None:
        shape = "<set>/<video>/<clip>" if corpus == "lrs3" else "<video>/<clip>"
        raise ValueError(f"{stem[:80]!r} is no clip of {corpus}, {shape}")
    split = _split(path)
    kept_in = match["set"] or ("pretrain" if split == "pretrain" else "main")
    return {
        "file": media.file(set=kept_in, video=match["video"], clip=match["clip"]),
        "id": stem,
        "corpus": corpus,
        "language": "en",
        "licence": LICENCES[corpus],
        "split": split or match["set"] or None,
        "video": match["video"],
    }
