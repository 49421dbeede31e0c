"""Checkpoints: whole or not there, checked on loading, older ones to fall back to."""

from __future__ import annotations

import logging
import random

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from contracts.errors import Corrupt, Misuse
from training import checkpoint
from training.checkpoint import Identity, State

IDENTITY = Identity("a" * 64, "b" * 64)


def trained(steps: int):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizers = {
        "one": AdamW(net[0].parameters(), lr=3e-3, betas=(0.5, 0.9)),
        "two": SGD(net[2].parameters(), lr=0.1, momentum=0.9),
    }
    for _ in range(steps):
        net(torch.randn(5, 4)).square().mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
    return net, optimizers


def save(folder, step):
    net, optimizers = trained(step)
    state = State(step=step, skipped=1, scalers={"one": {"scale": 1e-05}}, excluded={"a": 1})
    average = {name: value.clone() for name, value in net.state_dict().items()}
    return checkpoint.save(folder, IDENTITY, state, net.state_dict(), optimizers, average)


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 3)
    found = checkpoint.newest(tmp_path, IDENTITY)
    assert found.state == State(step=3, skipped=1, scalers={"one": {"scale": 1e-05}}, excluded={"a": 1})
    net, optimizers = trained(3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, found.model[name])
        assert torch.equal(value, found.average[name])
    for phase, optimizer in optimizers.items():
        optimizer.load_state_dict(found.optimizers[phase])
    again, others = trained(3)
    for n, o in ((net, optimizers), (again, others)):
        torch.manual_seed(9)
        n.zero_grad()
        n(torch.randn(5, 4)).square().mean().backward()
        for optimizer in o.values():
            optimizer.step()
    for one, other in zip(net.parameters(), again.parameters()):
        assert torch.equal(one, other)


def test_equal_states_give_equal_bytes(tmp_path):
    one, other = save(tmp_path / "a", 2), save(tmp_path / "b", 2)
    for file in sorted(one.iterdir()):
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


def places(size: int) -> list[int]:
    """Offsets all over a file: its ends, and twelve between."""
    return sorted({0, 1, size // 2, size - 1, *(size * part // 13 for part in range(1, 13))})


@pytest.mark.parametrize("number", range(5))
def test_no_damage_to_any_file_is_loaded_in_silence(tmp_path, caplog, number):
    """Each of the five files cut short and with a flipped bit, all over it: the one before is used, and told."""
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    victim = sorted(newest.iterdir())[number]
    whole = victim.read_bytes()
    rng = random.Random(number)
    damaged = {f"cut at {place}": whole[:place] for place in places(len(whole))}
    damaged |= {
        f"bit of {place}": whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]
        for place in places(len(whole))
    }
    damaged["longer"] = whole + b" "
    for what, data in damaged.items():
        caplog.clear()
        victim.write_bytes(data)
        with caplog.at_level(logging.WARNING):
            found = checkpoint.newest(tmp_path, IDENTITY)
        assert found.state.step == 1, what
        assert victim.name in caplog.text
        assert "falling back to step-000000001" in caplog.text
        with pytest.raises(Corrupt):
            checkpoint.load(newest, IDENTITY)
    victim.write_bytes(whole)
    assert checkpoint.newest(tmp_path, IDENTITY).state.step == 2


def test_a_number_written_another_way_is_damage_too(tmp_path):
    path = save(tmp_path, 2) / "manifest.json"
    text = path.read_text()
    assert "1e-05" in text
    path.write_text(text.replace("1e-05", "1E-05"))  # one bit, and the same number
    with pytest.raises(Corrupt, match="not as it was written"):
        checkpoint.load(path.parent, IDENTITY)


def test_where_every_checkpoint_is_damaged_that_is_told(tmp_path, caplog):
    for step in (1, 2):
        (save(tmp_path, step) / "model.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path, IDENTITY) is None
    assert "falling back to step-000000001" in caplog.text
    assert "no checkpoint is left to fall back to" in caplog.text


def test_a_lost_file_names_both_digests(tmp_path):
    path = save(tmp_path, 2)
    (path / "model.safetensors").unlink()
    with pytest.raises(Corrupt, match=r"model\.safetensors.*expected [0-9a-f]{64}, found no file"):
        checkpoint.load(path, IDENTITY)
    assert checkpoint.newest(tmp_path, IDENTITY) is None


def test_other_data_are_refused_with_both_fingerprints(tmp_path):
    save(tmp_path, 2)
    with pytest.raises(Misuse, match=r"a{12}.*c{12}"):
        checkpoint.newest(tmp_path, Identity("c" * 64, "b" * 64))


@pytest.mark.parametrize("point", range(6))
def test_a_kill_during_the_write_leaves_the_one_before(tmp_path, monkeypatch, point):
    """Stops at the n-th file operation of ``save``, as a kill would; nothing is tidied up."""
    import os

    import contracts.files

    save(tmp_path, 1)

    class Killed(BaseException):
        pass

    calls = []

    def failing(real):
        def call(*arguments, **named):
            calls.append(real)
            if len(calls) > point:
                raise Killed
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(checkpoint, "save_file", failing(checkpoint.save_file))
    monkeypatch.setattr(checkpoint, "sha256_file", failing(checkpoint.sha256_file))
    monkeypatch.setattr(contracts.files.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(contracts.files.shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing
    with pytest.raises(Killed):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.newest(tmp_path, IDENTITY).state.step == 1
