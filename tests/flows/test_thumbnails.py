"""A run's page shows the videos: one small picture of them all."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from flows.thumbnails import CELL, sheet
from preprocessing.media import encode_video


def video(path: Path, colour: tuple[int, int, int], frames: int) -> Path:
    picture = np.full((64, 64, 3), colour, np.uint8)
    encode_video(path, [picture] * frames, np.zeros(640 * frames, np.float32))
    return path


def test_videos_stand_side_by_side_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    red, blue = video(tmp_path / "r.mp4", (200, 20, 20), 3), video(tmp_path / "b.mp4", (20, 20, 200), 20)
    (tmp_path / "none.mp4").write_bytes(b"no video")
    told = sheet([red, tmp_path / "none.mp4", blue, tmp_path / "missing.mp4"])
    assert told is not None
    kind, _, data = told.partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = np.asarray(Image.open(BytesIO(base64.b64decode(data))))
    assert picture.shape == (CELL, 2 * CELL, 3)
    for row, column in ((32, 32), (100, 100)):  # the video is 64 pixels wide: it fills its cell
        assert np.abs(picture[row, column].astype(int) - (200, 20, 20)).max() < 25
    assert np.abs(picture[32, CELL + 32].astype(int) - (20, 20, 200)).max() < 25


def test_where_nothing_can_be_shown_there_is_no_picture(tmp_path: Path) -> None:
    assert sheet([tmp_path / "missing.mp4"]) is None
    assert sheet([]) is None
