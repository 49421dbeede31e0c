"""ConRe's networks: their sizes, codes and round trips."""

import pytest
import torch
from contract import TrainedContract, build, generator
from toy_batch import take

from contracts.errors import Misuse
from systems.common.losses import detached_features
from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.face_autoencoder import FaceDecoder, FaceEncoder
from systems.see_the_speaker.speech_encoder import CBAM, SpeechEncoder


class TestConre(TrainedContract):
    system = "see_the_speaker"
    stage = Conre
    batch_measures = ("recall_at_1", "recall_at_1_by_chance")
    paper_parameters = 299.235  # with the UNet and SAW 639.3 M; Table XII leaves 640 M for SCFP

    def test_other_latent_trains_too(self, batches):
        stage = Conre.preset("tiny", latent="conv")
        model = build(stage, {}, batches[:1])
        stage.loss(model, batches[0], "main", generator(0, 0)).total.backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_mean_face_is_the_mean_of_the_training_faces(self, subject, batches):
        model = build(subject, {}, batches[:3])
        faces = torch.cat([batch["frames"][:, 0] for batch in batches[:3]])
        torch.testing.assert_close(model["face_decoder"].mean_face, faces.mean(0))

    def test_lpips_does_not_train_the_face_encoder(self, subject, batches):
        model = build(subject, {}, batches[:1]).train()
        face = batches[0]["frames"][:, 0]
        drawn = model["face_decoder"](model["face_encoder"](face).detach())
        detached_features(model["face_encoder"], drawn)[-1].sum().backward()
        assert all(p.grad is None for p in model["face_encoder"].parameters())
        assert all(p.grad is not None for p in model["face_decoder"].parameters())

    def test_one_clip_alone_is_refused(self, subject, batches):
        with pytest.raises(Misuse, match="batch of one"):
            subject.loss(build(subject, {}, batches[:1]), take(batches[0], slice(0, 1)), "main", generator(0, 0))

    def test_stand_in_is_named(self, subject):
        assert subject.stand_ins == ("LPIPS -> conre.face_encoder",)


def test_face_encoder_has_the_size_of_vgg16_without_its_last_layer():
    with torch.device("meta"):
        count = sum(p.numel() for p in FaceEncoder().parameters())
    assert count == 138_357_544 - (4096 * 1000 + 1000)  # VGG-16 of Simonyan & Zisserman, less fc8


def test_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        encoder, decoder = FaceEncoder(), FaceDecoder()
    there = [(m.in_channels, m.out_channels) for m in encoder.blocks.modules() if isinstance(m, torch.nn.Conv2d)]
    back = [(m.out_channels, m.in_channels) for m in decoder.blocks.modules() if isinstance(m, torch.nn.Conv2d)]
    assert list(reversed(back))[1:] == there[1:]


@pytest.mark.parametrize("latent", ["fc7", "conv"])
def test_face_goes_to_a_code_and_back_to_a_face(latent):
    shape = {"size": 32, "widths": (4, 8), "depths": (1, 1), "hidden": 16, "grid": (4, 4, 4), "latent": latent}
    encoder, decoder = FaceEncoder(**shape).eval(), FaceDecoder(**shape).eval()
    face = torch.randn(2, 3, 32, 32).clamp(-1, 1)
    z = encoder(face)
    assert z.shape == (2, 64)
    assert decoder(z).shape == face.shape
    assert decoder(z).abs().max() <= 1


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        FaceEncoder(size=100)


def test_standardise_follows_the_data_and_restore_undoes_it():
    torch.manual_seed(0)
    encoder = FaceEncoder(size=32, widths=(4, 8), depths=(1, 1), hidden=16, grid=(1, 4, 4), momentum=0.5)
    z = 3 + 2 * torch.randn(4096, 16)
    for _ in range(30):
        encoder.train().standardise(z)
    encoder.eval()
    standard = encoder.standardise(z)
    assert standard.mean(0).abs().max() < 1e-3
    assert (standard.std(0) - 1).abs().max() < 1e-3
    torch.testing.assert_close(encoder.restore(standard), z)
    torch.testing.assert_close(encoder.deviation, z.std(0), rtol=1e-3, atol=0)


def test_decoder_draws_the_difference_from_the_mean_face():
    decoder = FaceDecoder(size=32, widths=(4, 8), depths=(1, 1), hidden=16, grid=(1, 4, 4), from_mean_face=True)
    decoder.mean_face.uniform_(-0.9, 0.9)
    torch.nn.init.zeros_(decoder.last.weight)
    torch.testing.assert_close(decoder(torch.randn(1, 16))[0], decoder.mean_face)


def test_speech_code_has_the_length_of_a_standard_normal_vector():
    encoder = SpeechEncoder(dim=16, widths=(4,) * 9, stem_stride=(4, 4)).eval()
    code = encoder.code(torch.randn(2, 2, 257, 598))
    torch.testing.assert_close(code.norm(dim=1), torch.full((2,), 4.0))


def test_cbam_only_weakens():
    x = torch.randn(2, 8, 5, 7)
    assert (CBAM(8)(x).abs() <= x.abs()).all()
