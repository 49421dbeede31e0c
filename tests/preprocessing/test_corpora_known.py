"""Annotation files of known corpora: every row, every odd line by file and number, each costing only its row."""

import os
from pathlib import Path

import pytest

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import CORPORA, BadLine, read_corpus

MANIFESTS = Path(os.environ.get("VOXFACE_CORPUS", "nowhere")) / "manifests"
real = pytest.mark.skipif(
    not MANIFESTS.is_dir(), reason="VOXFACE_CORPUS has no manifests: the real annotations are not here"
)


def _files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def _parted(rows) -> tuple[list[Row], list[str]]:
    return [row for row in rows if isinstance(row, Row)], [row.detail for row in rows if isinstance(row, BadLine)]


HDTF = {
    "WDA_annotion_time.txt": "AnnLee1.mp4 00:05-01:10 02:00-02:30 \nBob.mp4 00:10-00:20\nCy.mp4 00:50-00:10\nDee.mp4",
    "WDA_video_url.txt": "\ufeffAnnLee1 https://x/1\nBob https://x/2\nCy https://x/3\nEve https://x/4\n",
    "WDA_resolution.txt": "AnnLee1.mp4 720\nBob.mp4 0\nCy.mp4 1080\nEve.mp4 720",
    "WDA_crop_wh.txt": "AnnLee1_0.mp4 320 640 36 360\nBob_0.mp4 1 2 3 4\nCy_0.mp4 0 9 0 9\nFay_0.mp4 1 2 3 4\nodd",
    "WDA_crop_ratio.txt": "AnnLee1_0.mp4 1.2\n",
}


def test_hdtf_joins_its_files(tmp_path):
    rows, odd = _parted(read_corpus("hdtf", _files(tmp_path, HDTF)))
    (row,) = rows
    assert (row.file, row.id, row.speaker, row.language) == ("AnnLee1.mp4", "AnnLee1_0", "AnnLee", "en")
    assert (row.start_s, row.end_s, row.box) == (5.0, 70.0, (0.25, 0.05, 0.75, 0.55))
    assert row.extra == {"group": "WDA", "url": "https://x/1", "crop_ratio": "1.2"}
    assert odd == [
        "WDA_annotion_time.txt line 1: clip 1: AnnLee1_1 has no line in WDA_crop_wh.txt",
        "WDA_annotion_time.txt line 2: clip 0: WDA_resolution.txt line 2: the reference height is 0",
        "WDA_annotion_time.txt line 3: clip 0: the span 50 to 10 s does not run forward",
        "WDA_annotion_time.txt line 4: Dee: no clip",
        "WDA_video_url.txt line 4: Eve: no clip",
        "WDA_crop_wh.txt line 4: Fay_0: no clip",
        "WDA_crop_wh.txt line 5: odd: no clip",
    ]


@pytest.mark.parametrize(
    ("crop", "told"),
    [
        ("AnnLee1_0.mp4 320 640 36", "WDA_crop_wh.txt line 1: 4 fields, 5 are needed"),
        ("AnnLee1_0.mp4 320 640 36 3x0", "WDA_crop_wh.txt line 1: crop: '3x0' is no whole number"),
        ("AnnLee1_0.mp4 -320 640 36 360", "WDA_crop_wh.txt line 1: crop: '-320' is no whole number"),
        ("AnnLee1_0.mp4 320 640 36 700", "WDA_crop_wh.txt line 1: the box 320 36 960 736 does not fit into 1280 x 720"),
    ],
)
def test_a_broken_crop_is_told_once_by_its_line(tmp_path, crop, told):
    files = HDTF | {
        "WDA_annotion_time.txt": "AnnLee1.mp4 00:05-01:10\nBob.mp4 00:10-00:20",
        "WDA_video_url.txt": "AnnLee1 u\nBob u",
        "WDA_resolution.txt": "AnnLee1.mp4 720\nBob.mp4 720",
        "WDA_crop_wh.txt": f"{crop}\nBob_0.mp4 0 99 0 99",
    }
    rows, odd = _parted(read_corpus("hdtf", _files(tmp_path, files)))
    assert [row.id for row in rows] == ["Bob_0"]
    assert odd == [f"WDA_annotion_time.txt line 1: clip 0: {told}"]


def test_cut_clips_have_no_times_and_their_names_can_be_given(tmp_path):
    folder = _files(tmp_path, HDTF)
    rows, _ = _parted(read_corpus("hdtf", folder, layout="clips"))
    assert (rows[0].file, rows[0].start_s, rows[0].box) == ("AnnLee1_0.mp4", None, None)
    rows, _ = _parted(read_corpus("hdtf", folder, layout="clips", template="{group}_{name}_{clip:03d}.mp4"))
    assert rows[0].file == "WDA_AnnLee1_000.mp4"
    for template in ("{speaker}.mp4", "{name.__class__}.mp4", "{0}.mp4", "{name.mp4"):
        with pytest.raises(Misuse, match="--media"):
            read_corpus("hdtf", folder, template=template)


AVSPEECH = "PmD-aaaaaaa,1.5,4.25,0.25,0.5\r\n-i_bbbbbbbb,2,3,1,0\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + AVSPEECH,
        ",id,start,end,x,y\n0,PmD-aaaaaaa,1.5,4.25,0.25,0.5\n1,-i_bbbbbbbb,2,3,1,0",
        "id,start,end,x,y\n" + AVSPEECH,
    ],
)
def test_avspeech_with_and_without_header(tmp_path, text):
    folder = _files(tmp_path, {"avspeech_test.csv": text})
    rows, odd = _parted(read_corpus("avspeech", folder))
    assert not odd
    assert [(row.file, row.start_s, row.end_s, row.face_x, row.face_y, row.split) for row in rows] == [
        ("PmD-aaaaaaa.mp4", 1.5, 4.25, 0.25, 0.5, "test"),
        ("-i_bbbbbbbb.mp4", 2.0, 3.0, 1.0, 0.0, "test"),
    ]
    cut, _ = _parted(read_corpus("avspeech", folder / "avspeech_test.csv", layout="clips"))
    assert (cut[0].file, cut[0].start_s, cut[0].face_x) == ("PmD-aaaaaaa_1.5_4.25.mp4", None, 0.25)
    for row in rows:
        row.check_id()


def test_avspeech_bad_lines_cost_one_row_each(tmp_path):
    lines = [
        "PmD-aaaaaaa,1.5,4.25,0.25,0.5",
        "#NAME?,1,2,0.5,0.5",
        "PmD-aaaaaaa,1,2,0.5",
        "PmD-aaaaaaa,one,2,0.5,0.5",
        "PmD-aaaaaaa,nan,2,0.5,0.5",
        "PmD-aaaaaaa,2,1,0.5,0.5",
        "PmD-aaaaaaa,1,2,1.5,0.5",
        "",
        "x" * (1 << 21),
        "PmD-aaaaaaa,3,4,0.25,0.5",
    ]
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(lines).encode() + b"\nPm\xe9-aaaaaaa,1,2,0.5,0.5\n")
    rows, odd = _parted(read_corpus("avspeech", path))
    assert [row.start_s for row in rows] == [1.5, 3.0]
    assert [line.split(":")[0] for line in odd] == [f"a.csv line {n}" for n in (2, 3, 4, 5, 6, 7, 9, 11)]
    assert "face_x" in odd[5]


def _utterance(box="10 | 20 | 30 | 40", speaker="id10001", frames=(50, 51, 52)) -> str:
    head = f"Identity  : \t{speaker}\t\nReference : \tabcdefghij-\t\nOffset    : \t-2\t\nASD Conf  : \t4.5\t\n\n"
    table = "".join(f"{frame:06d} \t{box.replace('|', chr(9))} \n" for frame in frames)
    return head + "FRAME \tX \tY \tW \tH \n" + table


SHEETS = {
    "comma": "VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set\nid10001,A.J._Buckley,m,Ireland,dev\n",
    "tab": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\r\nid10001\tA\tm\tIreland\tdev\r\n",
    "padded, with a mark": "\ufeffVoxCeleb1_ID ,VGGFace1_ID ,Gender ,Nationality ,Set \nid10001 ,A ,m ,Ireland ,dev \n",
}


@pytest.mark.parametrize("sheet", SHEETS)
def test_voxceleb_utterances_and_speakers(tmp_path, sheet):
    folder = _files(
        tmp_path,
        {
            "vox1_meta.csv": SHEETS[sheet],
            "txt/id10001/abcdefghij-/00001.txt": _utterance(),
            "txt/id10002/abcdefghij-/00002.txt": _utterance(speaker="id10002"),
        },
    )
    rows, odd = _parted(read_corpus("voxceleb1", folder))
    assert not odd
    assert (rows[0].file, rows[0].start_s, rows[0].end_s) == ("abcdefghij-.mp4", 2.0, 53 / 25)
    assert (rows[0].gender, rows[0].split, rows[0].extra["nationality"]) == ("m", "dev", "Ireland")
    assert (rows[0].face_x, rows[0].extra["box_px"]) == (None, "10 20 30 40")
    assert (rows[1].gender, rows[1].speaker) == ("unknown", "id10002")
    sized, _ = _parted(read_corpus("voxceleb1", folder, frame=(100, 80)))
    assert (sized[0].face_x, sized[0].face_y) == (0.25, 0.5)


def test_voxceleb2_boxes_are_fractions_and_its_media_are_clips(tmp_path):
    files = {"a/txt/id00012/abcdefghij-/00001.txt": _utterance("0.25 | 0.1 | 0.5 | 0.4", "id00012")}
    files["vox2_meta.csv"] = (
        "\ufeffVoxCeleb2ID ,VGGFace2ID ,Gender ,Set\nid00012 ,n1 ,f ,dev\nid00013 ,n2 ,x ,dev\nid1\n"
    )
    rows, odd = _parted(read_corpus("voxceleb2", _files(tmp_path, files)))
    assert (rows[0].file, rows[0].start_s, rows[0].gender) == ("mp4/id00012/abcdefghij-/00001.mp4", None, "f")
    assert [line.split(":")[0] for line in odd] == ["vox2_meta.csv line 3", "vox2_meta.csv line 4"]
    rows, _ = _parted(read_corpus("voxceleb2", tmp_path, layout="videos"))
    assert (rows[0].file, rows[0].start_s, rows[0].face_x, rows[0].face_y) == (
        "abcdefghij-.mp4",
        2.0,
        0.5,
        pytest.approx(0.3),
    )


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (_utterance(frames=(50, 49)), 8, "frame 49 comes after frame 50"),
        (_utterance("10 | 20 | 30"), 7, "4 fields"),
        (_utterance("10 | x | 30 | 40"), 7, "Y: 'x' is no number"),
        (_utterance(frames=()), 6, "ends without a frame"),
        (_utterance(speaker="nobody"), 1, "Identity 'nobody'"),
        ("hello\n", 1, "is no 'Key : value'"),
        (_utterance("200 | 20 | 30 | 40"), 7, "face_x"),
    ],
)
def test_a_broken_utterance_costs_its_row(tmp_path, text, line, told):
    good, broken = "txt/id10001/abcdefghij-/00001.txt", "txt/id10001/abcdefghij-/00002.txt"
    rows, odd = _parted(read_corpus("voxceleb1", _files(tmp_path, {good: _utterance(), broken: text}), frame=(100, 80)))
    assert len(rows) == len(odd) == 1
    assert odd[0].startswith(f"{broken} line {line}: ")
    assert told in odd[0]


def test_clips_of_vox_metadata(tmp_path):
    head = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
    lines = [
        "abcdefghij-,100,150,320-72-640-360,25,1280,720,train,id10001",
        "abcdefghij-,100,150,320-72-640-760,25,1280,720,train,id10001",
        "abcdefghij-,150,100,320-72-640-360,25,1280,720,train,id10001",
        "abcdefghij-,100,150,320-72-640,25,1280,720,train,id10001",
        "abcdefghij-,100,150,320-72-640-360,0,1280,720,train,id10001",
        "abcdefghij-,100,150,320-72-640-360,25,1280,720,train",
    ]
    path = tmp_path / "vox-metadata.csv"
    path.write_text(head + "\n".join(lines))
    rows, odd = _parted(read_corpus("voxceleb1", path))
    (row,) = rows
    assert (row.file, row.start_s, row.end_s, row.split) == ("abcdefghij-.mp4", 4.0, 6.0, "train")
    assert row.box == (0.25, 0.1, 0.5, 0.5)
    assert [line.split(":")[0] for line in odd] == [f"vox-metadata.csv line {n}" for n in range(3, 8)]
    cut, _ = _parted(read_corpus("voxceleb1", path, layout="clips"))
    assert (cut[0].file, cut[0].start_s) == ("train/id10001#abcdefghij-#000100#000150.mp4", None)


A, B, C = "5535415699068794046/00001", "5535415699068794046/00002", "6330311066473698535/00011"


def test_lrs2_lists_transcripts_and_pairs(tmp_path):
    files = {
        "train.txt": f"{A}\r\n{A}\r\nnonsense\r\n{B} NF XX\r\n",
        "test.txt": f"{C} MV\r\n{A} NF\r\n",
        "pretrain.txt": B,
        "lrs2_test_samples.txt": f"{C}.mp4, AND FOR ME, THE SURPRISE\n",
        "pairs.txt": f"{A} {C}\n{A} nonsense\n",
    }
    rows, odd = _parted(read_corpus("lrs2", _files(tmp_path, files)))
    named = {row.id: row for row in rows}
    assert list(named) == [B, C, A]
    assert (named[B].file, named[B].split) == (f"pretrain/{B}.mp4", "pretrain")
    assert (named[C].file, named[C].split, named[C].language) == (f"main/{C}.mp4", "test", "en")
    assert named[C].extra == {
        "video": "6330311066473698535",
        "tag": "MV",
        "text": "AND FOR ME, THE SURPRISE",
        "paired_audio": A,
    }
    assert [line.split(":")[0] for line in odd] == [
        *(f"train.txt line {n}" for n in (1, 2, 3, 4)),
        "pairs.txt line 2",
    ]
    assert "test.txt line 2 already" in odd[0]
    alone, _ = _parted(read_corpus("lrs2", tmp_path / "lrs2_test_samples.txt"))
    assert (alone[0].id, alone[0].split) == (C, None)


def test_lrs3_manifests_and_lists(tmp_path):
    row = "test/UmvOgW6iV2s/00007\tvideo/test/UmvOgW6iV2s/00007.mp4\taudio/test/UmvOgW6iV2s/00007.wav\t107\t68608"
    other = row.replace("107", "x").replace("00007\t", "00008\t")
    files = {"test.tsv": f"../root\n{row}\n{row}\nfew\tfields\n{other}\n"}
    rows, odd = _parted(read_corpus("lrs3", _files(tmp_path, files)))
    (first,) = rows
    assert (first.file, first.id, first.split) == ("video/test/UmvOgW6iV2s/00007.mp4", "test/UmvOgW6iV2s/00007", "test")
    assert (first.extra["listed_frames"], first.licence) == ("107", "CC BY-NC-ND 4.0")
    assert [line.split(":")[0] for line in odd] == [f"test.tsv line {n}" for n in (3, 4, 5)]
    (tmp_path / "mine.txt").write_text("trainval/jseHPnqXlPY/50001\nval/jseHPnqXlPY/50001\n")
    rows, odd = _parted(read_corpus("lrs3", tmp_path / "mine.txt"))
    assert (rows[0].file, rows[0].split, len(odd)) == ("trainval/jseHPnqXlPY/50001.mp4", "trainval", 1)


def test_vfhq_clips(tmp_path):
    text = "YOUTUBE abc\nH 720\nW 1280\nFPS 25.0\n\nCROP 320 72 640 360\n"
    files = {
        "Clip+-91nXXjrVo_+P0+C1+F99-151.txt": text,
        "Clip+-91nXXjrVo_+P0+C2+F99-151.txt": text.replace("FPS 25.0\n", ""),
        "Clip+-91nXXjrVo_+P0+C3+F99-151.txt": text.replace("360\n", "9999\n"),
        "Clip+-91nXXjrVo_+P0+C4+F99-151.txt": text.replace("CROP 320", "CROP x").replace("H 720", "H: 720"),
        "Clip+-91nXXjrVo_+P0+C5+F99.txt": text,
    }
    rows, odd = _parted(read_corpus("vfhq", _files(tmp_path, files)))
    (row,) = rows
    assert (row.file, row.start_s, row.end_s, row.speaker) == ("-91nXXjrVo_.mp4", 4.0, 6.0, "-91nXXjrVo_+P0")
    assert row.box == (0.25, 0.1, 0.5, 0.5)
    assert len(odd) == 4
    assert all(" line " in line for line in odd)
    cut, _ = _parted(read_corpus("vfhq", tmp_path, layout="clips"))
    assert (cut[0].file, cut[0].box) == ("Clip+-91nXXjrVo_+P0+C1+F99-151.mp4", None)


def test_what_is_not_there_is_misuse(tmp_path):
    for corpus in CORPORA:
        for place in (tmp_path, tmp_path / "gone"):
            with pytest.raises(Misuse, match=str(tmp_path)):
                read_corpus(corpus, place)
    with pytest.raises(Misuse, match="no corpus"):
        read_corpus("grid", tmp_path)
    with pytest.raises(Misuse, match="layout"):
        read_corpus("lrs2", tmp_path, layout="videos")
    (tmp_path / "a.csv").write_text("no\nrow\n")
    with pytest.raises(Misuse, match="holds no row of avspeech; the first odd line: a"):
        read_corpus("avspeech", tmp_path / "a.csv")


@real
@pytest.mark.corpus
@pytest.mark.parametrize(
    ("corpus", "files", "rows", "odd", "keys"),
    [
        ("hdtf", "hdtf", 416, 21, 416),  # 15 without crop, 1 without times, 3 boxes beyond the frame, 2 of a height 0
        ("voxceleb1", "voxceleb", 5 + 387, 13, 392),  # boxes that reach up to 99 px below a frame of 720
        ("voxceleb2", "voxceleb", 5, 0, 5),
        ("avspeech", "avspeech", 330, 0, 272),  # the two files share 58 lines: DUPLICATE_ID
        ("lrs2", "lrs2", 2000 + 1243, 0, 3243),
        ("lrs3", "lrs3", 15, 0, 15),
    ],
)
def test_the_real_annotations(corpus, files, rows, odd, keys):
    found = read_corpus(corpus, MANIFESTS / files)
    good, told = _parted(found)
    assert (len(good), len(told)) == (rows, odd)
    assert len({row.key for row in good}) == keys
    for row in good:
        row.check_id()
    assert all(" line " in line for line in told)


@real
@pytest.mark.corpus
def test_the_real_hdtf_is_odd_where_it_is_known_to_be():
    _, told = _parted(read_corpus("hdtf", MANIFESTS / "hdtf"))
    text = "\n".join(told)
    for name in (
        "Radio15_0 has no line",
        "DeanPhillips_0 has no line",
        "BillCassidy_0 has no line",
        "Radio24: no clip",
    ):
        assert name in text
    assert len([line for line in told if "has no line in" in line]) == 2 + 6 + 7
