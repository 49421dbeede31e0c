"""The 478 face points: which indices are lips, eyes, brows, nose, oval and irises.

Indices are those of mediapipe's refined face mesh (``mediapipe.solutions.face_mesh_connections``:
FACEMESH_LIPS, FACEMESH_LEFT_EYE, FACEMESH_FACE_OVAL, …; canonical_face_model_uv_visualization.png).
*Left* is the person's own left, which is on the right of the picture.

| set                  | points | source                                                                  |
|----------------------|--------|-------------------------------------------------------------------------|
| LIPS                 | 40     | FACEMESH_LIPS: the outer ring of 20, then the inner ring of 20            |
| LEFT_EYE, RIGHT_EYE  | 16, 16 | FACEMESH_LEFT_EYE, FACEMESH_RIGHT_EYE: rings from the outer corner        |
| LEFT_BROW, RIGHT_BROW| 10, 10 | FACEMESH_LEFT_EYEBROW, FACEMESH_RIGHT_EYEBROW                             |
| NOSE                 | 14     | the nose of IP_LAP's 131 landmarks, which TalkFormer follows              |
| OVAL                 | 36     | FACEMESH_FACE_OVAL, clockwise from the top of the forehead               |
| LOWER_OVAL           | 25     | the part of OVAL from 389 over the chin to 162 (IP_LAP, TalkFormer)       |
| LEFT_IRIS, RIGHT_IRIS| 5, 5   | the refined mesh's points 473-477 and 468-472, centre first              |
| POINTS_131           | 131    | IP_LAP's set: LIPS, eyes, brows, NOSE, LOWER_OVAL                         |
| POSE_74, JAW_17      | 74, 17 | its parts beside the lips: what tells the pose, and what speech moves     |
| POINTS_68            | 68     | the points nearest to the 68 of iBUG 300-W, which dlib's predictor gives  |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POINTS = 478

# fmt: off
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_BROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
NOSE = (168, 6, 197, 195, 5, 4, 45, 220, 115, 48, 275, 440, 344, 278)
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
LIPS = LIPS_OUTER + LIPS_INNER
BROWS = LEFT_BROW + RIGHT_BROW
LOWER_OVAL = OVAL[OVAL.index(389) : OVAL.index(162) + 1]
LEFT_IRIS = (473, 474, 475, 476, 477)
RIGHT_IRIS = (468, 469, 470, 471, 472)
IRIS = RIGHT_IRIS + LEFT_IRIS
UPPER_CHEEKS = (162, 127, 234, 93, 389, 356, 454, 323)  # ends of LOWER_OVAL: speech does not move them
POSE_74 = LEFT_EYE + RIGHT_EYE + BROWS + NOSE + UPPER_CHEEKS
JAW_17 = tuple(point for point in LOWER_OVAL if point not in UPPER_CHEEKS)
POINTS_131 = LIPS + LEFT_EYE + RIGHT_EYE + BROWS + NOSE + LOWER_OVAL
# in 300-W's order, from the picture's left: jaw 17, brows 5 and 5, nose 4 and 5, eyes 6 and 6, lips 12 and 8
# fmt: off
POINTS_68 = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 55, 285, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on

LIP_TOP, LIP_BOTTOM = 13, 14  # of the inner ring, at its middle
LIPS_OUTER_TOP, LIPS_OUTER_BOTTOM = 0, 17
MOUTH_RIGHT, MOUTH_LEFT = 61, 291  # corners
RIGHT_EYE_OUTER, RIGHT_EYE_INNER = 33, 133  # corners
LEFT_EYE_INNER, LEFT_EYE_OUTER = 362, 263
RIGHT_LID_TOP, RIGHT_LID_BOTTOM = 159, 145
LEFT_LID_TOP, LEFT_LID_BOTTOM = 386, 374
NOSE_TIP, NOSE_BRIDGE = 4, 168
CHIN, FOREHEAD = 152, 10
RIGHT_CHEEK, LEFT_CHEEK = 234, 454  # where the oval is widest


def eye_centres(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Middle between the two corners of each eye, so that neither blink nor gaze moves it.

    ``points`` [..., 478, D]; returns [..., 2, D]: the right eye (left in the picture), then the left.
    """
    right = (points[..., RIGHT_EYE_OUTER, :] + points[..., RIGHT_EYE_INNER, :]) / 2
    left = (points[..., LEFT_EYE_INNER, :] + points[..., LEFT_EYE_OUTER, :]) / 2
    return np.stack([right, left], axis=-2)


def eyes_midpoint(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Middle between the eyes: [..., 478, D] to [..., D]."""
    return np.asarray(eye_centres(points).mean(axis=-2))


def mouth_opening(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Gap between the inner lips over the distance of the eyes, both in space: [..., 478, 3] to [...].

    Unmoved by position, size and (with the third coordinate) rotation of the head.
    """
    eyes = eye_centres(points)
    gap = np.linalg.norm(points[..., LIP_TOP, :] - points[..., LIP_BOTTOM, :], axis=-1)
    return np.asarray(gap / np.maximum(np.linalg.norm(eyes[..., 0, :] - eyes[..., 1, :], axis=-1), 1e-9))


def lip_motion(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Height of the lips, inner and outer gap added, over the distance of the eyes: [..., 478, 3] to [...].

    Follows speech more closely than the inner gap alone, which teeth and thin lips hide; its zero means nothing.
    """
    eyes = eye_centres(points)
    outer = np.linalg.norm(points[..., LIPS_OUTER_TOP, :] - points[..., LIPS_OUTER_BOTTOM, :], axis=-1)
    distance = np.linalg.norm(eyes[..., 0, :] - eyes[..., 1, :], axis=-1)
    return np.asarray(mouth_opening(points) + outer / np.maximum(distance, 1e-9))


def eye_opening(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Gap between the lids over the width of the eye, the mean of both eyes: [..., 478, D] to [...]."""
    ratios = []
    for top, bottom, outer, inner in (
        (RIGHT_LID_TOP, RIGHT_LID_BOTTOM, RIGHT_EYE_OUTER, RIGHT_EYE_INNER),
        (LEFT_LID_TOP, LEFT_LID_BOTTOM, LEFT_EYE_OUTER, LEFT_EYE_INNER),
    ):
        gap = np.linalg.norm(points[..., top, :] - points[..., bottom, :], axis=-1)
        width = np.linalg.norm(points[..., outer, :] - points[..., inner, :], axis=-1)
        ratios.append(gap / np.maximum(width, 1e-9))
    return np.asarray(np.mean(ratios, axis=0))


def view_131(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """The 131 points of ``POINTS_131``, in its order: [..., 478, D] to [..., 131, D]."""
    return np.asarray(points[..., list(POINTS_131), :])


def view_68(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """The points nearest to 300-W's 68, in its order: [..., 478, D] to [..., 68, D].

    From dlib's predictor they differ by 6 % of the eyes' distance on real faces, without the jaw by 5 %. The jaw
    agrees least (10 %): 300-W's lies on the outline that is seen, the mesh's on the head.
    """
    return np.asarray(points[..., list(POINTS_68), :])


def gaze(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Where the irises stand between the corners of the eyes: [..., 478, D] to [..., 2] (across, down).

    0 is the middle, 1 the distance from there to a corner; above 0 lies the picture's right, and down, both turned
    with the head's roll. The mean of both eyes, weighted by their widths: in profile the far eye says little.
    Lids move the mesh's irises, so that *down* is also lower where the eyes are wide open.
    """
    moved = np.zeros((*points.shape[:-2], 2))
    width = np.zeros((*points.shape[:-2], 1))
    for first, last, iris in (
        (RIGHT_EYE_OUTER, RIGHT_EYE_INNER, RIGHT_IRIS[0]),
        (LEFT_EYE_INNER, LEFT_EYE_OUTER, LEFT_IRIS[0]),
    ):
        start, end = points[..., first, :2], points[..., last, :2]
        half = (end - start) / 2
        length = np.linalg.norm(half, axis=-1, keepdims=True)
        away = points[..., iris, :2] - (start + end) / 2
        across = half / np.maximum(length, 1e-9)
        down = np.stack([-across[..., 1], across[..., 0]], axis=-1)
        moved += np.stack([(away * across).sum(-1), (away * down).sum(-1)], axis=-1)
        width += length
    return np.asarray(moved / np.maximum(width, 1e-9))
