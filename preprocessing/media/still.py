"""Still pictures: PNG, JPEG and WebP, turned upright, within limits checked before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contracts.limits import Limits


def decode_still(path: Path, limits: Limits | None = None) -> np.ndarray:
    """The picture at ``path``: uint8 RGB [H, W, 3], turned as its EXIF orientation asks; transparency over white.

    Raises ``Reject``: EMPTY_FILE, BAD_CONTAINER (no PNG, JPEG or WebP), TOO_MANY_PIXELS, TRUNCATED, DECODE_ERROR.
    """
    raise NotImplementedError
