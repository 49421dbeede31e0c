"""The portrait diffusion: what the prior shifts, what it must not shift, and its baseline."""

from typing import ClassVar

import pytest
import torch
from contract import TrainedContract, build, generator
from torch import nn

from contracts.errors import Misuse
from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.denoising import SCHEDULE, WienerDenoiser, make_scheduler, predict_noise, sample
from systems.see_the_speaker.face_prior import FacePrior, FacePriorStage
from systems.see_the_speaker.portrait_diffusion import PortraitDiffusion, _other_speakers
from systems.see_the_speaker.portrait_pipeline import PortraitGenerator
from systems.see_the_speaker.saw import BETA_0, SampleAdaptiveWeighting, SpeechTokens


class TestPortraitDiffusion(TrainedContract):
    system = "see_the_speaker"
    stage = PortraitDiffusion
    lineage = (Conre, FacePriorStage)
    batch_measures = ("denoising_other_speech",)
    paper_parents: ClassVar = {"face_prior": lambda: nn.ModuleDict({"prior": FacePrior()})}
    paper_parameters = 340.098  # UNet 306.5, SAW 33.6

    @pytest.mark.parametrize("prior", ["none", "constant", "attention"])
    def test_variants_of_the_prior_train(self, parents, batches, prior):
        stage = PortraitDiffusion.preset("tiny", prior=prior)
        model = build(stage, parents, batches[:1])
        stage.loss(model, batches[0], "main", generator(0, 0)).total.backward()
        silent = [name for name, p in model["saw"].named_parameters() if p.grad is None]
        assert not silent

    def test_size_must_be_that_of_conre(self, parents):
        with pytest.raises(Misuse, match="set both alike"):
            PortraitDiffusion.preset("tiny", size=96).build_model(parents)

    def test_wiener_knows_the_training_faces(self, subject, parents, batches):
        model = build(subject, parents, batches)
        with torch.no_grad():
            codes = torch.cat([subject._codes(model, batch)[0] for batch in batches])
        torch.testing.assert_close(model["wiener"].mean, codes.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model["wiener"].variance, codes.var(0, correction=0), rtol=1e-3, atol=1e-5)

    def test_a_unet_that_the_wiener_denoiser_leads_begins_as_it(self, subject, parents, batches):
        measured = subject.validate(build(subject, parents, batches).eval(), batches[0], generator(0, 0))
        torch.testing.assert_close(measured["denoising"], measured["denoising_wiener"])

    def test_portraits_of_two_are_two_of_one(self, subject, parents, batches, unbroken, tmp_path):
        draw = self._generator(subject, parents, unbroken, tmp_path)
        speech = batches[0]["spectrogram"][:2]
        both = draw(speech, [3, 4])
        assert both.shape == (2, 3, 64, 64)
        assert both.abs().max() <= 1
        torch.testing.assert_close(both[:1], draw(speech[:1], [3]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(both[1:], draw(speech[1:], [4]), rtol=1e-4, atol=1e-4)

    def test_seed_and_speech_decide_the_portrait(self, subject, parents, batches, unbroken, tmp_path):
        draw = self._generator(subject, parents, unbroken, tmp_path)
        speech = batches[0]["spectrogram"][:1]
        first = draw(speech, [3], steps=4)
        assert torch.equal(first, draw(speech, [3], steps=4))
        assert not torch.allclose(first, draw(speech, [4], steps=4), atol=1e-3)
        assert not torch.allclose(first, draw(batches[0]["spectrogram"][1:2], [3], steps=4), atol=1e-6)
        with pytest.raises(ValueError, match="as many seeds"):
            draw(speech, [3, 4])

    @staticmethod
    def _generator(subject, parents, unbroken, folder):
        subject.export(unbroken[0], folder)
        return PortraitGenerator(parents["conre"], parents["face_prior"], subject.load(folder))


class OracleUNet(nn.Module):
    """Returns the ε that it was told, whatever it reads; keeps what it read."""

    class config:
        in_channels, sample_size = 4, 2

    def __init__(self, noise):
        super().__init__()
        self.noise, self.read = noise, []

    def forward(self, grid, t, encoder_hidden_states):
        self.read.append(grid.flatten(1))
        return type("Output", (), {"sample": self.noise.unflatten(1, (4, 2, 2))})


@pytest.mark.parametrize("beta", [0.0, 0.01, 1.0, 25.0])
@pytest.mark.parametrize("prior_at", ["every_step", "start"])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_with_the_true_noise_sampling_gives_back_z0_whatever_beta_is(beta, prior_at, steps):
    torch.manual_seed(0)
    z_0, noise, z_s, z_p = torch.randn(3, 16), torch.randn(3, 16), torch.randn(3, 16), torch.randn(16)
    saw = SampleAdaptiveWeighting(dim=16, prior_at=prior_at, steps=steps)
    nn.init.constant_(saw.w_p.bias, beta)
    oracle = OracleUNet(noise)
    networks = {"unet": oracle, "saw": saw, "speech_tokens": SpeechTokens(16, 4, 8), "wiener": WienerDenoiser(16)}
    scheduler = make_scheduler(steps)
    z_t = start = scheduler.add_noise(z_0, noise, scheduler.timesteps[:1])
    with torch.no_grad():
        result = sample(lambda z, t: predict_noise(networks, z, t, z_s, z_p), start, steps)
    torch.testing.assert_close(result, z_0, rtol=1e-3, atol=1e-3)
    assert len(oracle.read) == steps
    for i, t in enumerate(scheduler.timesteps):  # what the network read: z^t on its way, shifted or not
        z_t = scheduler.add_noise(z_0, noise, t[None])
        shifted = prior_at == "every_step" or i == 0
        torch.testing.assert_close(oracle.read[i], z_t + shifted * beta * z_p, rtol=1e-3, atol=1e-3)


def test_sampling_is_diffusers_ddim():
    torch.manual_seed(0)
    z, mix = torch.randn(2, 16), torch.randn(16, 16) / 4
    ours = sample(lambda z, t: z @ mix, z, 10)
    scheduler = make_scheduler(10)
    for t in scheduler.timesteps:
        z = scheduler.step(z @ mix, t, z).prev_sample
    torch.testing.assert_close(ours, z, rtol=1e-4, atol=1e-4)


def test_linear_weights_are_equation_8():
    saw = SampleAdaptiveWeighting(dim=3)
    w_s, w_p, b = torch.randn(3, 3), torch.randn(3, 3), torch.randn(3)
    saw.load_state_dict({"w_s.weight": w_s, "w_p.weight": w_p, "w_p.bias": b})
    z_s, z_p = torch.randn(2, 3), torch.randn(3)
    beta = torch.stack([w_s @ z + w_p @ z_p + b for z in z_s])
    torch.testing.assert_close(saw.weight(z_s, z_p), beta)
    torch.testing.assert_close(saw(z_s, z_p, torch.tensor([0, 999])), beta * z_p)


@pytest.mark.parametrize(
    ("prior", "beta"), [("none", 0.0), ("constant", BETA_0), ("linear", BETA_0), ("attention", BETA_0)]
)
def test_weights_before_training(prior, beta):
    saw = SampleAdaptiveWeighting(dim=4, prior=prior)
    torch.testing.assert_close(saw.weight(torch.randn(2, 4), torch.randn(4)), torch.full((2, 4), beta))


def test_attention_costs_four_times_the_weights():
    def count(prior):
        return sum(p.numel() for p in SampleAdaptiveWeighting(dim=64, prior=prior).parameters() if p.ndim == 2)

    # Table V counts multiplications: 2 d² against 8 d², since the attention's 4 d² weights are used at two tokens
    assert (count("linear"), count("attention")) == (2 * 64**2, 4 * 64**2)


def test_wiener_is_the_best_linear_denoiser():
    torch.manual_seed(0)
    wiener = WienerDenoiser(dim=2)
    wiener.mean.copy_(torch.tensor([3.0, -1.0]))
    wiener.variance.copy_(torch.tensor([4.0, 0.25]))
    noise, alpha = torch.randn(200_000, 2), torch.full((200_000,), 0.3)
    z_0 = wiener.mean + wiener.variance.sqrt() * torch.randn(200_000, 2)
    z_t = 0.3**0.5 * z_0 + 0.7**0.5 * noise
    for i in range(2):  # least squares over 1, z_t finds the same line
        design = torch.stack([torch.ones(200_000), z_t[:, i]], 1)
        line = torch.linalg.lstsq(design, noise[:, i : i + 1]).solution
        torch.testing.assert_close(wiener(z_t, alpha)[:, i], (design @ line)[:, 0], rtol=0.02, atol=0.02)


def test_schedule_is_stable_diffusions():
    assert SCHEDULE["beta_schedule"] == "scaled_linear"
    assert make_scheduler(10).timesteps.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]


def test_other_speakers():
    assert _other_speakers(torch.tensor([5, 5, 7, 5])).tolist() == [2, 2, 3, 2]
    assert _other_speakers(torch.tensor([1, 1])).tolist() == [0, 1]


def test_tokens_are_pieces_of_the_code():
    tokens = SpeechTokens(dim=8, tokens=4, width=2)
    nn.init.eye_(tokens.project.weight)
    nn.init.zeros_(tokens.project.bias)
    torch.testing.assert_close(tokens(torch.arange(8.0)[None]), torch.arange(8.0).reshape(1, 4, 2))
    with pytest.raises(ValueError, match="equal tokens"):
        SpeechTokens(dim=10, tokens=4)
