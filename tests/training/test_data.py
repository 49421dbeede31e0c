"""The reader: order fixed by (seed, step), decoded fields as ``View`` says, splits that do not leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.errors import Corrupt, Misuse
from contracts.sample import Frames, decode_features, decode_wav
from contracts.selection import Chosen
from contracts.shards import committed, open_shard
from systems.base import View
from training.data import Reader, Span, _references, _serves, span_of, verify
from training.feed import feed
from training.pictures import as_numbers

VIEW = View(("frames", "landmarks", "audio", "speaker", "gender"), frames=5, pick="successive", size=32, context=2)


def make(small, view=VIEW, subset="train", **changes) -> Reader:
    return Reader(small.dataset, small.selection, view, subset=subset, **({"seed": 3, "batch": 4} | changes))


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def test_a_batch_is_as_the_view_describes(small_dataset):
    batch = make(small_dataset).batch(0)
    shapes = {name: (tuple(v.shape), v.dtype) for name, v in batch.items() if isinstance(v, torch.Tensor)}
    assert shapes == {
        "frames": ((4, 5, 3, 32, 32), torch.float32),
        "landmarks": ((4, 5, 478, 2), torch.float32),
        "audio": ((4, 9 * 640), torch.float32),
        "speaker": ((4,), torch.int64),
        "gender": ((4,), torch.int64),
        "index": ((4, 5), torch.int64),
        "count": ((4,), torch.int64),
    }
    assert batch["frames"].min() >= -1
    assert batch["frames"].max() <= 1
    assert (batch["index"].diff(dim=1) == 1).all()
    names = sorted({sample.speaker for sample in small_dataset.selection.samples})
    by_key = {sample.key: sample for sample in small_dataset.selection.samples}
    assert [names[i] for i in batch["speaker"]] == [by_key[key].speaker for key in batch["key"]]
    assert [("f", "m")[i] for i in batch["gender"]] == [by_key[key].gender for key in batch["key"]]


def test_fields_are_those_of_the_sample_at_the_frames_named(small_dataset):
    """Decoded again by hand from the shard's members."""
    import io

    from PIL import Image

    batch = make(small_dataset, subset="new").batch(1)
    shards = {key: shard for shard in committed(small_dataset.dataset) for key in shard.record.keys}
    for i, key in enumerate(batch["key"]):
        members, index = shards[key].read(key), batch["index"][i].numpy()
        landmarks = decode_features(members["npz"])["landmarks"][index, :, :2]
        assert np.array_equal(batch["landmarks"][i].numpy(), landmarks)
        first, sound = (index[0] - 2) * 640, decode_wav(members["wav"])
        expected = [sound[n] if 0 <= n < len(sound) else 0.0 for n in range(first, first + 9 * 640)]
        assert np.array_equal(batch["audio"][i].numpy(), np.array(expected, np.float32))
        image = Image.open(io.BytesIO(Frames(members["frames"])[int(index[0])])).resize((32, 32), Image.Resampling.BOX)
        assert np.abs((batch["frames"][i, 0].permute(1, 2, 0).numpy() + 1) * 127.5 - np.asarray(image)).mean() < 4


def test_margins_have_landmarks_and_sound_and_no_pictures(small_dataset):
    view = View(("frames", "landmarks", "audio"), frames=3, pick="successive", size=16, context=1, margin=4)
    batch = make(small_dataset, view, "new").batch(0)
    assert batch["frames"].shape[:2] == batch["index"].shape == (4, 3)
    assert batch["landmarks"].shape == (4, 11, 478, 2)
    assert batch["audio"].shape == (4, 13 * 640)
    shards = {key: shard for shard in committed(small_dataset.dataset) for key in shard.record.keys}
    for i, key in enumerate(batch["key"]):
        first = int(batch["index"][i, 0]) - 4
        landmarks = decode_features(shards[key].read(key)["npz"])["landmarks"][first : first + 11, :, :2]
        assert first >= 0
        assert np.array_equal(batch["landmarks"][i].numpy(), landmarks)


def test_random_frames_bring_the_sound_about_each(small_dataset):
    view = View(("audio",), frames=2, pick="random", context=1)
    batch = make(small_dataset, view, "new").batch(0)
    assert batch["audio"].shape == (4, 2, 3 * 640)
    shards = {key: shard for shard in committed(small_dataset.dataset) for key in shard.record.keys}
    sound = decode_wav(shards[batch["key"][0]].read(batch["key"][0], ("wav",))["wav"])
    padded = np.pad(sound, 640)
    for place in range(2):
        first = int(batch["index"][0, place]) * 640
        assert np.array_equal(batch["audio"][0, place].numpy(), padded[first : first + 3 * 640])


@pytest.mark.parametrize("subset", ["train", "known", "new"])
def test_references_are_half_a_second_from_the_window(small_dataset, subset):
    view = View(("frames", "landmarks"), frames=5, pick="successive", size=32, references=3)
    reader = make(small_dataset, view, subset)
    ends = {span.sample.key: span.end for span in reader.spans}
    for batch in (reader.batch(step) for step in range(4)):
        assert batch["references"].shape == (4, 3, 3, 32, 32)
        assert batch["reference_landmarks"].shape == (4, 3, 478, 2)
        apart = (batch["reference_index"][:, :, None] - batch["index"][:, None]).abs()
        assert apart.min() >= 13
        for key, numbers in zip(batch["key"], batch["reference_index"]):
            assert 0 <= int(numbers.min()) <= int(numbers.max()) < ends[key]
    shards = {key: shard for shard in committed(small_dataset.dataset) for key in shard.record.keys}
    landmarks = decode_features(shards[key].read(key)["npz"])["landmarks"]
    assert np.array_equal(batch["reference_landmarks"][-1].numpy(), landmarks[numbers.numpy(), :, :2])


def test_a_window_in_the_middle_of_a_short_clip_moves_to_its_start():
    sample = Chosen(key="k", shard=0, kind="clip", frames=20, speaker="s", gender="f", split="train")
    view = View(("frames",), frames=5, pick="successive", references=4)
    index, references = _references(Span(sample, 0, 20), np.arange(8, 13), view, np.random.default_rng(0))
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert set(references.tolist()) <= {17, 18, 19}
    assert not _serves(Span(sample, 0, 17), view)


def test_the_global_batch_does_not_depend_on_the_number_of_workers(small_dataset):
    for step in (0, 7, 123):
        whole = make(small_dataset).batch(step)
        for world in (2, 3, 4):
            parts = [make(small_dataset, rank=rank, world=world).batch(step) for rank in range(world)]
            assert [key for part in parts for key in part["key"]] == whole["key"]
            assert torch.equal(torch.cat([part["frames"] for part in parts]), whole["frames"])


def test_an_excluded_sample_gives_way_to_the_next_and_nothing_else_moves(small_dataset):
    plain, without = make(small_dataset), make(small_dataset)
    key = plain.keys(3)[0]
    without.exclude({key: 4})
    for step in range(30):
        one, other = plain.keys(step), without.keys(step)
        assert other == without.batch(step)["key"]
        assert (key in other) == (key in one and step < 4)
        for place, (before, after) in enumerate(zip(one, other)):
            assert (before == after) == (before != key or step < 4), (step, place)
    parts = [make(small_dataset, rank=rank, world=2) for rank in range(2)]
    for part in parts:
        part.exclude({key: 4})
    for step in (3, 9, 20):
        assert [k for part in parts for k in part.batch(step)["key"]] == without.keys(step)
    without.exclude(dict.fromkeys(plain.speaker_of, 0))
    with pytest.raises(Misuse, match="all 12 train samples are excluded"):
        without.batch(0)


def test_every_epoch_holds_every_sample_once_in_another_order(small_dataset):
    reader = make(small_dataset, batch=len(make(small_dataset)))
    orders = [reader.batch(epoch)["key"] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(reader.speaker_of))}


def test_another_seed_gives_another_order_the_same_seed_the_same(small_dataset):
    assert_same(make(small_dataset).batch(5), make(small_dataset).batch(5))
    assert make(small_dataset).batch(5)["key"] != make(small_dataset, seed=4).batch(5)["key"]


@pytest.mark.parametrize("processes", [0, 2])
def test_the_feed_gives_the_readers_batches_in_order(small_dataset, processes):
    reader = make(small_dataset)
    fed = list(feed(reader, 3, 8, processes))
    assert len(fed) == 5
    for step, batch in zip(range(3, 8), fed):
        assert batch["frames"].dtype == torch.uint8, "a quarter of what numbers take"
        assert_same(as_numbers(batch), reader.batch(step))


def test_a_pass_is_the_same_each_time_and_whole(small_dataset):
    reader = make(small_dataset, subset="new", batch=3)
    passes = [list(reader.passes()) for _ in range(2)]
    assert [len(batch["key"]) for batch in passes[0]] == [3, 1]
    for one, other in zip(*passes):
        assert_same(one, other)
    picked = next(iter(reader.passes([2, 0])))
    assert picked["key"] == [list(reader.speaker_of)[i] for i in (2, 0)]


def test_known_seconds_lie_half_a_second_from_any_trained_one():
    def chosen(frames: int, split: str = "train", kind: str = "clip") -> Chosen:
        return Chosen(key="k", shard=0, kind=kind, frames=frames, speaker="s", gender="f", split=split)

    def bounds(sample, subset):
        span = span_of(sample, subset)
        return span and (span.first, span.end)

    assert bounds(chosen(200), "train") == (0, 147)
    assert bounds(chosen(200), "known") == (160, 200)
    assert bounds(chosen(100), "known") == (68, 100)  # a fifth would be shorter than a window
    assert bounds(chosen(79), "train") == (0, 79)
    assert bounds(chosen(79), "known") is None
    assert bounds(chosen(100), "new") is None
    assert bounds(chosen(100, "val"), "new") == (0, 100)
    assert bounds(chosen(100, "val"), "train") is None
    assert bounds(chosen(1, kind="face"), "train") == (0, 1)
    for frames in range(80, 400):
        assert bounds(chosen(frames), "known")[0] - bounds(chosen(frames), "train")[1] >= 12.5


def test_windows_and_sound_stay_within_their_span(small_dataset):
    view = View(("audio",), frames=5, pick="successive", context=30)
    by_key = {sample.key: sample for sample in small_dataset.selection.samples}
    for subset in ("train", "known"):
        batch = make(small_dataset, view, subset, batch=24).batch(0)
        for i, key in enumerate(batch["key"]):
            span = span_of(by_key[key], subset)
            index = batch["index"][i]
            assert span.first <= index[0]
            assert index[-1] < span.end
            first = int(index[0]) - view.context  # the frame at which the sound begins
            heard = batch["audio"][i].view(-1, 640).abs().sum(1).nonzero()[:, 0] + first
            assert heard.min() >= max(0, span.first - 13)
            assert heard.max() < span.end


def test_the_spectrogram_is_of_the_span_alone(small_dataset):
    from contracts.speech import power_spectrogram, six_seconds

    batch = make(small_dataset, View(("spectrogram",)), "known").batch(0)
    assert batch["spectrogram"].shape == (4, 2, 257, 598)
    key = batch["key"][0]
    sample = next(s for s in small_dataset.selection.samples if s.key == key)
    sound = decode_wav(open_shard(small_dataset.dataset, sample.shard).read(key, ("wav",))["wav"])
    expected = power_spectrogram(six_seconds(sound[58 * 640 : 90 * 640]))
    assert np.array_equal(batch["spectrogram"][0].numpy(), expected)


def test_more_workers_than_items_are_refused(small_dataset):
    with pytest.raises(Misuse, match="batch of 2 cannot be shared by 3 workers"):
        make(small_dataset, batch=2, rank=0, world=3)


def test_verify_names_file_and_digests(small_dataset, tmp_path):
    import shutil

    verify(small_dataset.dataset, small_dataset.selection)
    copy = tmp_path / "dataset"
    shutil.copytree(small_dataset.dataset, copy)
    tar = copy / "shard-000001.tar"
    data = bytearray(tar.read_bytes())
    data[5000] ^= 1
    tar.write_bytes(data)
    with pytest.raises(Corrupt, match=r"shard-000001\.tar.*expected [0-9a-f]{64}, found [0-9a-f]{64}"):
        verify(copy, small_dataset.selection)
    other = small_dataset.selection.model_copy(update={"dataset": "0" * 64})
    with pytest.raises(Misuse, match="select again"):
        verify(small_dataset.dataset, other)


def test_a_sample_that_does_not_decode_is_corrupt(small_dataset, tmp_path):
    import shutil

    copy = tmp_path / "dataset"
    shutil.copytree(small_dataset.dataset, copy)
    shard = open_shard(copy, 0)
    key = shard.record.keys[0]
    offset, size = shard.offsets[key]["npz"]
    data = bytearray(shard.tar.read_bytes())
    data[offset : offset + size] = bytes(size)
    shard.tar.write_bytes(data)
    reader = Reader(copy, small_dataset.selection, VIEW, subset="train", seed=0, batch=4)
    with pytest.raises(Corrupt, match=f"shard-000000.tar: sample {key}"):
        list(reader.passes())


def test_plain_webdataset_reads_our_shards(small_dataset):
    import webdataset as wds

    urls = [str(shard.tar) for shard in committed(small_dataset.dataset)]
    read = {sample["__key__"]: sample for sample in wds.WebDataset(urls, shardshuffle=False)}
    assert list(read) == [key for shard in committed(small_dataset.dataset) for key in shard.record.keys]
    for shard in committed(small_dataset.dataset):
        for key in shard.record.keys:
            theirs = {name: value for name, value in read[key].items() if not name.startswith("__")}
            assert theirs == shard.read(key)


def test_training_hears_other_seconds_of_a_clip_in_every_epoch(small_dataset):
    reader = make(small_dataset, View(("spectrogram",)), "train")
    key = reader.item(0)["key"]
    again = next(p for p in range(len(reader), 2 * len(reader)) if reader.item(p)["key"] == key)
    first, second = (reader.item(p)["spectrogram"] for p in (0, again))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, reader.item(0)["spectrogram"])
