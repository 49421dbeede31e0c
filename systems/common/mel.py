"""Log-mel columns of 50 ms, sixteen to five frames: what lip experts since Wav2Lip hear."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contracts.sample import SAMPLES_PER_FRAME
from contracts.speech import COLUMNS_PER_FRAME, MEL_BANDS, MEL_FLOOR, log_mel, mel_filters

MELS, COLUMNS = MEL_BANDS, COLUMNS_PER_FRAME  # of log_mels: bands; columns per frame
WINDOW, HOP = 800, 200  # samples at 16 kHz: 50 ms and 12.5 ms
EDGE = (WINDOW - HOP) // 2  # samples that the first and last column reach beyond their own hop
AROUND = 3  # frames of sound on either side of a frame that its window reaches into
HEARD = 5 * SAMPLES_PER_FRAME + 2 * EDGE  # samples of five frames, edges included


def log_mels(audio: Tensor) -> Tensor:
    """``audio`` [B, 640 T] in [-1, 1] -> log-mel [B, 4 T, 80] as samples hold it, on the device of ``audio``."""
    mels = [log_mel(sound) for sound in audio.detach().float().cpu().numpy()]
    return torch.from_numpy(np.stack(mels)).to(audio.device)


def move_bands(mel: Tensor, bands: Tensor) -> Tensor:
    """``mel`` [B, columns, 80] with each item's bands moved up by ``bands`` int64 [B], as by a shorter throat.

    Where bands run out the last one is repeated. In training it makes many voices of few (Jaitly and Hinton 2013).
    """
    source = (torch.arange(mel.shape[2], device=mel.device) - bands[:, None]).clamp(0, mel.shape[2] - 1)
    return mel.gather(2, source[:, None].expand_as(mel))


def draw_bands(items: int, most: int, rng: torch.Generator, device: torch.device) -> Tensor | None:
    """Bands to move each of ``items`` voices by, -``most`` to ``most``, int64 [items]; None where ``most`` is 0."""
    return torch.randint(-most, most + 1, (items,), generator=rng).to(device) if most else None


def mel_columns(audio: Tensor) -> Tensor:
    """Natural logarithms of 80 mel magnitudes: ``audio`` [..., 600 + 200 n] in [-1, 1] -> [..., n, 80].

    Column k looks at the 800 samples about the middle of samples 300 + 200 k to 300 + 200 (k + 1); not below
    log(1e-5). Differentiable, on the device of ``audio``.
    """
    hann = torch.hann_window(WINDOW, device=audio.device, dtype=audio.dtype)
    filters = torch.tensor(mel_filters(WINDOW), device=audio.device, dtype=audio.dtype)  # [80, 401]
    magnitudes = torch.fft.rfft(audio.unfold(-1, WINDOW, HOP) * hann).abs()
    return (magnitudes @ filters.T).clamp_min(MEL_FLOOR).log()


def mel_windows(audio: Tensor) -> Tensor:
    """What is heard about each of n frames: ``audio`` [..., 640 (n + 6)] -> [..., n, 16, 80].

    ``audio`` begins three frames before the first and ends three after the last (``AROUND``); window i is of the
    five frames whose middle is frame i.
    """
    first = (AROUND - 2) * SAMPLES_PER_FRAME - EDGE
    return mel_columns(audio[..., first:].unfold(-1, HEARD, SAMPLES_PER_FRAME))
