"""Batches that look like the loader's, drawn from a few sines: what the battery trains on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from contracts import face
from systems.base import Batch, View


def make_batch(view: View, items: int, seed: int = 0) -> Batch:
    """A batch as the loader makes it: a drawn face per item whose mouth, landmarks and sound belong together.

    Item i has speaker i (hue, pitch, size of the face), gender i % 2, and motion of its own.
    """
    rng = np.random.default_rng([seed, items])
    n, size, width = view.span, view.size, (view.span + 2 * view.context) * 640
    seen = slice(view.margin, view.margin + view.frames)
    count = max(50, n + 10)
    if view.references:
        count += 13 + view.references
    start = rng.integers(0, count - n + 1, items)
    index = (
        start[:, None] + np.arange(n)
        if view.pick == "successive"
        else np.stack([rng.permutation(count)[:n] for _ in range(items)])
    )
    time = (index + rng.uniform(0, 9, (items, 1))) / 25.0
    mouth = 0.5 + 0.5 * np.sin(2 * np.pi * 3.1 * time)  # [B, n] opening, 0..1
    turn = 0.06 * np.sin(2 * np.pi * 0.7 * time)  # [B, n] sideways, of the view
    speaker = np.arange(items)
    hue = np.random.default_rng(seed).uniform(-0.7, 0.7, (items, 3))
    batch: Batch = {
        "key": [f"toy-{seed}-{i}" for i in speaker],
        "index": torch.from_numpy(index[:, seen].astype(np.int64)),
        "count": torch.full((items,), count),
    }
    if "frames" in view.fields:
        frames = [[draw_face(size, hue[b], mouth[b, t], turn[b, t]) for t in range(n)[seen]] for b in range(items)]
        batch["frames"] = torch.from_numpy(np.asarray(frames, np.float32))
    if "landmarks" in view.fields:
        points = [[place_landmarks(mouth[b, t], turn[b, t], b) for t in range(n)] for b in range(items)]
        batch["landmarks"] = torch.from_numpy(np.asarray(points, np.float32))
    if view.references:
        batch |= _draw_references(view, index, count, hue, rng)
    if "audio" in view.fields:
        batch["audio"] = torch.from_numpy(make_sound(view, index, mouth, speaker, width, rng))
    if "voice" in view.fields:
        batch["voice"] = torch.from_numpy(rng.normal(-7, 1, (items, 80)).astype(np.float32))
    if "spectrogram" in view.fields:
        batch["spectrogram"] = torch.from_numpy(make_spectrogram(speaker, rng))
    if "speaker" in view.fields:
        batch["speaker"] = torch.from_numpy(speaker)
    if "gender" in view.fields:
        batch["gender"] = torch.from_numpy(speaker % 2)
    return batch


def _draw_references(view: View, index: np.ndarray, count: int, hue: np.ndarray, rng: np.random.Generator) -> Batch:
    """Further frames of each clip, half a second from the window's, with mouths and turns of their own."""
    frames = np.arange(count)
    far = [frames[np.abs(frames[:, None] - row).min(1) >= 13] for row in index]
    chosen = np.stack([np.sort(rng.choice(row, view.references, replace=False)) for row in far])
    mouth, turn = rng.uniform(0, 1, chosen.shape), rng.uniform(-0.06, 0.06, chosen.shape)
    places = [(b, t) for b in range(len(chosen)) for t in range(chosen.shape[1])]
    made: Batch = {"reference_index": torch.from_numpy(chosen.astype(np.int64))}
    if "frames" in view.fields:
        pictures = np.stack([draw_face(view.size, hue[b], mouth[b, t], turn[b, t]) for b, t in places])
        made["references"] = torch.from_numpy(pictures.astype(np.float32)).unflatten(0, chosen.shape)
    if "landmarks" in view.fields:
        points = np.stack([place_landmarks(mouth[b, t], turn[b, t], b) for b, t in places])
        made["reference_landmarks"] = torch.from_numpy(points.astype(np.float32)).unflatten(0, chosen.shape)
    return made


def draw_face(size: int, hue: np.ndarray, mouth: float, turn: float) -> np.ndarray:
    """A face of soft ellipses [3, size, size] in [-1, 1]."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    image = np.full((3, size, size), -0.6) + 0.2 * x

    def spot(cx: float, cy: float, rx: float, ry: float, colour: Any) -> None:
        inside = 1 / (1 + np.exp(np.clip((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 1) * 12, -40, 40)))
        image[:] = image * (1 - inside) + np.asarray(colour).reshape(3, 1, 1) * inside

    middle = 0.5 + turn
    spot(middle, 0.5, 0.3, 0.4, 0.3 + 0.5 * hue)
    for side in (-0.11, 0.11):
        spot(middle + side, 0.42, 0.05, 0.03, [0.8, 0.8, 0.8])
    spot(middle, 0.7, 0.1, 0.015 + 0.05 * mouth, [-0.2, -0.8, -0.8])
    return np.clip(image, -1, 1)


def place_landmarks(mouth: float, turn: float, speaker: int) -> np.ndarray:
    """478 points [478, 2] in 0..1: scattered over the face, with lips, eyes and oval where mediapipe has them."""
    points = _scatter().copy()

    def ring(ids: Any, cx: float, cy: float, rx: float, ry: float) -> None:
        angle = 2 * np.pi * np.arange(len(ids)) / len(ids)
        points[list(ids)] = np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)

    opening = 0.01 + 0.05 * mouth
    ring(face.LIPS, 0.5, 0.7, 0.1, 0.02 + opening)
    ring(face.RIGHT_EYE, 0.39, 0.42, 0.05, 0.02)
    ring(face.LEFT_EYE, 0.61, 0.42, 0.05, 0.02)
    points[[61, 291]] = [[0.4, 0.7], [0.6, 0.7]]
    points[[13, 14]] = [[0.5, 0.7 - opening], [0.5, 0.7 + opening]]
    middle = np.array([0.5, 0.5])
    return (points - middle) * (1 + 0.02 * (speaker % 5)) + middle + np.array([turn, 0.0])


@cache
def _scatter() -> np.ndarray:
    return 0.5 + np.random.default_rng(0).uniform(-0.25, 0.25, (478, 2))


def make_sound(
    view: View, index: np.ndarray, mouth: np.ndarray, speaker: np.ndarray, width: int, rng: np.random.Generator
) -> np.ndarray:
    """A hum at each speaker's pitch, as loud as the mouth is open; [B, width] or [B, n, (2 c + 1) * 640]."""
    pitch = 110.0 * 1.3 ** (speaker % 6)
    if view.pick == "random":
        width = (2 * view.context + 1) * 640
        starts, loud = index - view.context, np.repeat(mouth[..., None], width, -1)
    else:
        starts = index[:, :1] - view.context
        place = np.linspace(0, mouth.shape[1] - 1, width) if mouth.shape[1] > 1 else np.zeros(width)
        loud = np.stack([np.interp(place, np.arange(mouth.shape[1]), row) for row in mouth])[:, None]
    time = starts[..., None] / 25.0 + np.arange(width) / 16_000
    tone = np.sin(2 * np.pi * pitch[:, None, None] * time) + 0.5 * np.sin(4 * np.pi * pitch[:, None, None] * time)
    sound = 0.3 * loud * tone + 0.01 * rng.standard_normal(tone.shape)
    return (sound if view.pick == "random" else sound[:, 0]).astype(np.float32)


def make_spectrogram(speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Harmonics at each speaker's pitch, signs as random as phases are; [B, 2, 257, 598]."""
    bins = np.arange(257)[None, :, None]
    pitch = (4.0 + 1.5 * (speaker % 6))[:, None, None]  # in bins of 31.25 Hz
    comb = np.exp(-(((bins + pitch / 2) % pitch - pitch / 2) ** 2)) * np.exp(-bins / 60)
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * np.arange(598) / 25 + speaker[:, None])[:, None, :]
    signs = rng.choice([-1.0, 1.0], (len(speaker), 2, 257, 598))
    return (signs * (comb * beat)[:, None] + 0.02 * rng.standard_normal(signs.shape)).astype(np.float32)


def take(batch: Batch, items: slice) -> Batch:
    """The batch of some items."""
    return {name: values[items] for name, values in batch.items()}
