"""VoxCeleb1 and VoxCeleb2 (Nagrani, Chung et al.): a text file per utterance, a CSV of the speakers.

``txt/<speaker>/<video>/<nnnnn>.txt`` (anywhere under the folder given): lines ``Key : value``, then ``FRAME X Y W H``,
then a line per frame at 25 per second, the face's box in pixels (VoxCeleb1) or fractions (VoxCeleb2). The utterance
runs from its first frame to the end of its last; the middle of the first frame's box is the face's point.
Pixels need a frame size, which these files do not give: with ``--frame-size WxH`` they become a point, without it
they are kept as ``extra.box_px`` and the face is found by looking.
``vox1_meta.csv``, ``vox2_meta.csv`` beside them give gender, nationality (``extra``) and set; fields are parted by TAB
or comma, padded or not. ``vox-metadata*.csv`` (of AliaksandrSiarohin/video-preprocessing; VoxCeleb1 alone) gives clips
of its own: frame numbers at ``fps``, a box in ``width`` x ``height``. A file of either kind may also be given alone.
The annotations are CC BY 4.0; the videos stay their owners'.

The media: VoxCeleb1 ``<video>.mp4``, whole videos (times and point apply); VoxCeleb2
``mp4/<speaker>/<video>/<nnnnn>.mp4``, the clips that it is handed out in, cropped (neither applies). ``--layout``
chooses; clips of ``vox-metadata`` are ``<set>/<speaker>#<video>#<first>#<last>.mp4``, six digits each, as that project
writes them. A box that reaches beyond its frame is a bad line.
Fields: speaker, video, clip, set (of vox-metadata, its partition).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, Media
from preprocessing.corpora.lines import YOUTUBE_ID, bad, fractions, real, row_or_bad, span, text_lines, whole

CLIPS = {"voxceleb1": "mp4/{speaker}/{video}/{clip}.mp4", "voxceleb2": "mp4/{speaker}/{video}/{clip}.mp4"}
VIDEOS = {"voxceleb1": "{video}.mp4", "voxceleb2": "{video}.mp4"}
FIELDS = frozenset({"speaker", "video", "clip", "set"})
HANDED_OUT_AS_CLIPS = frozenset({"voxceleb2"})
CUT_BY_METADATA = "{set}/{speaker}#{video}#{clip}.mp4"
RATE = 25  # frames per second of the text files
SPEAKER = re.compile(r"id\d{5}")
METADATA = ["video_id", "start", "end", "bbox", "fps", "width", "height", "partition", "person_id"]
LICENCE = "CC BY 4.0 (annotations)"
People = dict[str, dict[str, str]]


def read(corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
    """Utterances by path, then the clips of ``vox-metadata``, then the odd lines about speakers.

    A speaker whom the CSV does not name has gender ``unknown``.
    """
    people, told, metadata, utterances = _found(corpus, annotations)
    for path in utterances:
        label = path.relative_to(annotations).as_posix() if annotations.is_dir() else path.name
        yield _utterance(corpus, path, label, people, media)
    for path in metadata:
        yield from _metadata(corpus, path, people, media)
    yield from told


def _found(corpus: str, annotations: Path) -> tuple[People, list[BadLine], list[Path], list[Path]]:
    """Speakers, odd lines about them, files of clips, files of utterances."""
    people: People = {}
    told: list[BadLine] = []
    if not annotations.is_dir():
        alone = annotations.suffix == ".txt"
        return people, told, [] if alone else [annotations], [annotations] if alone else []
    sheet = annotations / f"vox{corpus[-1]}_meta.csv"
    if sheet.is_file():
        people, told = _people(sheet)
    metadata = sorted(annotations.glob("vox-metadata*.csv")) if corpus == "voxceleb1" else []
    utterances = sorted(path for path in annotations.rglob("*.txt") if SPEAKER.fullmatch(path.parent.parent.name))
    if not metadata and not utterances:
        raise Misuse(
            f"{annotations} holds no txt/<speaker>/<video>/<nnnnn>.txt and no vox-metadata*.csv: "
            f"give the folder of {corpus}'s annotations"
        )
    return people, told, metadata, utterances


def _people(path: Path) -> tuple[People, list[BadLine]]:
    people: People = {}
    told: list[BadLine] = []
    columns: list[str] = []
    for line in text_lines(path, path.name):
        if isinstance(line, BadLine):
            told.append(line)
            continue
        number, text = line
        cells = [cell.strip() for cell in text.split("\t" if "\t" in text else ",")]
        if not columns:
            columns = [re.sub(r"[ _]", "", cell).lower() for cell in cells]
            if not {"gender", "set"} <= set(columns):
                raise Misuse(f"{path}: the first line must name Gender and Set")
        elif len(cells) != len(columns):
            told.append(bad(path.name, number, f"{len(cells)} fields, {len(columns)} are needed"))
        elif not SPEAKER.fullmatch(cells[0]) or cells[columns.index("gender")] not in ("f", "m"):
            told.append(bad(path.name, number, f"{text[:80]!r}: expected id<5 digits> and gender f or m"))
        elif cells[0] in people:
            told.append(bad(path.name, number, f"{cells[0]} is named twice"))
        else:
            people[cells[0]] = dict(zip(columns, cells))
    return people, told


def _about(corpus: str, speaker: str, people: People) -> dict[str, Any]:
    known = people.get(speaker, {})
    return {
        "corpus": corpus,
        "speaker": speaker,
        "gender": known.get("gender", "unknown"),
        "split": known.get("set"),
        "nationality": known.get("nationality"),
        "licence": LICENCE,
    }


def _utterance(corpus: str, path: Path, label: str, people: People, media: Media) -> Row | BadLine:
    head: dict[str, str] = {}
    frames: list[list[str]] = []
    table, number = 0, 1
    for line in text_lines(path, label):
        if isinstance(line, BadLine):
            return line
        number, text = line
        if not table:
            key, colon, value = text.partition(":")
            head[key.strip().lower()] = value.strip()
            table = number if text.split()[:2] == ["FRAME", "X"] else 0
            if not colon and not table:
                return bad(label, number, f"{text[:80]!r} is no 'Key : value'")
        else:
            frames.append(text.split())
            try:
                _check_frame(frames)
            except ValueError as error:
                return bad(label, number, str(error))
    if not frames:
        return bad(label, number, "ends without a frame")
    speaker = head.get("identity") or path.parent.parent.name
    video = head.get("reference") or path.parent.name
    if not SPEAKER.fullmatch(speaker) or not YOUTUBE_ID.fullmatch(video):
        return bad(label, 1, f"Identity {speaker!r} or Reference {video!r} is none")
    values = _about(corpus, speaker, people) | {"id": f"{speaker}/{video}/{path.stem}", "video": video}
    values |= {name: head.get(key) for name, key in (("offset", "offset"), ("asd_conf", "asd conf"))}
    values["file"] = media.file(speaker=speaker, video=video, clip=path.stem, set=values["split"] or "")
    if not media.cut:
        values |= {"start_s": int(frames[0][0]) / RATE, "end_s": (int(frames[-1][0]) + 1) / RATE}
        values |= _point([float(cell) for cell in frames[0][1:]], media.frame)
    return row_or_bad(label, table + 1, values)


def _check_frame(frames: list[list[str]]) -> None:
    """Raise ``ValueError`` where the last line is no frame, or does not come after the one before."""
    cells = frames[-1]
    if len(cells) != 5:
        raise ValueError(f"{len(cells)} fields, 5 are needed")
    number = whole(cells[0], "FRAME")
    if len(frames) > 1 and number <= int(frames[-2][0]):
        raise ValueError(f"frame {number} comes after frame {int(frames[-2][0])}")
    for name, cell in zip("XYWH", cells[1:]):
        real(cell, name)


def _point(box: list[float], frame: tuple[int, int] | None) -> dict[str, Any]:
    x, y, wide, high = box
    if wide <= 1 and high <= 1:
        width, height = 1, 1
    elif frame is None:
        return {"box_px": f"{x:g} {y:g} {wide:g} {high:g}"}
    else:
        width, height = frame
    # a face at the border has a box that reaches beyond it: its middle may
    return {"face_x": (x + wide / 2) / width, "face_y": (y + high / 2) / height}


def _metadata(corpus: str, path: Path, people: People, media: Media) -> Iterator[Row | BadLine]:
    if not path.is_file():
        raise Misuse(f"{path} does not exist: give the folder of {corpus}'s annotations, or a vox-metadata.csv")
    columns: list[str] = []
    for line in text_lines(path, path.name):
        if isinstance(line, BadLine):
            yield line
            continue
        number, text = line
        cells = next(csv.reader([text]))
        if not columns:
            columns = [re.sub(r"\(.*\)", "", cell).strip() for cell in cells]
            if set(METADATA) - set(columns):
                raise Misuse(f"{path}: the first line must name {', '.join(METADATA)}")
        elif len(cells) != len(columns):
            yield bad(path.name, number, f"{len(cells)} fields, {len(columns)} are needed")
        else:
            try:
                values = _cut(corpus, dict(zip(columns, (cell.strip() for cell in cells))), people, media)
            except ValueError as error:
                yield bad(path.name, number, str(error))
            else:
                yield row_or_bad(path.name, number, values)


def _cut(corpus: str, cells: dict[str, str], people: People, media: Media) -> dict[str, Any]:
    speaker, video = cells["person_id"], cells["video_id"]
    if not SPEAKER.fullmatch(speaker) or not YOUTUBE_ID.fullmatch(video):
        raise ValueError(f"person_id {speaker!r} or video_id {video!r} is none")
    first, last, fps = whole(cells["start"], "start"), whole(cells["end"], "end"), real(cells["fps"], "fps")
    if fps <= 0:
        raise ValueError(f"fps: {cells['fps']} frames per second")
    start_s, end_s = span(first / fps, last / fps)
    corners = cells["bbox"].split("-")
    if len(corners) != 4:
        raise ValueError(f"bbox: {cells['bbox']!r} is no x0-y0-x1-y1")
    x0, y0, x1, y1 = (whole(corner, "bbox") for corner in corners)
    box = fractions(x0, y0, x1, y1, whole(cells["width"], "width"), whole(cells["height"], "height"))
    clip = f"{first:06d}#{last:06d}"
    cut = Media(CUT_BY_METADATA) if media.template == CLIPS[corpus] else media
    values = _about(corpus, speaker, people) | {"id": f"{speaker}#{video}#{clip}", "video": video}
    values["file"] = cut.file(speaker=speaker, video=video, clip=clip, set=cells["partition"])
    values["split"] = cells["partition"] or values["split"]
    return values if media.cut else values | {"start_s": start_s, "end_s": end_s, "box": box}
