"""Portrait and speech to any number of videos: §3.3, in windows of flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from torch import Tensor, nn

from contracts.errors import Misuse
from systems.av_prior.prior_sampling import draw_window, roll_out, windows
from systems.base import Chunk, Request, TalkingFacePipeline
from systems.common.hearing import heard
from systems.common.sheet import contact_sheet, to_uint8

RENDERED = 16  # frames painted at a time
FACE = ("identity_encoder", "motion_encoder")
SPACES = ("audio_encoder", "mlp_ol", "mlp_nl", "mlp_a2l", "generator")
PRIORS = ("prior", "autoregressive")


class AvPriorPipeline(TalkingFacePipeline):
    """Lips follow the speech, the rest is drawn: another seed is another video.

    ``kind``: which prior draws; ``guidance``: s of eq. (10), ``None`` for the prior's own. :meth:`motion`,
    :meth:`edit`, :meth:`lips` and :meth:`film` are the parts of :meth:`stream`, for spans that are drawn again, and for
    videos in which only the lips move, or all but the lips.
    """

    def __init__(
        self,
        identity_encoder: ModelMixin,
        motion_encoder: ModelMixin,
        audio_encoder: ModelMixin,
        mlp_ol: ModelMixin,
        mlp_nl: ModelMixin,
        mlp_a2l: ModelMixin,
        generator: ModelMixin,
        prior: ModelMixin,
        autoregressive: ModelMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            identity_encoder=identity_encoder,
            motion_encoder=motion_encoder,
            audio_encoder=audio_encoder,
            mlp_ol=mlp_ol,
            mlp_nl=mlp_nl,
            mlp_a2l=mlp_a2l,
            generator=generator,
            prior=prior,
            autoregressive=autoregressive,
        )
        self.kind: Literal["diffusion", "autoregressive"] = "diffusion"
        self.guidance: float | None = None

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> AvPriorPipeline:
        """The pipeline over loaded stages, by stage name. G is that of ``disentangle``."""
        wanted = {"face_representation": FACE, "disentangle": SPACES, "nonlip_prior": PRIORS}
        return cls(**{name: stages[stage][name] for stage, names in wanted.items() for name in names})

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        """Frames of every request in order of time, uint8 [n, S, S, 3], a window of each request in turn.

        Each request is computed by itself, so that its frames are the same to the bit whatever is rendered
        beside it. Raises ``Misuse`` for a request without a portrait or with less than a frame of speech.
        """
        films = [self._start(number, request) for number, request in enumerate(requests)]
        while films:
            for film in films:
                first, motion = self._next_window(film)
                lips = self._lips(film.request.audio, first, len(motion))
                for at, frames in self._paint(film.f_id, motion, lips):
                    yield Chunk(film.number, first + at, frames)
            films = [film for film in films if film.done < film.request.frames]

    def motion(self, request: Request) -> Tensor:
        """f_nl^a of the whole film, [T, d]: what :meth:`stream` would draw."""
        film, parts = self._start(0, request), []
        while film.done < request.frames:
            parts.append(self._next_window(film)[1])
        return torch.cat(parts)

    def edit(self, request: Request, motion: Tensor, first: int, end: int, seed: int) -> Tensor:
        """``motion`` [T, d] with frames ``first`` to ``end`` (exclusive) drawn again; all others to the bit as before.

        Raises ``Misuse`` for a span or a motion that does not fit the request.
        """
        if len(motion) != request.frames or not 0 <= first < end <= len(motion):
            raise Misuse(f"frames {first} to {end} of {len(motion)} cannot be drawn again in {request.frames}")
        mask = torch.ones(len(motion), device=motion.device)
        mask[first:end] = 0
        edited, generator = motion.clone(), torch.Generator().manual_seed(seed)
        for start, stop in windows(mask, self.prior.config.frames):
            if not mask[start] and self.prior.config.relative:  # the film's first frame
                mask[0], edited[0] = 1, self._start(0, request).known[0]
            drawn = self._draw(request, start, edited[None, start:stop], mask[None, start:stop], generator)
            edited[start:stop], mask[start:stop] = drawn[0], 1  # the next window goes on from here
        return edited

    def lips(self, audio: np.ndarray) -> Tensor:
        """f_l^a of speech [N] at 16 kHz: [T, d_l]; the same for every seed."""
        return self._lips(audio, 0, Request(audio, 0).frames)

    def film(self, portrait: np.ndarray, motion: Tensor, lips: Tensor) -> Iterator[np.ndarray]:
        """Frames uint8 [n, S, S, 3] of a portrait uint8 [H, W, 3] that does what it is told, a few at a time.

        ``motion`` [T, d] and ``lips`` [T, d_l] may come from different speeches or be held still. ``Misuse`` where
        their lengths differ.
        """
        if len(motion) != len(lips):
            raise Misuse(f"{len(motion)} frames of motion and {len(lips)} of lips make no film")
        with torch.no_grad():
            f_id = self.identity_encoder(self._picture(portrait))
        for _, frames in self._paint(f_id, motion, lips):
            yield frames

    def diversity_sheet(self, request: Request, seeds: Sequence[int], moments: int = 8) -> np.ndarray:
        """One picture, uint8 [H, W, 3]: a row per seed, ``moments`` frames spread over the film."""
        rows, lips = [], self.lips(request.audio)
        at = np.linspace(0, request.frames - 1, moments).round().astype(int)
        for seed in seeds:
            motion = self.motion(Request(request.audio, seed, request.portrait, steps=request.steps))
            assert request.portrait is not None
            frames = np.concatenate(list(self.film(request.portrait, motion[at], lips[at])))
            rows.append(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1)
        return contact_sheet(rows)

    @property
    def _device(self) -> torch.device:
        return next(self.prior.parameters()).device

    def _start(self, number: int, request: Request) -> _Film:
        if request.frames == 0:
            raise Misuse("the speech is shorter than one frame (40 ms)")
        if request.portrait is None:
            raise Misuse("av_prior makes a given portrait talk: --portrait names one")
        picture = self._picture(request.portrait)
        with torch.no_grad():
            f_id = self.identity_encoder(picture)
            known = self.mlp_nl(self.mlp_ol(self.motion_encoder(picture)))
        return _Film(number, request, f_id, known, torch.Generator().manual_seed(request.seed))

    def _next_window(self, film: _Film) -> tuple[int, Tensor]:
        """The film's next frames, from which number on, and their motion [n, d]."""
        length, request = self.prior.config.frames, film.request
        first = max(film.done - 1, 0)  # the last frame of the window before is the first of this one, §3.3
        mask = torch.zeros(1, length, device=self._device)
        mask[:, 0] = float(film.done > 0 or self.prior.config.relative)
        known = film.known[:, None].expand(-1, length, -1)
        drawn = self._draw(request, first, known, mask, film.generator)[0]
        end = min(first + length, request.frames)
        new = drawn[film.done - first : end - first]
        first, film.done, film.known = film.done, end, new[-1:]
        return first, new

    def _draw(self, request: Request, first: int, known: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """One window of motion [1, L, d] from frame ``first`` on."""
        with torch.no_grad():
            f_a = self._hear(request.audio, first, known.shape[1])
        if self.kind == "autoregressive":
            return roll_out(self.autoregressive, f_a, known, mask)
        return draw_window(self.prior, f_a, known, mask, [generator], steps=request.steps, guidance=self.guidance)

    def _hear(self, audio: np.ndarray, first: int, frames: int) -> Tensor:
        """f^a [1, frames, d_a] from frame ``first`` on; silence beyond the ends."""
        context = self.audio_encoder.config.context
        return self.audio_encoder.hear(heard(audio, first - context, frames + 2 * context)[None].to(self._device))

    @torch.no_grad()
    def _lips(self, audio: np.ndarray, first: int, frames: int) -> Tensor:
        return self.mlp_a2l(self._hear(audio, first, frames))[0]

    def _paint(self, f_id: Tensor, motion: Tensor, lips: Tensor) -> Iterator[tuple[int, np.ndarray]]:
        """Places and frames of a film, :data:`RENDERED` at a time."""
        for at in range(0, len(motion), RENDERED):
            n, f_l = motion[at : at + RENDERED], lips[at : at + RENDERED]
            with torch.no_grad():
                yield at, to_uint8(self.generator(f_id.expand(len(n), -1), n, f_l))  # f_cat at inference, §3.3

    def _picture(self, portrait: np.ndarray) -> Tensor:
        """The middle square of a portrait uint8 [H, W, 3], as E_id and E_v see it: [1, 3, S, S]."""
        picture = torch.from_numpy(np.array(portrait)).to(self._device).permute(2, 0, 1)[None].float() / 127.5 - 1
        side, size = min(picture.shape[-2:]), self.generator.config.size
        top, left = ((edge - side) // 2 for edge in picture.shape[-2:])
        square = picture[..., top : top + side, left : left + side]
        return F.interpolate(square, size=(size, size), mode="bilinear", align_corners=False, antialias=side > size)


@dataclass
class _Film:
    """A request being rendered."""

    number: int
    request: Request
    f_id: Tensor  # [1, d_id]
    known: Tensor  # f_nl [1, d]: the portrait's own, or the last frame of the window before
    generator: torch.Generator
    done: int = 0  # frames drawn
