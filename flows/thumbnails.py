"""One small picture of many videos, for the page of a run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits

CELL = 128  # pixels, a side
COLUMNS = 6
MOST = 24  # videos shown: each costs a decoder
SHORT = Limits(shortest_s=0.04)  # what is too short to learn from can be shown
AT = 12  # the frame that is shown, or the last of a shorter video


def sheet(videos: Sequence[Path]) -> str | None:
    """A JPEG of a frame of each of the first videos, row by row, as a ``data:`` URL; None where none can be shown."""
    from PIL import Image, ImageOps

    found = [picture for video in videos[:MOST] if (picture := _frame(video)) is not None]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    whole = Image.new("RGB", (columns * CELL, -(-len(found) // columns) * CELL))
    for number, picture in enumerate(found):
        small = ImageOps.contain(Image.fromarray(picture), (CELL, CELL))  # a small one is enlarged
        whole.paste(small, (number % columns * CELL, number // columns * CELL))
    buffer = BytesIO()
    whole.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _frame(video: Path) -> np.ndarray | None:
    from preprocessing.media import decode, probe

    try:
        with decode(probe(video, SHORT), SHORT) as clip:
            frame = None
            for frame in islice(clip, AT + 1):  # noqa: B007 (the last one is wanted)
                pass
            return frame
    except (Reject, OSError):  # a page of a run is not worth its failing
        return None
