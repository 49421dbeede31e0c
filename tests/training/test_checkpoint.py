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
    return checkpoint.save(folder, IDENTITY, State(step=step, skipped=1), net.state_dict(), optimizers)


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 3)
    found = checkpoint.newest(tmp_path, IDENTITY)
    assert found.state == State(step=3, skipped=1)
    net, optimizers = trained(3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, found.model[name])
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


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_or_a_cut_is_seen_and_the_one_before_used(tmp_path, caplog, seed):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    rng = random.Random(seed)
    victim = rng.choice(sorted(newest.iterdir()))
    data = bytearray(victim.read_bytes())
    if seed % 3:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        data = data[: rng.randrange(len(data))]
    victim.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = checkpoint.newest(tmp_path, IDENTITY)
    assert found.state.step == 1
    assert victim.name in caplog.text
    with pytest.raises(Corrupt):
        checkpoint.load(newest, IDENTITY)


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
