import math

import torch
from contract import TrainedContract

from systems.av_prior.disguise import disguise
from systems.av_prior.face_generator import FaceGenerator
from systems.av_prior.face_representation import TAU, FaceRepresentation, identity_contrast


class TestFaceRepresentation(TrainedContract):
    system = "av_prior"
    stage = FaceRepresentation
    items = 2
    changes = {"stem": 8, "widths": (8, 16, 24, 32), "channels": (24, 16, 12, 8, 8)}  # noqa: RUF012
    batch_measures = ("retrieval", "retrieval_chance")


def test_the_paper_s_backbone_is_resnext_50() -> None:
    with torch.device("meta"):
        model = FaceRepresentation.preset("paper").build_model({})
    encoder = model["identity_encoder"]
    body = sum(p.numel() for name, p in encoder.named_parameters() if not name.startswith("linear"))
    assert 22.9e6 < body < 23.1e6  # 25.03 M with the classifier of a thousand classes, which has 2.05 M
    assert model["generator"](*(torch.zeros(1, part, device="meta") for part in (2048, 512))).shape[-1] == 224


def test_identities_are_told_apart_and_doubles_do_not_count() -> None:
    codes = torch.eye(3)
    apart = identity_contrast(codes, codes, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(apart, torch.tensor(math.log(1 + 2 * math.exp(-1 / TAU))))
    doubles = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])  # rows 0 and 1 are one person
    torch.testing.assert_close(
        identity_contrast(doubles, doubles, torch.tensor([0, 0, 2])),
        torch.tensor((2 * math.log(1 + math.exp(-1 / TAU)) + math.log(1 + 2 * math.exp(-1 / TAU))) / 3),
    )


def test_a_disguise_stretches_about_the_middle_and_is_drawn_by_the_generator() -> None:
    image = torch.zeros(2, 3, 32, 32)
    image[..., 15:17, :] = 1
    seen, again, other = (disguise(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(seen, again)
    assert not torch.equal(seen, other)
    line = seen[:, 0, :, 16]
    assert (line.argmax(1) - 15.5).abs().max() < 1, "what is in the middle stays there"
    torch.testing.assert_close(line, line.flip(1))


def test_a_generator_that_takes_over_paints_with_what_was_learnt() -> None:
    torch.manual_seed(0)
    before, after = (FaceGenerator((4, 5), 16, 8, (6, 4, 4)), FaceGenerator((4, 3, 2), 16, 8, (6, 4, 4)))
    after.take_over(before)
    f_id, nothing = torch.randn(2, 4), (torch.zeros(2, 3), torch.zeros(2, 2))
    torch.testing.assert_close(after(f_id, *nothing), before(f_id, torch.zeros(2, 5)))
