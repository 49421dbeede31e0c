"""Table 2: rows are single settings, measured values are those of the frames."""

import math

import pytest
import torch
from contract import build
from toy_batch import make_batch

from systems.g4g import SYSTEM
from systems.g4g.dubbing import G4GStage, dub
from systems.g4g.regions import core, face_of
from systems.g4g.sync_expert import SyncExpertStage
from systems.g4g.tables import COLUMNS, dubbed


def test_rows_differ_from_the_last_in_the_setting_that_they_name() -> None:
    *others, ours = SYSTEM.tables["2"].rows
    assert ours.name == "Ours"
    assert not ours.changes
    for row in others:
        assert set(row.paper) == set(COLUMNS)
        ((stage, changes),) = row.changes.items()
        settings, whole = (G4GStage.preset("paper", **c).settings.model_dump() for c in (changes, {}))
        assert stage == "g4g"
        assert {name for name, value in settings.items() if value != whole[name]} == set(changes)


def test_the_paper_s_own_table_has_supervision_do_harm() -> None:
    """What the notes say of it."""
    _, without, _, ours = (row.paper for row in SYSTEM.tables["2"].rows)
    for column in COLUMNS:
        assert (without[column] > ours[column]) == column.endswith("↑"), column


def test_measures_are_of_the_dubbed_frames() -> None:
    parents = {"sync_expert": build(SyncExpertStage.preset("tiny"), {}, [])}
    stage = G4GStage.preset("tiny", size=52)
    networks = {**parents, "g4g": build(stage, parents, []).eval()}
    batch = make_batch(stage.view, 2, 0)
    found = dubbed(networks, networks, [batch, batch])
    assert {len(values) for values in found.values()} == {4}
    assert all(math.isfinite(value) for values in found.values() for value in values)
    with torch.no_grad():
        face = dub(networks["g4g"]["generator"], batch)[0].face.unflatten(0, (2, 5))
    where = core(52)[0].bool()
    mse = ((face[1] / 2 - face_of(batch["frames"])[1] / 2)[..., where] ** 2).mean()
    assert found["MSE ↓"][1] == pytest.approx(float(mse), rel=1e-4)
    assert found["PSNR ↑"][1] == pytest.approx(-10 * math.log10(float(mse)), rel=1e-4)
