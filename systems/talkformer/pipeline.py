"""A source video and new speech to a video whose lower faces are drawn anew (§III, figure 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from contracts.errors import Misuse
from systems.base import Chunk, Faces, Request, TalkingFacePipeline
from systems.common.hearing import heard
from systems.common.landmarks import mouth_opening, pose_free_lips
from systems.common.sheet import to_uint8
from systems.talkformer.blending import face_mask
from systems.talkformer.diffusion import Clip, sample
from systems.talkformer.face_points import FacePoints, join_points, split_points
from systems.talkformer.latents import lower_half, mask_lower, put_below
from systems.talkformer.marks import draw_points
from systems.talkformer.talkformer import MOTION, decode, encode


class TalkFormerPipeline(TalkingFacePipeline):
    """Dubs: lower halves are drawn anew, all else is the source's.

    ``show``: ``landmarks`` gives the masked source with the completed landmarks instead of the result. A chunk's
    ``mask`` says how far it takes the source's place; its frames are not blended (§IV-A5).
    """

    def __init__(self, autoencoder: ModelMixin, completion: ModelMixin, denoiser: ModelMixin) -> None:
        super().__init__()
        self.register_modules(autoencoder=autoencoder, completion=completion, denoiser=denoiser)
        self.show: Literal["face", "landmarks"] = "face"

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> TalkFormerPipeline:
        """The pipeline over loaded stages, by stage name."""
        return cls(stages["autoencoder"]["autoencoder"], **dict(stages["talkformer"].items()))

    @property
    def references(self) -> int:  # type: ignore[override]
        """N of the completion module."""
        return int(self.completion.config.references)

    @property
    def crop_side(self) -> int:
        """Side of the crops, px."""
        return int(self.denoiser.config.side * self.autoencoder.factor)

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        """A chunk for each of a request's ``Faces``, of its requests in turn.

        Each request is computed by itself and starts every frame from the same noise, so that its frames are the same
        to the bit whatever is rendered beside it, and neighbours do not flicker.  # not in the paper: which noise
        Raises ``Misuse`` for a request without a video or with speech shorter than a frame.
        """
        films = [self._start(number, request) for number, request in enumerate(requests)]
        while films:
            for film in list(films):
                faces = next(film.faces, None)
                if faces is None:
                    films.remove(film)
                else:
                    yield self._render(film, faces)

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def _nets(self) -> dict[str, nn.Module]:
        return {"autoencoder": nn.ModuleDict({"autoencoder": self.autoencoder}), "denoiser": self.denoiser}

    def _start(self, number: int, request: Request) -> _Film:
        if request.video is None:
            raise Misuse("talkformer draws into a video: name one whose face is to speak")
        if request.frames == 0:
            raise Misuse("the speech is shorter than one frame (40 ms)")
        config, generator = self.denoiser.config, torch.Generator().manual_seed(request.seed)
        noise = torch.randn(1, config.latent, config.side // 2, config.side, generator=generator).to(self._device)
        return _Film(number, request, iter(request.video), noise)

    @torch.no_grad()
    def _render(self, film: _Film, faces: Faces) -> Chunk:
        if film.shown is not faces.references:
            self._look(film, faces)
        if film.following != faces.first:  # a cut, or frames without a face
            film.before = None
        crops = self._picture(faces.crops)
        points = split_points(torch.from_numpy(np.array(faces.points)).to(self._device).float())
        frames, drawn = list[np.ndarray](), list[Tensor]()
        length = self.completion.config.frames  # L
        for start in range(0, len(crops), length):
            part = slice(start, start + length)
            window = FacePoints(*(x[part] for x in points))
            lip, jaw = self._complete(film, faces.first + start, window)
            full = join_points(lip, jaw, window.pose)
            drawn.append(full)
            if self.show == "landmarks":
                frames.append(to_uint8(draw_points(mask_lower(crops[part]), lip, jaw, window.pose)))
            else:
                made = self._draw(film, crops[part], full)
                frames.append(to_uint8(put_below(crops[part], lower_half(made))))
        film.following = faces.first + len(crops)
        mask = face_mask([points.full, *drawn], self.crop_side).cpu().numpy()
        return Chunk(film.number, faces.first, np.concatenate(frames), mask)

    def _look(self, film: _Film, faces: Faces) -> None:
        """What a shot's references say, once for the whole shot: their landmarks, z_r, F_a."""
        points = torch.from_numpy(np.array(faces.landmarks)).to(self._device).float()
        film.faces_seen = split_points(points).full[None]
        # not in the paper: which reference; the one whose mouth is widest open shows most of it
        widest = int(mouth_opening(pose_free_lips(points)).argmax())
        picture = self._picture(faces.references[widest : widest + 1])
        film.z_r = self.denoiser.standardise(encode(self._nets, picture))
        film.features = self.denoiser.features(film.z_r)
        film.before, film.shown = None, faces.references

    def _complete(self, film: _Film, first: int, window: FacePoints) -> tuple[Tensor, Tensor]:
        """Lip and jaw [n, count, 2] of successive frames."""
        context, length = self.completion.config.context, len(window.pose)
        sound = self._sound(film.request, first - context, length + 2 * context)
        lip, jaw = self.completion(window.pose[None], film.faces_seen, sound)
        return lip[0], jaw[0]

    def _draw(self, film: _Film, crops: Tensor, full: Tensor) -> Tensor:
        """Pictures [n, 3, S, S] in [-1, 1] whose lower halves follow the landmarks."""
        assert film.z_r is not None
        context = self.denoiser.standardise(encode(self._nets, mask_lower(crops)))
        before = None
        if self.denoiser.config.temporal:
            before = film.z_r[:, None].expand(-1, MOTION, -1, -1, -1) if film.before is None else film.before
        clip = Clip(context, film.z_r, self.denoiser.condition(full, film.features, before))
        z = sample(self.denoiser, clip, film.noise.expand(len(crops), -1, -1, -1), film.request.steps)
        whole = put_below(context, z)
        made = decode(self._nets, whole)
        if self.denoiser.config.temporal:  # the frames before the next window, as they are now
            shown = self.denoiser.standardise(encode(self._nets, put_below(crops, lower_half(made))))[None]
            earlier = shown[:, :1].expand(-1, MOTION, -1, -1, -1) if before is None else before
            film.before = torch.cat([earlier, shown], 1)[:, -MOTION:]
        return made

    def _picture(self, crops: np.ndarray) -> Tensor:
        if crops.shape[1:3] != (self.crop_side,) * 2:
            raise Misuse(
                f"talkformer wants crops of {self.crop_side} px, these have {crops.shape[1]} x {crops.shape[2]}"
            )
        return torch.from_numpy(np.array(crops)).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def _sound(self, request: Request, first: int, frames: int) -> Tensor:
        return heard(request.audio, first, frames)[None].to(self._device)


@dataclass
class _Film:
    """A request being rendered."""

    number: int
    request: Request
    faces: Iterator[Faces]
    noise: Tensor  # [1, C, h / 2, w], of every frame
    shown: np.ndarray | None = None  # the references that the following is of
    faces_seen: Tensor | None = None  # their landmarks [1, N, 131, 2]
    z_r: Tensor | None = None  # [1, C, h, w]
    features: list[Tensor | None] = field(default_factory=list)  # F_a
    before: Tensor | None = None  # motion frames' latents [1, M, C, h, w]
    following: int = -1  # the frame after the last one drawn
