"""The face prior: balanced, seeded, and honest about how many faces it saw."""

import logging

import pytest
import torch
from contract import ComputedContract
from toy_batch import take

from contracts.errors import Misuse
from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.face_prior import FacePriorStage


class TestFacePrior(ComputedContract):
    system = "see_the_speaker"
    stage = FacePriorStage
    lineage = (Conre,)

    def test_is_the_mean_code_and_says_of_how_many(self, subject, parents, batches):
        prior = subject.compute(parents, batches)["prior"]
        with torch.no_grad():
            codes = [parents["conre"]["face_encoder"](batch["frames"][:, 0]) for batch in batches]
        torch.testing.assert_close(prior.z_p, torch.cat(codes).mean(0), rtol=1e-5, atol=1e-6)
        assert (prior.config.n_used, prior.config.women, prior.config.men) == (12, 6, 6)
        assert prior.config.n_wanted == 10_000

    def test_unbalanced_faces_are_refused(self, subject, parents, batches):
        with pytest.raises(Misuse, match="unbalanced"):
            subject.compute(parents, [take(batches[0], slice(0, 3))])

    def test_picture_shows_the_mean_face_and_the_decoded_prior(self, subject, parents, batches):
        model = subject.compute(parents, batches)
        with torch.no_grad():
            sheet = subject.picture(model, batches[0], torch.Generator())
        assert sheet.shape[1] > 2 * 64
        assert sheet.std() > 0

    def test_size_must_be_that_of_conre(self, parents, batches):
        with pytest.raises(Misuse, match="set both alike"):
            FacePriorStage.preset("tiny", size=96).compute(parents, batches)


GENDERS = ["f"] * 30 + ["m"] * 50 + ["unknown"] * 20
KEYS = [f"key-{i}" for i in range(100)]


def test_draws_half_women_half_men():
    drawn = FacePriorStage.preset("tiny", n=20).draw(GENDERS, KEYS)
    assert drawn == sorted(set(drawn))
    assert [GENDERS[i] for i in drawn] == ["f"] * 10 + ["m"] * 10


def test_the_seed_decides_the_draw():
    first, again, other = (FacePriorStage.preset("tiny", n=20, seed=s).draw(GENDERS, KEYS) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_draw_depends_on_keys_alone_and_new_faces_move_few():
    stage = FacePriorStage.preset("tiny", n=20)
    before = {KEYS[i] for i in stage.draw(GENDERS, KEYS)}
    backwards = stage.draw(GENDERS[::-1], KEYS[::-1])
    assert {KEYS[::-1][i] for i in backwards} == before
    more, women = [*KEYS, *(f"new-{i}" for i in range(10))], [*GENDERS, *"f" * 10]
    after = {more[i] for i in stage.draw(women, more)}
    assert {key for key in after - before if not key.startswith("new")} == set()
    assert 0 < len(after - before) <= 6  # of ten women among forty; the men stay
    # written down once: another machine, another Python, the same faces
    assert sorted(before)[:4] == ["key-1", "key-12", "key-13", "key-14"]


def test_too_few_faces_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        drawn = FacePriorStage.preset("paper").draw(GENDERS, KEYS)
    assert len(drawn) == 60
    assert "N = 60 faces instead of 10000" in caplog.text


def test_enough_faces_is_not_said(caplog):
    with caplog.at_level(logging.WARNING):
        FacePriorStage.preset("tiny", n=60).draw(GENDERS, KEYS)
    assert not caplog.text


@pytest.mark.parametrize("genders", [["f"] * 5, ["m"] * 5, ["unknown"] * 5, []])
def test_one_gender_alone_is_refused(genders):
    with pytest.raises(Misuse, match="unbalanced"):
        FacePriorStage.preset("tiny").draw(genders, KEYS[: len(genders)])
