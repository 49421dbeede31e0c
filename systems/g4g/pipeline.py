"""A source video's faces and new speech to dubbed faces, eight frames at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from contracts.errors import Misuse
from systems.base import Chunk, Faces, Request, TalkingFacePipeline
from systems.common.hearing import heard
from systems.common.mel import AROUND, mel_windows
from systems.common.sheet import to_uint8
from systems.g4g.generator import REFERENCES, Known
from systems.g4g.regions import face_of, landmarks_of


class G4GPipeline(TalkingFacePipeline):
    """The generator alone: discriminators and expert are for training. Nothing is drawn: seeds are all alike.

    Each frame is dubbed by itself, with five references of its shot and the sound of the five frames about it.
    """

    references: ClassVar[int] = REFERENCES

    def __init__(self, generator: ModelMixin) -> None:
        super().__init__()
        self.register_modules(generator=generator)

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> G4GPipeline:
        """The pipeline over loaded stages, by stage name."""
        return cls(stages["g4g"]["generator"])

    @property
    def crop_side(self) -> int:
        """Side of the crops, px: the height of the generator's face."""
        return int(self.generator.config.size)

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        """A chunk for each ``Faces`` of every request, a part of each request in turn.

        Requests are computed one by one, so that a batch of two equals two of one; what is batched is the frames.
        Raises ``Misuse`` for a request without a video.
        """
        films = [_Film(number, request, self.generator.mask) for number, request in enumerate(requests)]
        while films:
            for film in list(films):
                faces = next(film.video, None)
                if faces is None:
                    films.remove(film)
                else:
                    yield Chunk(film.number, faces.first, self._dub(film, faces), film.mask)

    def _dub(self, film: _Film, faces: Faces) -> np.ndarray:
        """Crops uint8 [n, S, S, 3] whose faces say what is heard."""
        device = self.generator.mask.device
        with torch.no_grad():
            if film.references is not faces.references:
                references = face_of(_pictures(faces.references, device))
                points = torch.from_numpy(faces.landmarks[len(faces.landmarks) // 2]).to(device)
                film.known = self.generator.know(references[None], landmarks_of(points)[None])
                film.references = faces.references
            assert film.known is not None
            crops = _pictures(faces.crops, device)
            mel = mel_windows(film.sound(faces.first, len(crops)).to(device))
            dubbed = self.generator(face_of(crops), film.known.repeat(len(crops)), mel)
            face_of(crops).copy_(dubbed.face)
        return to_uint8(crops)


class _Film:
    """A request being rendered."""

    def __init__(self, number: int, request: Request, mask: Tensor) -> None:
        if request.video is None:
            raise Misuse("g4g dubs a video: the request has none")
        self.number, self.audio, self.video = number, request.audio, iter(request.video)
        self.references: np.ndarray | None = None  # whose ``known`` is
        self.known: Known | None = None
        height, width = mask.shape[-2:]
        side = (height - width) // 2
        self.mask = torch.nn.functional.pad(mask[0], (side, side)).float().cpu().numpy()  # of the square crop

    def sound(self, first: int, frames: int) -> Tensor:
        """Samples [640 (frames + 6)] from three frames before ``first`` on; silence beyond the ends."""
        return heard(self.audio, first - AROUND, frames + 2 * AROUND)


def _pictures(crops: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, S, S, 3] as float [n, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
