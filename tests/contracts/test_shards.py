"""Shards: the record is written last, bytes are reproducible, every damage is named."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Corrupt
from contracts.files import sha256_file
from contracts.shards import Shard, committed, dataset_digest, open_shard, read_shard, write_shard


def lines(keys: list[str]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for row, key in enumerate(keys):
        result.append({"level": "row", "key": key, "row": row, "state": "kept", "kind": "clip"})
        result.append({"level": "span", "key": f"{key}-s00", "row": row, "span": 0, "state": "kept", "kind": "clip"})
    refused = {"row": len(keys), "state": "rejected", "reason": "NO_FACE", "extra.group": "x"}
    return [*result, {"level": "row", "key": "r", **refused}]


def make(dataset: Path, number: int = 0) -> None:
    dataset.mkdir(exist_ok=True)
    samples = [(f"{key}-s00", {"json": b"{}", "wav": key.encode() * 50}) for key in ("a", "b")]
    write_shard(dataset, number, samples, lines(["a", "b"]), steps="s", rows="r")


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name)
    for file in ("shard-000000.tar", "shard-000000.parquet", "shard-000000.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert dataset_digest(tmp_path / "one") == dataset_digest(tmp_path / "two")


def test_members_are_read_back(tmp_path: Path) -> None:
    make(tmp_path)
    shard = open_shard(tmp_path, 0)
    assert shard is not None
    shard.verify()
    assert shard.read("b-s00", ("wav",)) == {"wav": b"b" * 50}
    assert (shard.record.read, shard.record.kept, shard.record.rejected) == (3, 2, {"NO_FACE": 1})


def test_without_its_record_a_shard_does_not_exist(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "shard-000000.json").unlink()
    assert open_shard(tmp_path, 0) is None
    assert list(committed(tmp_path)) == []


def test_accounts_must_add_up(tmp_path: Path) -> None:
    bad = [line | {"state": "kept"} for line in lines(["a"])]
    bad[0]["state"] = "lost"
    with pytest.raises(KeyError):
        write_shard(tmp_path, 0, [], bad, steps="s", rows="r")


@pytest.mark.parametrize("key", ["../a", "a.b", "A", "", "a/b"])
def test_keys_are_plain_names(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        write_shard(tmp_path, 0, [(key, {"json": b"{}"})], [], steps="s", rows="r")


def test_an_undeclared_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="undeclared"):
        write_shard(tmp_path, 0, [], [{"level": "row", "nonsense": 1}], steps="s", rows="r")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    shard = open_shard(tmp_path, 0)
    assert shard is not None
    for path in (shard.tar, shard.ledger_file):
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(Corrupt) as found:
                shard.verify()
            assert found.value.file == str(path)
            assert found.value.expected != found.value.actual
        path.write_bytes(whole)
    shard.verify()


def test_a_cut_tar_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    tar = tmp_path / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    assert open_shard(tmp_path, 0) is None  # made anew by ingestion
    with pytest.raises(Corrupt, match=r"shard-000000\.tar: has 9728 of 10240 bytes \(expected \w{64}, found \w{64}\)"):
        list(committed(tmp_path))


def test_every_flipped_bit_of_a_record_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    record = tmp_path / "shard-000000.json"
    whole = record.read_bytes()
    for place in range(len(whole)):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match=r"shard-000000\.json"):
            read_shard(tmp_path, 0)
        assert open_shard(tmp_path, 0) is None
    record.write_bytes(whole)
    assert open_shard(tmp_path, 0) is not None


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "1", '"a"', "[" * 200_000])
def test_a_record_that_is_none_is_found(tmp_path: Path, text: str) -> None:
    make(tmp_path)
    (tmp_path / "shard-000000.json").write_text(text)
    with pytest.raises(Corrupt, match="not a readable record"):
        list(committed(tmp_path))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    shard = open_shard(tmp_path, 0)
    assert shard is not None
    with tarfile.open(shard.tar, "w") as tar:
        link = tarfile.TarInfo("a-s00.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(Corrupt, match="unexpected member"):
        _ = shard.offsets


@pytest.mark.parametrize("damage", [slice(-40, None), slice(0, None)])
def test_a_ledger_that_is_none_is_corrupt_even_where_its_digest_fits(tmp_path: Path, damage: slice) -> None:
    make(tmp_path)
    shard = open_shard(tmp_path, 0)
    assert shard is not None
    data = bytearray(shard.ledger_file.read_bytes())
    data[damage] = bytes(len(data[damage]))
    shard.ledger_file.write_bytes(data)
    record = shard.record.model_copy(update={"ledger_sha256": sha256_file(shard.ledger_file)})
    with pytest.raises(Corrupt, match="not a readable ledger"):
        Shard(tmp_path, record).ledger()
