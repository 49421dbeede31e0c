"""What was learnt, to be looked at: every stage's own picture on both splits, and strips of talks.

``tests/bars/<system>.py`` may add its own as ``PICTURES``, a function from the proof, the loaded stages and a folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from contracts.face import mouth_opening
from contracts.files import commit
from contracts.sample import FPS, SAMPLES_PER_FRAME, Frames, decode_wav
from contracts.selection import Chosen
from contracts.shards import read_shard
from systems.base import TrainedStage
from training.agenda import artifact_folder
from training.prove import Proof
from training.stages import Half, restore
from training.validation import draw_picture

TALK_FRAMES = 4 * FPS
SHOWN = 10  # frames of a strip
TALKS = 2


def draw(proof: Proof) -> list[Path]:
    """Draw what can be drawn into ``pictures/``; the files. Nothing where stages are missing."""
    folder = proof.out / "pictures"
    if not all(artifact_folder(proof.out, kind.name).is_dir() for kind in proof.house.stages):
        return []
    for kind in proof.house.stages:
        if issubclass(kind, TrainedStage):
            stage, model = restore(proof.house, kind, proof.out)
            for split in proof.halves:
                to = folder / f"{kind.name}-{split}.png"
                draw_picture(stage, model, proof.reader(stage, split), proof.place.device, to)
    stages = {kind.name: kind.load(artifact_folder(proof.out, kind.name)) for kind in proof.house.stages}
    name = f"bars.{proof.house.name}"
    if importlib.util.find_spec(name) and hasattr(module := importlib.import_module(name), "PICTURES"):
        module.PICTURES(proof, stages, folder)
    if "video" not in proof.house.inputs:
        talks(proof, stages, folder)
    return sorted(folder.glob("*.png"))


def talks(proof: Proof, stages: Mapping[str, nn.ModuleDict], folder: Path) -> None:
    """``talk-N.png``: frames of a clip never seen, of what is made of its sound and its first frame, and over time the
    opening of both mouths over the sound's energy."""
    pipeline = proof.house.pipeline.from_stages(stages)
    pipeline.set_progress_bar_config(disable=True)
    clips = [s for s in proof.test.selection.samples if s.kind == "clip" and s.split == "val"]
    one_of_each = {sample.speaker: sample for sample in sorted(clips, key=lambda s: s.frames)}
    longest = sorted(one_of_each.values(), key=lambda s: (-s.frames, s.key))[:TALKS]
    for number, sample in enumerate(longest):
        frames, sound = read_clip(proof.test, sample, TALK_FRAMES)
        made = pipeline(audio=sound, seed=number, portrait=frames[0]).frames
        with commit(folder / f"talk-{number}.png") as file:
            FigureCanvasAgg(strip(frames, made, sound, sample.key)).print_png(file)


def read_clip(half: Half, sample: Chosen, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``most`` frames uint8 [n, S, S, 3] of a stored clip and their sound float32 [640 n]."""
    members = read_shard(half.dataset, sample.shard).read(sample.key, ("frames", "wav"))
    stored = Frames(members["frames"])
    count = min(len(stored), most)
    images = [np.asarray(Image.open(io.BytesIO(stored[i])).convert("RGB")) for i in range(count)]
    return np.stack(images), decode_wav(members["wav"])[: count * SAMPLES_PER_FRAME]


def strip(true: np.ndarray, made: np.ndarray, sound: np.ndarray, title: str) -> Figure:
    """The picture of one talk; a gap in a curve is a frame in which no face was found."""
    figure = Figure(figsize=(14, 5.2), layout="constrained")
    figure.suptitle(f"{title}: recorded, and made of its sound and first frame", fontsize=9)
    grid = figure.add_gridspec(3, SHOWN, height_ratios=(1, 1, 1.4))
    picked = np.linspace(0, min(len(true), len(made)) - 1, SHOWN).round().astype(int)
    for row, (name, frames) in enumerate((("recorded", true), ("made", made))):
        for column, frame in enumerate(picked):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(frames[frame])
            axes.set(xticks=[], yticks=[], ylabel=name if not column else "")
            if not row:
                axes.set_title(f"{frame / FPS:.2f} s", fontsize=8)
    axes = figure.add_subplot(grid[2, :])
    time = np.arange(len(sound) // SAMPLES_PER_FRAME) / FPS
    energy = np.sqrt((sound.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(1))
    axes.fill_between(time, energy / max(energy.max(), 1e-9), color="0.85", label="energy of the sound, of its largest")
    axes.set(xlabel="s", xlim=(0, time[-1]), ylabel="energy", ylim=(0, 1.05))
    gaps = axes.twinx()
    for name, frames, ink in (("recorded", true, "black"), ("made", made, "tab:red")):
        opening = openings(frames)[: len(time)]
        gaps.plot(time[: len(opening)], opening, color=ink, label=f"{name}: gap of the inner lips, in eye distances")
    handles = [pair for each in (axes, gaps) for pair in zip(*each.get_legend_handles_labels())]
    axes.legend(*zip(*handles), frameon=False, fontsize=8, loc="upper right")
    return figure


def openings(frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Opening of the mouth [n] in frames uint8 [n, S, S, 3], by the face mesh; NaN where no face is found."""
    from preprocessing.landmarks import FaceMesh

    mesh = FaceMesh()
    found = [mesh.find(np.ascontiguousarray(frame)) for frame in frames]
    mesh.close()
    return np.array([np.nan if points is None else float(mouth_opening(points)) for points in found])


def captioned(rows: Mapping[str, np.ndarray], title: str) -> Figure:
    """Rows of pictures uint8 [n, S, S, 3] with what they are."""
    columns = max(len(row) for row in rows.values())
    figure = Figure(figsize=(1.3 * columns + 1, 1.3 * len(rows) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for (name, row), axes in zip(rows.items(), figure.subplots(len(rows), columns, squeeze=False), strict=True):
        for each in axes:
            each.set(xticks=[], yticks=[])
            each.set_frame_on(False)
        for each, picture in zip(axes, row):
            each.imshow(picture)
        axes[0].set_ylabel(name, fontsize=8)
    return figure
