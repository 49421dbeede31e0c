"""Speech to a talking face: §III-C, all stages in a row, in windows of flat memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from contracts.errors import Misuse
from contracts.speech import power_spectrogram, six_seconds
from systems.base import Chunk, Request, TalkingFacePipeline
from systems.common.hearing import heard, voice
from systems.common.sheet import to_uint8
from systems.see_the_speaker.codebook import enlarge
from systems.see_the_speaker.hr_codebook import high_resolution_base, motion_side
from systems.see_the_speaker.motion_sampling import sample_window
from systems.see_the_speaker.motion_wrapping import Source, adapt_lips, read_source, wrap
from systems.see_the_speaker.portrait_pipeline import PortraitGenerator
from systems.see_the_speaker.warp import resize

RENDERED = 16  # frames decoded at a time
PORTRAITS = 32  # kept: more than are rendered at once
PORTRAIT = {
    "conre": ("speech_encoder", "face_encoder", "face_decoder"),
    "face_prior": ("prior",),
    "portrait_diffusion": ("unet", "speech_tokens", "saw", "wiener"),
}
VIDEO = {
    "lip_landmarks": ("lip_predictor",),
    "motion_space": (
        "image_encoder",
        "identity_encoder",
        "motion_encoder",
        "motion_wrapper",
        "lip_guider",
        "lip_refiner",
        "image_decoder",
    ),
    "hr_codebook": ("codebook", "hr_decoder"),
    "motion_diffusion": ("motion_unet",),
}

PortraitEditor = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] -> uint8 [H, W, 3], the face where it was


def leave_as_it_is(portrait: np.ndarray) -> np.ndarray:
    """The editor that edits nothing. §III-C puts Deep Live Cam here, for hair, clothing and background."""
    return portrait


class SeeTheSpeakerPipeline(TalkingFacePipeline):
    """Networks of all stages as components; ``save_pretrained`` and ``from_pretrained`` of this class work.

    ``portrait_editor`` edits portraits that the system made, never those a request brings. ``fidelity`` is
    CodeFormer's w: 0 renders from the codes alone, 1 with the maps of the motion space.
    """

    def __init__(
        self,
        speech_encoder: ModelMixin,
        face_encoder: ModelMixin,
        face_decoder: ModelMixin,
        prior: ModelMixin,
        unet: ModelMixin,
        speech_tokens: ModelMixin,
        saw: ModelMixin,
        wiener: ModelMixin,
        lip_predictor: ModelMixin,
        image_encoder: ModelMixin,
        identity_encoder: ModelMixin,
        motion_encoder: ModelMixin,
        motion_wrapper: ModelMixin,
        lip_guider: ModelMixin,
        lip_refiner: ModelMixin,
        image_decoder: ModelMixin,
        codebook: ModelMixin,
        hr_decoder: ModelMixin,
        motion_unet: ModelMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            speech_encoder=speech_encoder,
            face_encoder=face_encoder,
            face_decoder=face_decoder,
            prior=prior,
            unet=unet,
            speech_tokens=speech_tokens,
            saw=saw,
            wiener=wiener,
            lip_predictor=lip_predictor,
            image_encoder=image_encoder,
            identity_encoder=identity_encoder,
            motion_encoder=motion_encoder,
            motion_wrapper=motion_wrapper,
            lip_guider=lip_guider,
            lip_refiner=lip_refiner,
            image_decoder=image_decoder,
            codebook=codebook,
            hr_decoder=hr_decoder,
            motion_unet=motion_unet,
        )
        self.portrait_editor: PortraitEditor = leave_as_it_is
        self.fidelity = 1.0
        self._portraits: OrderedDict[str, np.ndarray] = OrderedDict()  # the newest: asked for again by who stores them

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> SeeTheSpeakerPipeline:
        """The pipeline over loaded stages, by stage name."""
        wanted = PORTRAIT | VIDEO
        return cls(**{name: stages[stage][name] for stage, names in wanted.items() for name in names})

    def portrait(self, request: Request) -> np.ndarray:
        """The request's own portrait, or one drawn from its first six seconds of speech, uint8 [H, W, 3]."""
        if request.portrait is not None:
            return request.portrait
        audio = np.ascontiguousarray(request.audio, np.float32)
        name = f"{hashlib.sha256(audio.tobytes()).hexdigest()} {request.seed} {request.steps}"
        if name not in self._portraits:
            spectrogram = torch.from_numpy(power_spectrogram(six_seconds(audio)))[None].to(self._device)
            parts = [{n: getattr(self, n) for n in names} for names in PORTRAIT.values()]
            face = PortraitGenerator(*parts)(spectrogram, [request.seed], request.steps)
            self._portraits[name] = self.portrait_editor(to_uint8(face)[0])
            while len(self._portraits) > PORTRAITS:
                self._portraits.popitem(last=False)
        return self._portraits[name]

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        """Frames of every request in order of time, uint8 [n, S, S, 3], a window of each request in turn.

        Each request is computed by itself, so that its frames are the same to the bit whatever is rendered
        beside it; the frames of its windows are what is batched. Raises ``Misuse`` for speech shorter than
        a frame.
        """
        films = [self._start(number, request) for number, request in enumerate(requests)]
        while films:
            for film in films:
                yield from self._render_window(film)
            films = [film for film in films if film.done < film.request.frames]

    @property
    def _device(self) -> torch.device:
        return next(self.motion_unet.parameters()).device

    @property
    def _nets(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in VIDEO["motion_space"]}

    def _start(self, number: int, request: Request) -> _Film:
        if request.frames == 0:
            raise Misuse("the speech is shorter than one frame (40 ms)")
        picture = torch.from_numpy(np.array(self.portrait(request))).to(self._device)
        picture = picture.permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            side = self.lip_guider.config.grid << (len(self.hr_decoder.config.widths) - 1)
            large = enlarge(_square(picture), side)
            source = read_source(self._nets, resize(large, motion_side(self._nets)))
        # The portrait draws from the seed itself; motion must not repeat its numbers.
        generator = torch.Generator().manual_seed(request.seed ^ 0x6D6F7469)
        return _Film(
            number, request, large, source, generator, voice(request.audio).to(self._device), known=source.z_m[:, None]
        )

    def _render_window(self, film: _Film) -> Iterator[Chunk]:
        config = self.motion_unet.config
        held = film.known.shape[1]  # frames known already: the portrait's, or the last of the window before
        first = film.done - (held if film.done else 0)
        known = torch.zeros(1, config.frames, film.known.shape[2], device=self._device)
        known[:, :held] = film.known
        mask = (torch.arange(config.frames, device=self._device) < held).float()[None]
        with torch.no_grad():
            audio = self._sound(film.request, first - config.context, config.frames + 2 * config.context)
            z_m = sample_window(
                self.motion_unet, audio, known, mask, film.source.z_m, [film.generator], film.request.steps
            )
            hears = self.lip_predictor.config.context
            sound = self._sound(film.request, first - hears, config.frames + 2 * hears)
            lips = self.lip_predictor(sound, film.voice)
        start, end = film.done - first, min(config.frames, film.request.frames - first)
        for a in range(start, end, RENDERED):
            b = min(a + RENDERED, end)
            with torch.no_grad():
                frames = to_uint8(self._render(film, z_m[0, a:b], lips[0, a:b]))
            yield Chunk(film.number, first + a, frames)
        film.done, film.known = first + end, z_m[:, -config.overlap :]

    def _render(self, film: _Film, z_m: Tensor, lips: Tensor) -> Tensor:
        """Frames [n, 3, S, S] of codes [n, d] and pose-free lips [n, 40, 2] as heard."""
        source = film.source.repeat(len(z_m))
        wrapped = wrap(self._nets, source, z_m, adapt_lips(self._nets, source, lips))
        z_q, _, _ = self.codebook(wrapped.z_wr)
        base = high_resolution_base(self._nets, source, wrapped, film.portrait.expand(len(z_m), -1, -1, -1))
        return self.hr_decoder(z_q, wrapped.skips, base, torch.full((len(z_m),), self.fidelity, device=z_m.device))

    def _sound(self, request: Request, first: int, frames: int) -> Tensor:
        return heard(request.audio, first, frames)[None].to(self._device)


@dataclass
class _Film:
    """A request being rendered."""

    number: int
    request: Request
    portrait: Tensor  # [1, 3, S, S] in [-1, 1], at the resolution of the result
    source: Source
    generator: torch.Generator
    voice: Tensor  # [1, 80]: level of each mel band over the first ten seconds
    known: Tensor  # z_m [1, k, d]: the portrait's own, or the last frames of the window before
    done: int = 0  # frames rendered


def _square(picture: Tensor) -> Tensor:
    """The middle square of a picture [1, 3, H, W]; aligned portraits are square already."""
    height, width = picture.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[..., top : top + side, left : left + side]
