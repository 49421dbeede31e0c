"""Contact sheets: rows of images as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

GAP = 2  # pixels between images


def contact_sheet(rows: Sequence[Tensor]) -> np.ndarray:
    """One picture uint8 [H, W, 3] of rows of images, each float [n, 3, S, S] in [-1, 1]; short rows end in grey."""
    size, columns = rows[0].shape[-1], max(len(row) for row in rows)
    step = size + GAP
    sheet = np.full((len(rows) * step + GAP, columns * step + GAP, 3), 128, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(to_uint8(row)):
            top, left = GAP + y * step, GAP + x * step
            sheet[top : top + size, left : left + size] = image
    return sheet


def to_uint8(images: Tensor) -> np.ndarray:
    """Images float [n, 3, H, W] in [-1, 1] as uint8 [n, H, W, 3]."""
    scaled = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
