"""One person is found twice, on drawn faces and on the corpus; what is unchanged is not looked at again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from contracts.identity import read_identities
from contracts.manifest import row_from
from contracts.shards import write_shard
from flows.leaks import FACE_DISTANCE
from preprocessing import identity
from preprocessing.build import IngestSettings, build_row
from preprocessing.identity import fingerprint, measure_identity
from preprocessing.plan import plan_dataset
from preprocessing.step import Tools

CORPUS = os.environ.get("VOXFACE_CORPUS")
# speaker -> files; two pictures, or a clip and a picture, of each
PEOPLE = {
    "spk103": ("clips/talkvid__AOC_gt.mp4", "faces/talkvid__AOC_ref.jpg"),
    "spk118": ("faces/facerec__biden_biden.jpg", "faces/facerec__biden_biden2.jpg"),
    "spk198": ("faces/facerec__rose_leslie_img1.jpg", "faces/facerec__rose_leslie_img2.jpg"),
    "spk018": ("faces/makeittalk__examples_anne.jpg", "faces/makeittalk__examples_anne2.jpg"),
}


def test_every_sample_with_a_face_has_an_embedding_and_is_embedded_once(small_dataset, tmp_path, monkeypatch):
    folder = tmp_path / "dataset"
    shutil.copytree(small_dataset.dataset, folder)
    looked = []
    real = identity.embed_shard
    monkeypatch.setattr(identity, "embed_shard", lambda *of: looked.append(of[1]) or real(*of))
    told = []
    path = measure_identity(folder, progress=lambda done, total, note: told.append((done, total)))
    found = read_identities(path)
    assert sorted(found.keys) == sorted(chosen.key for chosen in small_dataset.selection.samples)
    assert found.embeddings.shape == (32, 128)
    assert np.isfinite(found.embeddings).all()
    assert (looked, told[-1]) == ([0, 1, 2, 3], (32, 32))
    before = path.read_bytes()
    for end in ("json", "tar", "parquet"):
        (folder / f"shard-000003.{end}").unlink()  # a dataset with one shard less
    measure_identity(folder)
    assert looked == [0, 1, 2, 3]
    assert len(read_identities(path).keys) == 24
    shutil.copytree(small_dataset.dataset, folder, dirs_exist_ok=True)
    measure_identity(folder)
    assert looked == [0, 1, 2, 3, 3]
    assert path.read_bytes() == before
    assert pq.read_table(path)["tar_sha256"].null_count == 0


def test_a_picture_stored_again_keeps_its_fingerprint(tmp_path):
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    rough.resize((180, 180)).save(tmp_path / "a.jpg", quality=40)
    again = np.asarray(Image.open(tmp_path / "a.jpg"))
    other = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    assert (fingerprint(np.asarray(rough)) ^ fingerprint(again)).bit_count() <= 3
    assert (fingerprint(np.asarray(rough)) ^ fingerprint(np.asarray(other))).bit_count() > 10


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS, reason="VOXFACE_CORPUS is not set")
def test_the_same_person_is_nearer_than_the_threshold_and_others_are_not(tmp_path):
    root = Path(CORPUS or "")
    rows = [row_from({"file": file, "speaker": name}) for name, files in PEOPLE.items() for file in files]
    planned = plan_dataset(tmp_path, rows, root)
    tools, settings, lines, samples = Tools(), IngestSettings(), [], []
    for row in planned:
        made, told = build_row(row, root, tools, settings)
        samples += made
        lines += told
    write_shard(tmp_path, 0, samples, lines, steps="s", rows="r")
    kept = {line["key"]: line for line in lines if line["level"] == "span"}
    assert [line["kind"] for line in kept.values()] == ["clip", *["face"] * 7]
    found = read_identities(measure_identity(tmp_path))
    for one, a in enumerate(found.keys):
        for other, b in enumerate(found.keys[one + 1 :], one + 1):
            distance = float(np.linalg.norm(found.embeddings[one] - found.embeddings[other]))
            same = kept[a]["speaker"] == kept[b]["speaker"]
            assert (distance < FACE_DISTANCE) == same, (a, b, distance)
