"""Stage ``talkformer``: landmark completion and latent diffusion, learned together (§III-B to §III-D)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from contracts.sample import SAMPLES_PER_FRAME
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.fidelity import correlation, psnr
from systems.common.frozen import Frozen
from systems.common.landmarks import mouth_opening
from systems.common.mel import log_mels
from systems.common.noise import item_generators, normal
from systems.common.sheet import contact_sheet
from systems.talkformer.appearance import Whole
from systems.talkformer.completion import LandmarkCompletion, landmark_loss
from systems.talkformer.denoiser import Denoiser
from systems.talkformer.diffusion import Clip, add_noise, predict_noise, sample, spread_times
from systems.talkformer.face_points import FacePoints, follow, join_points, parts_of, split_points
from systems.talkformer.latents import lower_half, mask_lower, put_below
from systems.talkformer.marks import draw_points
from systems.talkformer.moments import Moments

MOTION = 2  # motion frames of temporal attention, §IV-A5
GRID = (100, 300, 500, 700, 900)  # times at which validation measures the loss


class TalkFormerSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 256  # §IV-A5
    frames: int = 5  # L, §IV-A5; 1 is w/o B-Sequential
    references: int = 5  # N, §IV-A5; Table IV
    margin: int = 10  # frames of landmarks and sound on either side, for validation over a second or so
    windows: int = 1  # of L successive frames that L_1 is taken over, per item
    context: int = 2  # frames of sound on either side of a frame: the 0.2 s of IP_LAP
    completion: tuple[int, int, int, int] = (512, 4, 4, 1024)  # width, layers, heads, feed-forward: IP_LAP's
    channels: tuple[int, ...] = (224, 448, 672, 896)  # I = 4 (§IV-A5), widths of latent-diffusion's for faces
    layers: int = 2
    groups: int = 32
    width: int = 512  # of a landmark embedding
    seen: Literal["masked", "full"] = "masked"  # the upper half's context is encoded from it; full leaks in training
    align_motion: bool = True  # off: w/o M-Align, Table III
    align_reference: bool = True  # off: w/o R-Align
    end_to_end: bool = True  # off: w/o End2End
    appearance: Whole = "encoder"  # unet: + CompleteRef
    temporal: bool = False  # on: + TempAttn
    still_start: float = 0.25  # with temporal: share of items whose motion frames are the reference, as a video begins
    relative: bool = False
    leads: bool = False
    weight: float = 10.0  # λ, §IV-A5
    learning_rate: float = 4e-5  # §IV-A5
    sampling_steps: int = 200  # §IV-A5
    samples: int = 8  # pictures per item whose mean validation looks at


class TalkFormerStage(TrainedStage):
    """The landmark completion module and the denoiser with its appearance encoder: L_total of (6)."""

    name = "talkformer"
    needs = ("autoencoder",)
    presets: ClassVar[Mapping[str, TalkFormerSettings]] = {
        "paper": TalkFormerSettings(steps=780_000, batch=64),  # 500 epochs of VoxCeleb's 100 000 utterances
        # not in the paper: what one GPU learns in twenty minutes
        "small": TalkFormerSettings(
            steps=10_000,
            batch=16,
            windows=3,
            context=4,
            completion=(192, 3, 4, 384),
            channels=(96, 128, 192, 256),
            layers=1,
            width=128,
            temporal=True,
            relative=True,
            leads=True,
            learning_rate=2e-4,
            warmup=200,
            schedule="cosine",
            sampling_steps=25,
            validate_every=2000,
        ),
        # not in the paper: what a CPU core does in a minute
        "tiny": TalkFormerSettings(
            steps=120,
            batch=4,
            size=64,
            windows=5,
            context=4,
            completion=(64, 2, 4, 128),
            channels=(32, 48, 64),
            layers=1,
            groups=8,
            width=32,
            relative=True,
            leads=True,
            learning_rate=1e-3,
            warmup=10,
            schedule="cosine",
            sampling_steps=10,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"completion": LandmarkCompletion, "denoiser": Denoiser}
    bar = Bar(measure="lower_l1", baseline="lower_l1_copy", better="lower", speakers="known")
    settings: TalkFormerSettings

    @property
    def view(self) -> View:
        """L successive frames (after the motion frames), landmarks and sound on both sides, N references."""
        s = self.settings
        return View(
            ("frames", "landmarks", "audio"),
            frames=s.frames + self._motion,
            pick="successive",
            size=s.size,
            context=s.context,
            references=s.references,
            margin=s.margin,
        )

    @property
    def _motion(self) -> int:
        return MOTION if self.settings.temporal else 0

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """Both trained networks, and the frozen autoencoder. Raises ``Misuse`` where sizes do not fit."""
        s, autoencoder = self.settings, parents["autoencoder"]["autoencoder"]
        side, scales = s.size // autoencoder.factor, len(s.channels)
        if s.size % (whole := autoencoder.factor << scales):
            raise Misuse(f"talkformer: {scales} scales of half a latent need a size that {whole} divides")
        width, layers, heads, feed_forward = s.completion
        completion = LandmarkCompletion(
            width=width,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
            context=s.context,
            relative=s.relative,
            frames=s.frames,
            references=s.references,
        )
        denoiser = Denoiser(
            latent=autoencoder.channels,
            side=side,
            channels=s.channels,
            layers=s.layers,
            groups=s.groups,
            width=s.width,
            align_motion=s.align_motion,
            align_reference=s.align_reference,
            appearance=s.appearance,
            temporal=s.temporal,
            leads=s.leads,
            steps=s.sampling_steps,
        )
        made = {"completion": completion, "denoiser": denoiser, "autoencoder": Frozen(parents["autoencoder"])}
        return nn.ModuleDict(made)

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Statistics of latents, of what differs from a reference's, of the mel bands and of the face's points."""
        completion, denoiser = model["completion"], model["denoiser"]
        latents, apart, mel, face = Moments(), Moments(axes=3), Moments(), Moments(axes=2)
        for batch in batches:
            z_0, z_r = (encode(model, batch[name]) for name in ("frames", "references"))
            latents.add(z_0.movedim(2, -1))
            apart.add(lower_half(z_0 - z_r[:, :1]))
            mel.add(log_mels(batch["audio"]))
            face.add(split_points(batch["landmarks"]).full)
        if latents.count:
            denoiser.latent_mean.copy_(latents.mean[:, None, None])
            denoiser.latent_deviation.copy_(latents.deviation.clamp_min(1e-4)[:, None, None])
            denoiser.spread.copy_((apart.mean_square / denoiser.latent_deviation**2).clamp_min(1e-3))
            completion.mean.copy_(mel.mean)
            completion.deviation.copy_(mel.deviation.clamp_min(1e-2))
            completion.face.copy_(face.mean)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """One Adam over both (§III-D, §IV-A5)."""
        parameters = [*model["completion"].parameters(), *model["denoiser"].parameters()]
        return {"main": Adam(parameters, self.settings.learning_rate)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L_total; without ``end_to_end`` the two halves share nothing but the batch."""
        s, items = self.settings, len(batch["frames"])
        face, lip, jaw = self._complete(model, batch, s.windows)
        l_1 = landmark_loss(lip, jaw, face.lip, face.jaw)
        full = join_points(lip[:, 0], jaw[:, 0], face.pose[:, 0]) if s.end_to_end else face.full[:, 0]
        picked = torch.randint(0, s.references, (items,), generator=rng)
        still = torch.rand(items, generator=rng) < s.still_start
        # frames that attend to each other are equally noisy
        t = spread_times(items, 1 if s.temporal else s.frames, rng).expand(-1, s.frames)
        z_0, clip = self._clip(model, batch, full, picked, still.to(full.device))
        t, z_0 = t.flatten().to(z_0.device), lower_half(z_0).flatten(0, 1)
        noise = torch.randn(z_0.shape, generator=rng).to(z_0)
        told = predict_noise(model["denoiser"], clip, add_noise(z_0, noise, t), t)
        l_ldm = (noise - told).square().mean()  # eq. (1), §III-A, over the lower half
        total = l_ldm + s.weight * l_1  # eq. (6), §III-D
        return Losses(total, {"l_ldm": l_ldm.detach(), "l_1": l_1.detach()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Landmarks, denoising and pictures [B], each beside what needs no learning.

        ``opening_correlation``: of the mouth's opening with the true one over all windows, beside the same under the
        sound of half a span later. ``landmarks``: L_1 of an item, beside the references' mean face and that face led by
        the pose. ``lower_l1``, ``lower_psnr``: lower half of the mean of ``samples`` pictures against the true one;
        ``_one``: of the first alone; ``_copy``: of the first reference through the autoencoder; ``_ceiling``: of the
        true picture through the autoencoder. Pictures are of the middle frame, with ``temporal`` of all L.
        """
        windows = (self.view.span - self._motion) // self.settings.frames
        face, lip, jaw = self._complete(model, batch, windows, in_order=True)
        opening, under_other = self.openings(model, batch)
        references = split_points(batch["reference_landmarks"])
        mean_lip, mean_jaw, mean_pose = (x.mean(1)[:, None, None] for x in references[:3])
        led_lip, led_jaw = (follow(x, mean_pose, face.pose) for x in (mean_lip, mean_jaw))
        found = {
            "opening_correlation": opening,
            "opening_correlation_shuffled": under_other,
            "landmarks": _each(lip, jaw, face),
            "landmarks_references": _each(mean_lip, mean_jaw, face),
            "landmarks_led": _each(led_lip, led_jaw, face),
        }
        middle = next(i for i, start in enumerate(self._starts(windows, in_order=True)) if start == self._first)
        full = join_points(lip[:, middle], jaw[:, middle], face.pose[:, middle])
        return found | self._pictures(model, batch, full, item_generators(batch, rng))

    def openings(self, model: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        """Correlation [B] of the mouth's opening with the true one, and that under the sound of half a span later."""
        windows = (self.view.span - self._motion) // self.settings.frames
        later = batch["audio"].roll(self.view.span // 2 * SAMPLES_PER_FRAME, 1)
        face, lip, _ = self._complete(model, batch, windows, in_order=True)
        misled = self._complete(model, {**batch, "audio": later}, windows, in_order=True)[1]
        opening, under_other, true = (mouth_opening(x).flatten(1) for x in (lip, misled, face.lip))
        return correlation(opening, true), correlation(under_other, true)

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """A row per item: template, masked with the completed landmarks, reference, what is made of them."""
        s, place = self.settings, self.settings.frames // 2
        batch = {name: values[:4] for name, values in batch.items()}
        full, _, clip = self.look(model, batch)
        noise = normal(item_generators(batch, rng), 1, *lower_half(clip.context).shape[1:])
        z = sample(model["denoiser"], clip, noise.expand(-1, s.frames, -1, -1, -1).flatten(0, 1).to(clip.context))
        made = decode(model, put_below(clip.context, z)).unflatten(0, (-1, s.frames))[:, place]
        true = batch["frames"][:, self._motion + place]
        marked = draw_points(mask_lower(true), *parts_of(full[:, place]))
        return contact_sheet(
            list(torch.stack([true, marked, batch["references"][:, 0], put_below(true, lower_half(made))], 1))
        )

    def look(self, model: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor, Clip]:
        """The completed faces [B, L, 131, 2] of the frames with pictures, their standardised latents, and the clip."""
        face, lip, jaw = self._complete(model, batch, 1)
        full = join_points(lip[:, 0], jaw[:, 0], face.pose[:, 0])
        return full, *self._clip(model, batch, full)

    @property
    def _first(self) -> int:
        """Where in the span the L frames with pictures begin."""
        return self.settings.margin + self._motion

    def _starts(self, windows: int, *, in_order: bool = False) -> list[int]:
        """Where windows of L frames begin in the span: that of the pictures first, then its neighbours."""
        length, last = self.settings.frames, self.view.span - self.settings.frames
        all_of_them = range(self._first % length, last + 1, length)
        chosen = sorted(all_of_them, key=lambda start: (abs(start - self._first), start))[:windows]
        return sorted(chosen) if in_order else chosen

    def _complete(
        self, model: nn.ModuleDict, batch: Batch, windows: int, *, in_order: bool = False
    ) -> tuple[FacePoints, Tensor, Tensor]:
        """True points and completed lip and jaw of windows: [B, W, L, count, 2] each."""
        s, starts = self.settings, self._starts(windows, in_order=in_order)
        points = split_points(batch["landmarks"])
        face = FacePoints(*(torch.stack([x[:, a : a + s.frames] for a in starts], 1) for x in points))
        heard = (s.frames + 2 * s.context) * SAMPLES_PER_FRAME
        audio = torch.stack([batch["audio"][:, a * SAMPLES_PER_FRAME :][:, :heard] for a in starts], 1)
        references = split_points(batch["reference_landmarks"]).full.repeat_interleave(len(starts), 0)
        lip, jaw = model["completion"](face.pose.flatten(0, 1), references, audio.flatten(0, 1))
        return face, lip.unflatten(0, (-1, len(starts))), jaw.unflatten(0, (-1, len(starts)))

    def _clip(
        self,
        model: nn.ModuleDict,
        batch: Batch,
        full: Tensor,
        picked: Tensor | None = None,
        still: Tensor | None = None,
    ) -> tuple[Tensor, Clip]:
        """Standardised z_0 [B, L, C, h, w], and what the denoiser is given; the first reference unless ``picked``."""
        denoiser, frames = model["denoiser"], batch["frames"][:, self._motion :]
        rows = torch.arange(len(frames), device=frames.device)
        reference = batch["references"][rows, 0 if picked is None else picked.to(frames.device)]
        seen = frames if self.settings.seen == "full" else mask_lower(frames)
        z_0, context, z_r = (denoiser.standardise(encode(model, x)) for x in (frames, seen, reference))
        before = None
        if self._motion:
            before = denoiser.standardise(encode(model, batch["frames"][:, : self._motion]))
            if still is not None:
                before = torch.where(still[:, None, None, None, None], z_r[:, None], before)
        condition = denoiser.condition(full.flatten(0, 1), denoiser.features(z_r), before)
        return z_0, Clip(context.flatten(0, 1), z_r, condition)

    def _pictures(
        self, model: nn.ModuleDict, batch: Batch, full: Tensor, generators: list[torch.Generator]
    ) -> dict[str, Tensor]:
        s, denoiser = self.settings, model["denoiser"]
        if not s.temporal:  # frames do not see each other: one stands for all
            place = s.frames // 2
            full, batch = full[:, place, None], {**batch, "frames": batch["frames"][:, place, None]}
        z_0, clip = self._clip(model, batch, full)
        (items, frames), lower = z_0.shape[:2], lower_half(z_0)
        true = batch["frames"][:, -frames:]
        losses = []
        for time in GRID:
            t = torch.full((items * frames,), time, device=full.device)
            noise = normal(generators, *lower.shape[1:]).to(full).flatten(0, 1)
            told = predict_noise(denoiser, clip, add_noise(lower.flatten(0, 1), noise, t), t)
            losses.append((noise - told).square().flatten(1).mean(1))

        def shown(z: Tensor) -> Tensor:
            return lower_half(decode(model, put_below(clip.context, z))).unflatten(0, (items, frames))

        made = []
        for _ in range(s.samples):
            noise = normal(generators, 1, *lower.shape[2:]).expand(-1, frames, -1, -1, -1)
            made.append(shown(sample(denoiser, clip, noise.flatten(0, 1).to(full))))
        through = {"_copy": batch["references"][:, :1], "_ceiling": true}
        results = {
            name: lower_half(decode(model, denoiser.standardise(encode(model, x)))) for name, x in through.items()
        }
        results |= {"": torch.stack(made).mean(0), "_one": made[0]}
        found = {"denoising": torch.stack(losses).mean(0).unflatten(0, (items, frames)).mean(1)}
        for name, result in results.items():
            result, target = torch.broadcast_tensors(result, lower_half(true))
            found[f"lower_l1{name}"] = (result - target).abs().flatten(1).mean(1)
            found[f"lower_psnr{name}"] = (
                psnr(result.flatten(0, 1), target.flatten(0, 1)).unflatten(0, (items, frames)).mean(1)
            )
        return found


@torch.no_grad()
def encode(model: Mapping[str, Any], image: Tensor) -> Tensor:
    """E: pictures [..., 3, S, S] -> latents [..., C, h, w], as they are."""
    return model["autoencoder"]["autoencoder"].encode(image)


@torch.no_grad()
def decode(model: Mapping[str, Any], z: Tensor) -> Tensor:
    """D: standardised latents [..., C, h, w] -> pictures [..., 3, S, S] in [-1, 1]."""
    return model["autoencoder"]["autoencoder"].decode(model["denoiser"].restore(z)).clamp(-1, 1)


def _each(lip: Tensor, jaw: Tensor, face: FacePoints) -> Tensor:
    """L_1 of every item [B]."""
    return (lip - face.lip).abs().flatten(1).mean(1) + (jaw - face.jaw).abs().flatten(1).mean(1)
