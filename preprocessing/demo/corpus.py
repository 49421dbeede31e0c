"""The files of the demo corpus: clips, stills, a few clips that must be refused, and the manifest."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.files import TEMPORARY, commit_bytes, lock, require_space, sha256_file, sha256_tree, sync_folder
from contracts.reasons import Reason
from contracts.settings import canonical_json
from preprocessing.demo.cast import SENTENCES, Speaker, cast

log = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
RECORD = "demo.json"  # written last: recipe, and digests of all files
STARTED = "demo.part.json"  # written first: the recipe that the files here follow
LICENCE = "public domain (NASA)"
CONSENT = "not needed: an invented person"
FPS_FILM, FPS_NTSC = 24.0, 30000 / 1001
_BYTES_A_FILE = 1_000_000
_COLUMNS = ("file", "id", "speaker", "gender", "language", "licence", "consent", "kind", "corpus")
_EXPECTED = ("expected", "expected_reason")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Item:
    """One file to make: its name under the corpus folder, its manifest line, and what writes it to a path."""

    name: str
    line: dict[str, str]
    write: Callable[[Path], None]


def make_demo_corpus(
    out: Path, *, seed: int = 0, speakers: int = 12, sentences: int = 3, progress: Progress | None = None
) -> Path:
    """Make the demo corpus in folder ``out`` and return the path of its manifest.

    ``speakers`` people (the first twelve are drawn by hand, further ones are mixed from them) say ``sentences``
    sentences each and give two stills each; six more files are there to be refused or have odd names. The columns
    ``expected`` and ``expected_reason`` say what ingestion should do with each line. Equal arguments give equal bytes.

    A complete corpus of the same recipe is left as it is; an incomplete or damaged one is mended file by file.
    Raises ``Misuse`` where ``out`` holds something else, ``Transient`` where the disk is full.
    """
    if speakers < 1 or sentences < 1:
        raise Misuse(f"a demo corpus needs at least one speaker and one sentence, got {speakers} and {sentences}")
    recipe = {"seed": seed, "speakers": speakers, "sentences": sentences, "code": _code_digest()}
    manifest = out / MANIFEST
    if _complete(out, recipe):
        return manifest
    _refuse_foreign(out)
    with lock(out):
        digests = _digests(out, recipe)
        items = _items(out, cast(speakers, seed), seed, sentences)
        require_space(out, _BYTES_A_FILE * len(items))
        (out / RECORD).unlink(missing_ok=True)
        commit_bytes(out / STARTED, canonical_json(recipe).encode())
        for number, item in enumerate(items):
            if progress:
                progress(number, len(items), item.name)
            path = out / item.name
            if digests is None or not path.is_file() or digests.get(item.name, "") not in ("", sha256_file(path)):
                _make(path, item)
        commit_bytes(manifest, _table([item.line for item in items]))
        files = {name: sha256_file(out / name) for name in (*(item.name for item in items), MANIFEST)}
        record = {"recipe": recipe, "files": files, "digest": sha256_tree(files)}
        commit_bytes(out / RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
        (out / STARTED).unlink()
    if progress:
        progress(len(items), len(items), "done")
    return manifest


def _complete(out: Path, recipe: dict[str, object]) -> bool:
    record = _read(out / RECORD)
    if record.get("recipe") != recipe:
        return False
    files: dict[str, str] = record.get("files", {})
    return all((out / name).is_file() and sha256_file(out / name) == digest for name, digest in files.items())


def _digests(out: Path, recipe: dict[str, object]) -> dict[str, str] | None:
    """Digests of files that may be kept (empty: any that is there); ``None`` where none may."""
    record = _read(out / RECORD)
    if record.get("recipe") == recipe:
        return dict(record["files"])
    # files appear under their names only once complete, so those of a killed run are good
    return {} if _read(out / STARTED) == recipe else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Misuse(f"{out} is a file: choose a folder for the demo corpus")
    if out.is_dir() and not (out / RECORD).exists() and not (out / STARTED).exists():
        strangers = [path.name for path in out.iterdir() if not path.name.startswith((TEMPORARY, ".lock"))]
        if strangers:
            raise Misuse(f"{out} holds other files ({strangers[0]}, …): choose an empty folder for the demo corpus")


def _code_digest() -> str:
    """Digest of this package's source: other code may give other pictures."""
    return sha256_tree({path.name: sha256_file(path) for path in sorted(Path(__file__).parent.glob("*.py"))})


def _make(path: Path, item: Item) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        item.write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _table(lines: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_COLUMNS, *_EXPECTED), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def _line(name: str, speaker: Speaker | None, kind: str = "clip", reason: Reason | None = None) -> dict[str, str]:
    return {
        "file": name,
        "id": name.rsplit(".", 1)[0],
        "speaker": speaker.name if speaker else "",
        "gender": speaker.gender if speaker else "unknown",
        "language": "en" if kind == "clip" else "",
        "licence": LICENCE,
        "consent": CONSENT,
        "kind": kind,
        "corpus": "demo",
        "expected": "rejected" if reason else "kept",
        "expected_reason": str(reason) if reason else "",
    }


def _items(out: Path, people: list[Speaker], seed: int, sentences: int) -> list[Item]:
    from preprocessing.demo import scene

    items = []
    for index, speaker in enumerate(people):
        stage = partial(scene.performer, speaker, seed)
        for take in range(sentences):
            name = _clip_name(index, speaker, take)
            text = SENTENCES[(index * 3 + take) % len(SENTENCES)]
            write = partial(
                scene.write_clip, stage, speaker, text, (seed, index, take), _rate(index, take), _side(index, take)
            )
            items.append(Item(name, _line(name, speaker), write))
        for pose, ending in enumerate(("png", "jpg")):
            name = f"stills/{speaker.name}-{pose + 1}.{ending}"
            items.append(
                Item(name, _line(name, speaker, "face"), partial(scene.write_still, stage, (seed, index), pose))
            )
    first, second = people[0], people[-1]
    good = out / items[0].name
    bad: Iterator[tuple[str, Speaker | None, Reason, Callable[[Path], None]]] = iter(
        (
            ("bad/silent-film.mp4", first, Reason.NO_AUDIO, partial(scene.write_without_sound, good)),
            ("bad/cut-off.mp4", first, Reason.TRUNCATED, partial(scene.write_truncated, good)),
            ("bad/nothing.mp4", None, Reason.EMPTY_FILE, scene.write_empty),
            ("bad/empty-room.mp4", None, Reason.NO_FACE, partial(scene.write_room, second, seed)),
            ("bad/two-at-once.mp4", None, Reason.MANY_FACES, partial(scene.write_pair, first, second, seed)),
        )
    )
    items += [Item(name, _line(name, speaker, reason=reason), write) for name, speaker, reason, write in bad]
    return items


def _clip_name(index: int, speaker: Speaker, take: int) -> str:
    """Plain names, but for two that scripts get wrong: one with spaces, one that looks like an option."""
    odd = {(0, 1): "clips/a name with spaces.mp4", (0, 2): "-starts-with-a-dash.mp4"}
    return odd.get((index, take), f"clips/{speaker.name}-{take + 1}.mp4")


def _rate(index: int, take: int) -> float:
    """Frames per second: 25, but every fourth clip needs resampling."""
    return {3: 30.0, 7: FPS_NTSC, 11: FPS_FILM}.get((index * 3 + take) % 12, 25.0)


def _side(index: int, take: int) -> int:
    return 448 if (index + take) % 3 == 2 else 512
