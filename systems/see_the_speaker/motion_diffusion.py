"""Stage ``motion_diffusion``: the distribution of motion given speech (§III-B2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from contracts.sample import SAMPLES_PER_FRAME
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.curves import draw_curves
from systems.common.frozen import Frozen
from systems.common.noise import item_generators, normal
from systems.see_the_speaker.hr_codebook import motion_side
from systems.see_the_speaker.motion_sampling import TIMES, add_noise, kept, sample_window
from systems.see_the_speaker.motion_unet import MotionUNet
from systems.see_the_speaker.motion_wrapping import read_motion
from systems.see_the_speaker.speech_features import SpeechKind

GRID = (100, 300, 500, 700, 900)  # times at which validation measures the loss


class MotionDiffusionSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 256  # of the frames: the motion space's
    frames: int = 128  # 5 s, the length of Table XII's clips, rounded up
    overlap: int = 8
    context: int = 4
    speech: SpeechKind = "hubert"  # §IV-D, HuBERT-large
    speech_weights: str = ""  # folder of published weights; none: the speech network learns from nothing
    transformer: dict[str, Any] = Field(default_factory=dict)
    pair: Literal["mean", "concat"] = "mean"
    speech_width: int = 256
    channels: int = 64  # Table XII: 470 M less HuBERT, wav2vec 2.0 and the rest of HRTF leave 15 M or so
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # ADM's at 64 px
    blocks: int = 3  # ADM's
    heads: int = 4
    relative: bool = False
    from_gaussian: bool = False
    learning_rate: float = 2e-4  # §IV-E, motion diffusion
    sampling_steps: int = 50
    repeats: int = 1  # times and noises drawn per sequence


class MotionDiffusion(TrainedStage):
    """M_diff over sequences of z_m of the frozen motion space: eq. (20)."""

    name = "motion_diffusion"
    needs = ("motion_space",)
    presets: ClassVar[Mapping[str, MotionDiffusionSettings]] = {
        "paper": MotionDiffusionSettings(steps=200_000, batch=16),
        "small": MotionDiffusionSettings(
            steps=3000,
            batch=8,
            frames=64,
            speech="mel",
            speech_width=96,
            channels=96,
            multipliers=(1, 2, 2),
            blocks=1,
            relative=True,
            from_gaussian=True,
            learning_rate=5e-4,
            sampling_steps=25,
            repeats=4,
            validate_every=500,
        ),
        "tiny": MotionDiffusionSettings(
            steps=150,
            batch=4,
            size=64,
            frames=32,
            overlap=4,
            speech="mel",
            speech_width=32,
            channels=48,
            multipliers=(1, 2),
            blocks=1,
            heads=2,
            relative=True,
            from_gaussian=True,
            learning_rate=2e-3,
            sampling_steps=12,
            repeats=8,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"motion_unet": MotionUNet}
    bar = Bar(measure="loss", baseline="loss_gaussian", better="lower", speakers="known")
    settings: MotionDiffusionSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The speech network, where it is not the published one."""
        s = self.settings
        return () if s.speech_weights else (f"HuBERT-large (pre-trained) -> {s.speech} (own)",)

    @property
    def view(self) -> View:
        """Successive frames with their sound."""
        s = self.settings
        return View(("frames", "audio"), frames=s.frames, pick="successive", size=s.size, context=s.context)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """The UNet and the frozen motion space. Raises ``Misuse`` where their picture sizes differ."""
        s, space = self.settings, parents["motion_space"]
        if s.size != motion_side(space):
            raise Misuse(f"motion_diffusion: size is {s.size}, motion_space was trained at {motion_side(space)}")
        unet = MotionUNet(
            width=space["motion_encoder"].config.width,
            speech=s.speech,
            transformer=s.transformer,
            pair=s.pair,
            speech_width=s.speech_width,
            channels=s.channels,
            multipliers=s.multipliers,
            blocks=s.blocks,
            heads=s.heads,
            relative=s.relative,
            from_gaussian=s.from_gaussian,
            frames=s.frames,
            overlap=s.overlap,
            context=s.context,
            steps=s.sampling_steps,
        )
        if s.speech_weights:
            unet.features.load_published(s.speech_weights)
        return nn.ModuleDict({"motion_unet": unet, "motion_space": Frozen(space)})

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and deviation of the codes (or of displacements), and of the mel bands."""
        unet, codes, sounds = model["motion_unet"], [], []
        for batch in batches:
            z_m = self._codes(model, batch)
            if self.settings.relative:
                # From the first and from the middle frame: references are the first, or any.
                z_m = torch.cat([z_m - z_m[:, :1], z_m - z_m[:, z_m.shape[1] // 2, None]])
            codes.append(z_m)
            sounds.append(batch["audio"])
        if codes:
            z = torch.cat(codes)  # [items, n, d]
            unet.mean.copy_(torch.zeros_like(unet.mean) if self.settings.relative else z.mean((0, 1)))
            unet.deviation.copy_((z - unet.mean).square().mean((0, 1)).sqrt().clamp_min(1e-4))
            if self.settings.from_gaussian:
                x = ((z - unet.mean) / unet.deviation).transpose(1, 2).flatten(0, 1)
                unet.covariance.copy_(x.T @ x / len(x) + 1e-3 * torch.eye(x.shape[1]).to(x))
        unet.features.measure(sounds)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam over what is not frozen (§IV-E)."""
        return {"main": Adam([p for p in model.parameters() if p.requires_grad], self.settings.learning_rate)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Eq. (20), over the frames that are not known.

        Reading the frames costs more than the UNet, so every sequence is noised ``repeats`` times. Windows
        start either at a still (one known frame, which is the reference too) or go on from another window
        (``overlap`` known frames, any frame as reference).  # not in the paper: how windows continue
        """
        s, unet = self.settings, model["motion_unet"]
        speech = unet.hear(batch["audio"], s.context).repeat_interleave(s.repeats, 0)
        z_m = self._codes(model, batch).repeat_interleave(s.repeats, 0)
        items, frames = z_m.shape[:2]
        goes_on = torch.rand(items, generator=rng) < 0.7
        anchor = torch.randint(0, frames, (items,), generator=rng) * goes_on
        t = _spread_times(items // s.repeats, s.repeats, rng)
        noise = torch.randn(z_m.shape, generator=rng).to(z_m)
        goes_on, anchor, t = goes_on.to(z_m.device), anchor.to(z_m.device), t.to(z_m.device)
        reference = z_m[torch.arange(items, device=z_m.device), anchor]
        mask = self._mask(goes_on, frames)
        error = self._error(model, z_m, speech, reference, mask, t, noise)
        total = error.mean()
        late = error.detach()[t >= TIMES // 2]
        return Losses(total, {"late": late.mean() if len(late) else total.detach()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Loss [B] pooled over the schedule; of the closed form; under another moment's speech; speed of motion.

        ``loss_wiener``: √(1 - ᾱ) x_t, the best linear guess that knows mean and variance per dimension.
        ``loss_gaussian``: what the network starts from, which knows the covariance over time too (where
        ``from_gaussian``; the same as ``loss_wiener`` else).
        Speeds are mean changes from frame to frame, in deviations: of sampled motion and of the true.
        """
        s, unet = self.settings, model["motion_unet"]
        z_m, items = self._codes(model, batch), len(batch["audio"])
        reference = z_m[:, 0]
        mask = self._mask(torch.zeros(items, dtype=torch.bool, device=z_m.device), z_m.shape[1])
        generators = item_generators(batch, rng)
        right = unet.hear(batch["audio"], s.context)
        later = unet.hear(batch["audio"].roll(s.frames // 2 * SAMPLES_PER_FRAME, 1), s.context)
        losses: dict[str, list[Tensor]] = {"loss": [], "loss_wiener": [], "loss_other_moment": [], "loss_gaussian": []}
        for time in GRID:
            t = torch.full((items,), time, device=z_m.device)
            noise = normal(generators, *z_m.shape[1:]).to(z_m)
            losses["loss"].append(self._error(model, z_m, right, reference, mask, t, noise))
            losses["loss_other_moment"].append(self._error(model, z_m, later, reference, mask, t, noise))
            keep, x = kept(t), unet.standardise(z_m, reference)
            noised = add_noise(x, noise, keep)
            plain = (1 - keep).sqrt()[:, None, None] * noised
            over_time = unet.gaussian(noised, keep, x, mask) if s.from_gaussian else plain
            losses["loss_wiener"].append(_pool((plain - noise).square(), mask))
            losses["loss_gaussian"].append(_pool((over_time - noise).square(), mask))
        sampled = sample_window(unet, batch["audio"], z_m, mask, reference, generators)
        return {name: torch.stack(values).mean(0) for name, values in losses.items()} | {
            "speed": (sampled.diff(dim=1) / unet.deviation).abs().mean((1, 2)),
            "speed_true": (z_m.diff(dim=1) / unet.deviation).abs().mean((1, 2)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """The widest-moving dimension of z_m over time, one row per item: true in black, two samples in colours."""
        unet = model["motion_unet"]
        z_m = self._codes(model, batch)
        mask = self._mask(torch.zeros(len(z_m), dtype=torch.bool, device=z_m.device), z_m.shape[1])
        samples = [
            sample_window(unet, batch["audio"], z_m, mask, z_m[:, 0], item_generators(batch, generator))
            for generator in (rng, torch.Generator().manual_seed(rng.initial_seed() + 1))
        ]
        widest = int(unet.deviation.argmax())
        return draw_curves([z[:6, :, widest] for z in (z_m, *samples)])

    @torch.no_grad()
    def _codes(self, model: nn.ModuleDict, batch: Batch) -> Tensor:
        """z_m [B, n, d] of the batch's frames."""
        frames = batch["frames"]
        return read_motion(model["motion_space"], frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _mask(self, goes_on: Tensor, frames: int) -> Tensor:
        """1 where motion is known, [B, frames]."""
        place = torch.arange(frames, device=goes_on.device)
        return (place < torch.where(goes_on, self.settings.overlap, 1)[:, None]).float()

    @staticmethod
    def _error(
        model: nn.ModuleDict, z_m: Tensor, speech: Tensor, reference: Tensor, mask: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        unet, keep = model["motion_unet"], kept(t)
        x = unet.standardise(z_m, reference)
        ours = unet(add_noise(x, noise, keep), t, keep, speech, x, mask, reference)
        return _pool((noise - ours).square(), mask)  # eq. (20), §III-B2


def _spread_times(sequences: int, repeats: int, rng: torch.Generator) -> Tensor:
    """Times int64 [sequences * repeats], one from each of as many equal parts of the process.

    Each is uniform; a sequence's repeats lie far apart.  # not in the paper: independent times make the loss
    of a small batch mostly a matter of which times came up
    """
    place = torch.arange(sequences * repeats).view(repeats, sequences).T.flatten()
    within = torch.rand(len(place), generator=rng)
    return ((place + within) / len(place) * TIMES).long().clamp_max(TIMES - 1)


def _pool(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of [B, n, d] over frames that are not known, per item [B]."""
    return (error.mean(2) * (1 - mask)).sum(1) / (1 - mask).sum(1)
