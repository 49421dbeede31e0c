"""The ablation tables: rows are settings that exist, and measures tell variants apart."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from contract import make_artifact
from torch import nn
from toy_batch import make_batch

from systems.base import View
from systems.see_the_speaker import SYSTEM
from systems.see_the_speaker.motion_space import LIP_CONTEXT
from systems.see_the_speaker.tables import likeness, rebuilt


@pytest.mark.parametrize("number", SYSTEM.tables)
def test_rows_change_settings_that_there_are(number: str) -> None:
    table = SYSTEM.tables[number]
    for row in table.rows:
        assert set(row.changes) <= set(table.stages)
        assert set(row.paper) <= set(table.columns)
        for name in table.stages:
            stage = SYSTEM.stage(name)
            assert set(stage.needs) <= set(table.stages)
            settings = stage.preset("tiny", **row.changes.get(name, {})).settings.model_dump()
            assert settings != stage.preset("tiny").settings.model_dump() or name not in row.changes
    assert table.rows or table.notes, "an empty table says why"
    # a row changes one thing against the full model, which stands last
    assert all(len(row.changes) <= 1 for row in table.rows)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, nn.ModuleDict]:
    made: dict[str, nn.ModuleDict] = {}
    for name in SYSTEM.tables["X"].stages:
        kind = SYSTEM.stage(name)
        stage = kind.preset("tiny")
        batches = [make_batch(stage.view, 4, 0)]
        made[name] = make_artifact(
            stage, {need: made[need] for need in kind.needs}, batches, tmp_path_factory.mktemp(name)
        )
    return made


def test_what_is_switched_off_changes_the_picture(networks: Mapping[str, nn.ModuleDict]) -> None:
    view = View(("frames", "landmarks", "audio", "voice"), frames=2, size=128, context=LIP_CONTEXT)
    batch = make_batch(view, 2, 5)
    found = {}
    with torch.no_grad():
        for refiner in (False, True):
            for codebook in (False, True):
                values = rebuilt(networks, networks, [batch], refiner=refiner, codebook=codebook)
                assert {len(column) for column in values.values()} == {2}
                found[refiner, codebook] = values["PSNR ↑"]
    assert len({tuple(values) for values in found.values()}) == 4


def test_a_picture_is_most_like_itself(networks: Mapping[str, nn.ModuleDict]) -> None:
    true = make_batch(View(("frames",), size=64), 2, 1)["frames"][:, 0]
    with torch.no_grad():
        itself = likeness(true, true, networks)
        other = likeness((true + 0.2 * torch.randn(true.shape)).clamp(-1, 1), true, networks)
    assert itself["SSIM ↑"].tolist() == pytest.approx([1, 1])
    assert itself["LPIPS ↓"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (other["SSIM ↑"] < 0.99).all()
    assert (other["LPIPS ↓"] > itself["LPIPS ↓"]).all()
    assert (other["PSNR ↑"] < itself["PSNR ↑"]).all()
