"""Still pictures: PNG, JPEG and WebP, turned upright, within limits checked before anything is decoded."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason

FORMATS = ("PNG", "JPEG", "WEBP")


def decode_still(path: Path, limits: Limits | None = None) -> np.ndarray:
    """The picture at ``path``: uint8 RGB [H, W, 3], turned as its EXIF orientation asks; transparency over white.

    Of an animation the first picture. Raises ``Reject``: EMPTY_FILE, BAD_CONTAINER (no PNG, JPEG or WebP),
    TOO_MANY_PIXELS, TRUNCATED, DECODE_ERROR.
    """
    from PIL import Image, ImageOps

    limits = limits or Limits()
    if path.stat().st_size == 0:
        raise Reject(Reason.EMPTY_FILE, f"{path.name} has zero bytes")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > limits.still_pixels:
                    raise Reject(
                        Reason.TOO_MANY_PIXELS, f"{width} x {height}, at most {limits.still_pixels} pixels are decoded"
                    )
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError as error:
        raise Reject(Reason.TOO_MANY_PIXELS, str(error)) from None
    except Image.UnidentifiedImageError:
        raise Reject(Reason.BAD_CONTAINER, f"{path.name} is no PNG, JPEG or WebP picture") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged data
        reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.DECODE_ERROR
        raise Reject(reason, f"{path.name}: {error}"[:200]) from None


def _rgb(picture: object) -> np.ndarray:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode.startswith("I"):  # 16 bits of grey; convert() would cut them off at 255
        grey = np.asarray(picture).astype(np.int64)
        return np.repeat((grey.clip(0, 65535) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
    return np.asarray(picture.convert("RGB"))
