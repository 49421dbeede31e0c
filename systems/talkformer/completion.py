"""Audio-driven landmark completion (§III-B): pose landmarks, reference faces and sound to lip and jaw."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.mel import COLUMNS, MELS, log_mels
from systems.talkformer.face_points import N_JAW, N_LIP, N_POSE, N, follow, parts_of

UNIT = 0.05  # of the crop: what an output of 1 moves a point by


class LandmarkCompletion(ModelMixin, ConfigMixin):
    """A transformer encoder over pose, reference and audio embeddings.

    ``width``, ``layers``, ``heads``, ``feed_forward``: IP_LAP's are 512, 4, 4, 1024. ``context``: frames of sound on
    either side of a frame. ``frames``, ``references``: L and N of training. ``relative``: what is learned is added to
    the references' mean lips and jaw, turned, scaled and moved as the pose landmarks say.
    # not in the paper: short training spends its steps on that otherwise
    """

    mean: Tensor
    deviation: Tensor
    face: Tensor

    @register_to_config
    def __init__(
        self,
        width: int = 512,
        layers: int = 4,
        heads: int = 4,
        feed_forward: int = 1024,
        context: int = 2,
        relative: bool = False,
        frames: int = 5,
        references: int = 5,
    ) -> None:
        super().__init__()
        self.pose_encoder = PointEncoder(N_POSE, width)
        self.reference_encoder = PointEncoder(N, width)
        self.audio_encoder = MelEncoder((2 * context + 1) * COLUMNS, width)
        self.modality = nn.Parameter(torch.randn(3, width) * 0.02)  # pose, reference, audio
        layer = nn.TransformerEncoderLayer(width, heads, feed_forward, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.lip_head, self.jaw_head = nn.Linear(width, 2 * N_LIP), nn.Linear(width, 2 * N_JAW)
        for head in (self.lip_head, self.jaw_head):  # begins with the mean face, or the references' own
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("mean", torch.full((MELS,), -6.0))
        self.register_buffer("deviation", torch.full((MELS,), 3.0))
        self.register_buffer("face", torch.full((N, 2), 0.5))  # mean of the training data

    def forward(self, pose: Tensor, references: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Ĉ_lip [B, L, 40, 2] and Ĉ_jaw [B, L, 17, 2] in 0..1 of the crop.

        ``pose`` [B, L, 74, 2] of L successive frames; ``references`` [B, N, 131, 2] from anywhere in the video;
        ``audio`` [B, 640 (L + 2 context)] in [-1, 1], the context on both sides.
        """
        frames, others = pose.shape[1], references.shape[1]
        sounds = self.windows(audio)
        embedded = (self.pose_encoder(pose), self.reference_encoder(references), self.audio_encoder(sounds))
        # Pose and sound of one frame share a position; modality embeddings tell them apart.
        place = sinusoidal(max(frames, others), self.config.width).to(pose)
        tokens = [x + m + place[: x.shape[1]] for x, m in zip(embedded, self.modality)]
        y = self.transformer(torch.cat(tokens, 1))
        # not in the paper: which tokens tell what; as in IP_LAP, the sound's tell the lips, the pose's the jaw
        lip = self.lip_head(y[:, frames + others :]).unflatten(-1, (N_LIP, 2))
        jaw = self.jaw_head(y[:, :frames]).unflatten(-1, (N_JAW, 2))
        start_lip, start_jaw = self.start(pose, references)
        return start_lip + UNIT * lip, start_jaw + UNIT * jaw

    def start(self, pose: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """What the outputs are added to: lip and jaw of the mean face, or of the references led by the pose."""
        if not self.config.relative:
            lip, jaw, _ = parts_of(self.face)
            return lip, jaw
        lip, jaw, of_references = parts_of(references.mean(1, keepdim=True))
        return follow(lip, of_references, pose), follow(jaw, of_references, pose)

    def windows(self, audio: Tensor) -> Tensor:
        """Standardised log-mel about each frame: ``audio`` [B, 640 (L + 2 c)] -> [B, L, 80, 4 (2 c + 1)]."""
        mel = (log_mels(audio).to(self.mean) - self.mean) / self.deviation
        return mel.unfold(1, (2 * self.config.context + 1) * COLUMNS, COLUMNS)


class PointEncoder(nn.Module):
    """A 1D convolutional module (§III-B): the points of a face, in their order, to one embedding."""

    def __init__(self, points: int, width: int) -> None:
        super().__init__()
        channels = [2] + [max(width >> shift, 8) for shift in (4, 3, 2)]
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            layers += [nn.Conv1d(a, b, 3, stride=2, padding=1), nn.GELU()]
            points = (points + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * points, width))

    def forward(self, points: Tensor) -> Tensor:
        """[B, T, points, 2] in 0..1 -> [B, T, width]."""
        centred = (points.flatten(0, 1) - 0.5) * 4  # a face fills half the crop: about -1..1
        return self.body(centred.transpose(1, 2)).unflatten(0, points.shape[:2])


class MelEncoder(nn.Module):
    """A 2D convolutional module (§III-B): the sound about a frame to one embedding."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        channels = [1] + [max(width >> shift, 8) for shift in (4, 3, 2)]
        layers: list[nn.Module] = []
        bands = MELS
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU()]
            bands, columns = (bands + 1) // 2, (columns + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * bands * columns, width))

    def forward(self, mel: Tensor) -> Tensor:
        """[B, T, 80, columns] -> [B, T, width]."""
        return self.body(mel.flatten(0, 1)[:, None]).unflatten(0, mel.shape[:2])


def sinusoidal(count: int, width: int) -> Tensor:
    """Vaswani's embeddings [count, width] of the positions 0 to ``count`` - 1, sines in the first half."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(width // 2) / (width // 2))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def landmark_loss(lip: Tensor, jaw: Tensor, true_lip: Tensor, true_jaw: Tensor) -> Tensor:
    """L_1 of points [..., L, count, 2]: the mean over frames and coordinates, lips and jaw weighing the same.

    # not in the paper: (2) as printed is a sum, which λ = 10 would let drown (1); IP_LAP's code takes means
    """
    return (lip - true_lip).abs().mean() + (jaw - true_jaw).abs().mean()  # eq. (2), §III-B
