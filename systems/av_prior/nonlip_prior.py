"""Stage ``nonlip_prior``: the distribution of non-lip motion given speech (§3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from systems.av_prior.prior_network import AutoregressivePrior, DiffusionPrior
from systems.av_prior.prior_sampling import TIMES, add_noise, draw_window, roll_out
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.curves import draw_curves
from systems.common.frozen import Frozen
from systems.common.geometry import REST
from systems.common.naturalness import naturalness, variance
from systems.common.noise import item_generators


class NonlipPriorSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 224  # of the frames: face_representation's
    frames: int = 128  # L
    context: int = 2  # frames that E_a hears on either side: disentangle's
    width: int = 512  # §4: tokens
    layers: int = 8  # §4
    heads: int = 8
    hidden: int = 1024  # §4: feed-forward
    relative: bool = False
    weight_velocity: float = 1.0  # eq. (9); 0: w/o L_vel, Table 2
    editing: bool = True  # False: training w/o editing, Table 2
    masked: float = 0.9  # §3.2, share of tokens that are hidden
    without_speech: float = 0.1  # §3.2, share of sequences whose condition is ∅
    guidance: float = 1.5  # s of eq. (10)
    sampling_steps: int = 50
    rate: float = 1e-4
    repeats: int = 1  # times, noises and masks drawn per sequence


class NonlipPrior(TrainedStage):
    """P_a2nl over sequences of f_nl^v: eqs. (6) to (10); beside it the autoregressive prior of Table 2."""

    name = "nonlip_prior"
    needs = ("face_representation", "disentangle")
    presets: ClassVar[Mapping[str, NonlipPriorSettings]] = {
        "paper": NonlipPriorSettings(steps=200_000, batch=32),
        "small": NonlipPriorSettings(
            steps=4000,
            batch=8,
            size=256,
            frames=75,
            context=3,
            width=192,
            layers=4,
            heads=4,
            hidden=384,
            relative=True,
            guidance=1.0,
            sampling_steps=25,
            rate=5e-4,
            repeats=4,
            validate_every=500,
        ),
        "tiny": NonlipPriorSettings(
            steps=150,
            batch=4,
            size=64,
            frames=32,
            context=3,
            width=64,
            layers=2,
            heads=4,
            hidden=128,
            relative=True,
            guidance=1.0,
            sampling_steps=12,
            rate=2e-3,
            repeats=8,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"prior": DiffusionPrior, "autoregressive": AutoregressivePrior}
    bar = Bar(measure="snd", baseline="snd_trivial", better="lower", speakers="known")
    settings: NonlipPriorSettings

    @property
    def view(self) -> View:
        """Successive frames with their sound, as wide as E_a hears."""
        s = self.settings
        return View(("frames", "audio"), frames=s.frames, pick="successive", size=s.size, context=s.context)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """Both priors and what of the frozen parents reads motion and speech. ``Misuse`` where they hear otherwise."""
        s, spaces = self.settings, parents["disentangle"]
        hears = spaces["audio_encoder"].config
        if hears.context != s.context:
            raise Misuse(f"nonlip_prior.context is {s.context}, disentangle was trained with {hears.context}")
        dims = (spaces["mlp_nl"].config.outputs, hears.dim, s.width, s.layers, s.heads, s.hidden, s.frames, s.relative)
        read = {name: spaces[name] for name in ("audio_encoder", "mlp_ol", "mlp_nl", "telling_nl")}
        return nn.ModuleDict(
            {
                "prior": DiffusionPrior(*dims, s.sampling_steps, s.guidance, s.editing),
                "autoregressive": AutoregressivePrior(*dims),
                "face": Frozen({"motion_encoder": parents["face_representation"]["motion_encoder"]}),
                "spaces": Frozen(read),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and deviation of f_nl^v (of displacements, where relative), and how fast its geometry moves."""
        found, steps = [], []
        for batch in batches:
            n = self._motion(model, batch)
            steps.append(self._geometry(model, n).diff(dim=1).flatten(0, 1))
            if self.settings.relative:
                n = torch.cat([n - n[:, :1], n - n[:, n.shape[1] // 2, None]])
            found.append(n.flatten(0, 1))
        if found:
            n = torch.cat(found)
            mean = torch.zeros_like(n[0]) if self.settings.relative else n.mean(0)
            for name in self.networks:
                model[name].mean.copy_(mean)
                model[name].deviation.copy_((n - mean).square().mean(0).sqrt().clamp_min(1e-4))
            model["prior"].step.copy_(torch.cat(steps).std(0).clamp_min(1e-4))

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam over both priors, which share nothing."""
        return {"main": Adam([p for p in model.parameters() if p.requires_grad], self.settings.rate)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Eq. (9) and the rival's regression.

        Reading the frames costs more than the transformer, so every sequence is noised ``repeats`` times.
        """
        s, prior = self.settings, model["prior"]
        once, heard = self._motion(model, batch), self._speech(model, batch)
        n, f_a = once.repeat_interleave(s.repeats, 0), heard.repeat_interleave(s.repeats, 0)
        items, device = len(n), n.device
        t = torch.randint(0, TIMES, (items,), generator=rng).to(device)
        noise = torch.randn(n.shape, generator=rng).to(n)
        told = (torch.rand(items, generator=rng) >= s.without_speech).to(n)
        mask = self._draw_mask(items, n.shape[1], rng).to(n)
        clean = prior.standardise(n, n[:, 0])
        ours = prior(add_noise(clean, noise, t), t, f_a, told, clean, mask, n[:, 0])
        terms = {"simple": simple_loss(ours, clean)}
        weights = {"simple": 1.0}
        if s.weight_velocity:
            terms["velocity"], weights["velocity"] = velocity_loss(ours, clean), s.weight_velocity
        first = prior.standardise(once, once[:, 0])
        terms["autoregressive"] = simple_loss(model["autoregressive"](first[:, :-1], heard[:, 1:]), first[:, 1:])
        weights["autoregressive"] = 1.0
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. (9), §3.2
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """SND and its parts [B] of motion drawn from the clip's first frame on, beside its rivals'.

        All in geometry read linearly from f_nl. ``_shuffled`` is the next item's true motion in random order,
        ``_still`` the first frame held, ``_trivial`` the better of both. ``diversity``: distance of two draws.
        ``seam_speed``: of the first step after what was known; ``speed``: of the others.
        """
        n, f_a = self._motion(model, batch), self._speech(model, batch)
        mask = self._first_only(n)
        generators = item_generators(batch, rng)
        drawn, other = (draw_window(model["prior"], f_a, n, mask, generators) for _ in range(2))
        order = torch.stack([torch.randperm(n.shape[1], generator=g) for g in generators]).to(n.device)
        rivals = {
            "": drawn,
            "_ar": roll_out(model["autoregressive"], f_a, n, mask),
            "_shuffled": n.roll(1, 0).gather(1, order[..., None].expand_as(n)),
            "_still": n[:, :1].expand_as(n),
        }
        real, step, found = self._geometry(model, n), model["prior"].step, dict[str, Tensor]()
        for name, motion in rivals.items():
            measured = naturalness(self._geometry(model, motion), real, step)
            found |= {f"{key}{name}": value.to(n) for key, value in measured._asdict().items()}
        speed = (drawn.diff(dim=1) / model["prior"].deviation).norm(dim=-1)
        return found | {
            "snd_trivial": torch.minimum(found["snd_shuffled"], found["snd_still"]),
            "var_true": variance(real),
            "diversity": ((drawn - other) / model["prior"].deviation)[:, 1:].norm(dim=-1).mean(1),
            "seam_speed": speed[:, 0],
            "speed": speed[:, 1:].mean(1),
            "speed_true": (n.diff(dim=1) / model["prior"].deviation).norm(dim=-1).mean(1),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Yaw as read from f_nl over time, one row per item: true in black, three draws in colours."""
        n, f_a = self._motion(model, batch), self._speech(model, batch)
        generators = item_generators(batch, rng)
        draws = [draw_window(model["prior"], f_a, n, self._first_only(n), generators) for _ in range(3)]
        yaw = REST.index("yaw")
        return draw_curves([self._geometry(model, motion)[:6, :, yaw] for motion in (n, *draws)])

    @staticmethod
    @torch.no_grad()
    def _motion(model: nn.ModuleDict, batch: Batch) -> Tensor:
        """f_nl^v [B, L, d] of the batch's frames."""
        frames, spaces = batch["frames"], model["spaces"]
        f_v = model["face"]["motion_encoder"](frames.flatten(0, 1))
        return spaces["mlp_nl"](spaces["mlp_ol"](f_v)).unflatten(0, frames.shape[:2])

    @staticmethod
    @torch.no_grad()
    def _speech(model: nn.ModuleDict, batch: Batch) -> Tensor:
        return model["spaces"]["audio_encoder"].hear(batch["audio"])

    @staticmethod
    @torch.no_grad()
    def _geometry(model: nn.ModuleDict, n: Tensor) -> Tensor:
        return model["spaces"]["telling_nl"](n)[..., : len(REST)]

    @staticmethod
    def _first_only(n: Tensor) -> Tensor:
        """A mask [B, L] that shows the first frame."""
        return (torch.arange(n.shape[1], device=n.device) == 0).to(n).expand(len(n), -1)

    def _draw_mask(self, items: int, frames: int, rng: torch.Generator) -> Tensor:
        """Which tokens are shown [items, frames]: in three ways, as they come up at inference.

        # not in the paper: a third sees none, as a first segment does; a third the first, as one that goes on;
        # the rest those that 90 % leave, as when a span is drawn again
        """
        s = self.settings
        way = torch.randint(0, 3, (items, 1), generator=rng)
        mask = (torch.rand(items, frames, generator=rng) >= s.masked) & (way == 2)
        mask[:, 0] |= way[:, 0] == 1
        if s.relative:
            mask[:, 0] = True  # it is what displacements start from
        return mask & s.editing


def simple_loss(ours: Tensor, clean: Tensor) -> Tensor:
    """L_simple of standardised motion [B, L, d], norms per frame as eq. (8) has them: a scalar."""
    return (clean - ours).norm(dim=-1).mean()  # eq. (7), §3.2


def velocity_loss(ours: Tensor, clean: Tensor) -> Tensor:
    """L_vel of standardised motion [B, L, d]: a scalar."""
    return (ours.diff(dim=1) - clean.diff(dim=1)).norm(dim=-1).mean()  # eq. (8), §3.2
