"""A bundle is loaded whole and unharmed, or not at all, with the file and both digests named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.bundle import BUNDLE_FILE, Bundle
from contracts.errors import Corrupt, Misuse
from contracts.files import sha256_file
from serving.loader import check_bundle, load_pipeline
from serving.weights import check_finite, stored_shapes
from systems.base import Request

WEIGHTS = "mouth/gain/diffusion_pytorch_model.safetensors"


def reseal(folder: Path, **changes: object) -> None:
    """A manifest that fits the files again: what a mistaken tool, not a disk, would write."""
    path = folder / BUNDLE_FILE
    values = json.loads(path.read_text()) | changes
    for name in values["files"]:
        values["files"][name] = sha256_file(folder / name)
        stage, file = name.split("/", 1)
        if stage in values["stages"]:
            values["stages"][stage]["files"][file] = values["files"][name]
    path.write_text(json.dumps(values))


def test_loads_and_draws(bundle: Path) -> None:
    pipeline, manifest = load_pipeline(bundle)
    assert isinstance(manifest, Bundle)
    audio = np.zeros(16_000, np.float32)
    audio[8_000:] = 0.3
    frames = pipeline(audio=audio, seed=3).frames
    assert frames.shape == (25, 32, 32, 3)
    dark = (frames == (90, 10, 20)).all(-1).sum((1, 2))
    assert dark[20] > dark[2] > 0  # the mouth opens with the sound
    assert not any(p.requires_grad for p in pipeline.gain.parameters())


def test_batch_of_two_is_two_of_one(bundle: Path) -> None:
    pipeline, _ = load_pipeline(bundle)
    rng = np.random.default_rng(0)
    requests = [Request(audio=rng.uniform(-0.5, 0.5, n).astype(np.float32), seed=n) for n in (9_000, 20_001)]
    together: list[list[np.ndarray]] = [[], []]
    for chunk in pipeline.stream(requests):
        together[chunk.request].append(chunk.frames)
    for request, parts in zip(requests, together, strict=True):
        alone = pipeline(audio=request.audio, seed=request.seed).frames
        np.testing.assert_array_equal(alone, np.concatenate(parts))
        assert len(alone) == round(25 * len(request.audio) / 16_000)


def test_b34_edited_file_is_named_with_both_digests(own_bundle: Path) -> None:
    path = own_bundle / WEIGHTS
    expected = sha256_file(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt) as caught:
        load_pipeline(own_bundle)
    assert caught.value.file == str(path)
    assert (caught.value.expected, caught.value.actual) == (expected, sha256_file(path))


@pytest.mark.parametrize("name", [WEIGHTS, "face/canvas/config.json"])
def test_missing_file(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(Corrupt, match="is missing") as caught:
        check_bundle(own_bundle)
    assert caught.value.file == str(own_bundle / name)


def test_b34_extra_file(own_bundle: Path) -> None:
    (own_bundle / "mouth" / "gain" / "extra.json").write_text("{}")
    with pytest.raises(Corrupt, match=r"extra\.json: is not in the manifest"):
        check_bundle(own_bundle)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "weights.pkl", "code.py"])
def test_b34_no_file_that_could_carry_code(own_bundle: Path, name: str) -> None:
    (own_bundle / "mouth" / "gain" / name).write_bytes(pickle.dumps([1]))
    with pytest.raises(Corrupt, match=name):
        check_bundle(own_bundle)


def test_link(own_bundle: Path) -> None:
    path = own_bundle / WEIGHTS
    path.rename(own_bundle.parent / "elsewhere.safetensors")
    path.symlink_to(own_bundle.parent / "elsewhere.safetensors")
    with pytest.raises(Corrupt, match="neither a plain file"):
        check_bundle(own_bundle)


def test_manifests_must_agree(own_bundle: Path) -> None:
    path = own_bundle / BUNDLE_FILE
    values = json.loads(path.read_text())
    values["stages"]["mouth"]["files"]["gain/config.json"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(Corrupt, match="disagree") as caught:
        check_bundle(own_bundle)
    assert caught.value.expected == "0" * 64


def test_nothing_is_imported_or_read_before_the_digests_fit(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401  (so that a read through it would be possible)

    from systems import catalogue

    monkeypatch.setattr(catalogue, "get", lambda name: pytest.fail("the system was imported"))
    (own_bundle / WEIGHTS).write_bytes(b"not what it was")
    with pytest.raises(Corrupt):
        load_pipeline(own_bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"system": "loudmouth"}'])
def test_unreadable_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / BUNDLE_FILE).write_text(text)
    with pytest.raises(Corrupt, match=BUNDLE_FILE):
        check_bundle(own_bundle)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="publish"):
        load_pipeline(tmp_path)


def test_b34_unknown_system_is_not_imported(own_bundle: Path) -> None:
    path = own_bundle / BUNDLE_FILE
    values = json.loads(path.read_text())
    for stage in values["stages"].values():
        stage["system"] = "os"
    values["system"] = "os"
    path.write_text(json.dumps(values))
    with pytest.raises(Misuse, match=r"not installed here; there are .*loudmouth"):
        load_pipeline(own_bundle)


def test_stage_left_out(own_bundle: Path) -> None:
    path = own_bundle / BUNDLE_FILE
    values = json.loads(path.read_text())
    del values["stages"]["mouth"]
    for name in [name for name in values["files"] if name.startswith("mouth/")]:
        del values["files"][name]
        (own_bundle / name).unlink()
    path.write_text(json.dumps(values))
    with pytest.raises(Corrupt, match="mouth"):
        load_pipeline(own_bundle)


def test_b34_weights_that_are_not_finite(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    def spoil(models: dict) -> None:
        models["face"]["canvas"].mean[0, 3, 4] = float("nan")

    with pytest.raises(Corrupt, match="mean is not finite"):
        load_pipeline(make_bundle(tmp_path, spoil))


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_type_of_weight_is_looked_at(tmp_path: Path, kind: str, value: float) -> None:
    import torch
    from safetensors.torch import save_file

    weights = torch.linspace(-60_000, 60_000, 5_000).to(getattr(torch, kind))
    save_file({"a": torch.arange(3), "b": weights}, tmp_path / "fine.safetensors")
    check_finite(tmp_path / "fine.safetensors")
    weights[-1] = value
    save_file({"a": torch.arange(3), "b": weights}, tmp_path / "spoilt.safetensors")
    with pytest.raises(Corrupt, match="b is not finite"):
        check_finite(tmp_path / "spoilt.safetensors")


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines", "trust_remote_code"])
def test_b34_a_config_that_names_code_to_import(own_bundle: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from systems import catalogue

    monkeypatch.setattr(catalogue, "get", lambda name: pytest.fail("the system was imported"))
    path = own_bundle / "mouth" / "gain" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inner": [{key: {"AutoModel": "code--modeling.Net"}}]}))
    reseal(own_bundle)  # whoever forged it also mended the digests
    with pytest.raises(Corrupt, match=f"config.json: {key!r} names code") as caught:
        load_pipeline(own_bundle)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]"])
def test_b34_a_config_that_is_none(own_bundle: Path, text: str) -> None:
    (own_bundle / "mouth" / "gain" / "config.json").write_text(text)
    reseal(own_bundle)
    with pytest.raises(Corrupt, match=r"config\.json"):
        check_bundle(own_bundle)


def test_weight_missing_from_its_file(own_bundle: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"unrelated": torch.zeros(1)}, own_bundle / WEIGHTS)
    reseal(own_bundle)
    with pytest.raises(Corrupt, match="gain"):
        load_pipeline(own_bundle)


def test_b34_weight_of_another_shape(own_bundle: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"gain.weight": torch.zeros(3, 1)}, own_bundle / WEIGHTS)
    reseal(own_bundle)
    with pytest.raises(Corrupt, match="mouth"):
        load_pipeline(own_bundle)


def test_truncated_weights_with_a_fitting_manifest(own_bundle: Path) -> None:
    path = own_bundle / WEIGHTS
    path.write_bytes(path.read_bytes()[:20])
    reseal(own_bundle)
    with pytest.raises(Corrupt, match="mouth"):
        load_pipeline(own_bundle)
    with pytest.raises(Corrupt, match="safetensors"):
        stored_shapes(path.parent)
