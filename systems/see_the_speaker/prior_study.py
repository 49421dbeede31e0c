"""How far the face prior depends on how many faces are averaged, and on how many of them are women (Figs. 10, 11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from contracts.errors import Misuse
from systems.base import Batch
from systems.see_the_speaker.face_prior import ranked

WANTED = 10_000  # §III-A2: N
DRAWS = 20  # the paper shows one; with few faces one draw says little
SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(11))


@dataclass(frozen=True)
class Study:
    """L1, the mean over dimensions, per draw: ``steps`` [draws, len(sizes) - 1] from each N to the next; ``drift``
    [draws, 11] from the balanced prior of all to one of ``n_drift`` faces with a share of women (at a half: of balance
    too, so what is left there is the smaller number's doing)."""

    of: str  # what was averaged
    faces: int
    women: int
    men: int
    sizes: tuple[int, ...]
    steps: np.ndarray
    n_drift: int
    drift: np.ndarray


@torch.no_grad()
def codes(batches: Iterable[Batch], encoder: nn.Module | None) -> np.ndarray:
    """E_f of the faces, or their pixels where there is no ``encoder``: float32 [n, d]."""
    rows = []
    for batch in batches:
        face = batch["frames"][:, 0]
        rows.append((encoder.eval()(face) if encoder is not None else face.flatten(1)).float().cpu().numpy())
    return np.concatenate(rows)


def study(z: np.ndarray, genders: Sequence[str], keys: Sequence[str], of: str, seed: int = 0) -> Study:
    """Both analyses of codes ``z`` [n, d], over ``DRAWS`` draws by hash. Raises ``Misuse`` below two of each gender."""
    women, men = ([i for i, gender in enumerate(genders) if gender == wanted] for wanted in ("f", "m"))
    pairs = min(len(women), len(men), WANTED // 2)
    if pairs < 2:
        raise Misuse(f"{len(women)} women and {len(men)} men: the analyses need two of each at least")
    halves = tuple(2**power for power in range(pairs.bit_length()) if 2**power <= pairs)  # doublings compare alike
    steps, drift = [], []
    for draw in range(DRAWS):
        f, m = (z[ranked(group, keys, seed + draw)[:pairs]] for group in (women, men))
        priors = [
            (f[:half].sum(0, dtype=np.float64) + m[:half].sum(0, dtype=np.float64)) / (2 * half) for half in halves
        ]  # eq. (5), growing draws
        steps.append([np.abs(b - a).mean() for a, b in pairwise(priors)])
        # the same number of faces at every share, of the faces of this draw
        counts = [round(pairs * share) for share in SHARES]
        balanced = (f.sum(0, dtype=np.float64) + m.sum(0, dtype=np.float64)) / (2 * pairs)
        mixed = [
            (f[:count].sum(0, dtype=np.float64) + m[: pairs - count].sum(0, dtype=np.float64)) / pairs
            for count in counts
        ]
        drift.append([np.abs(prior - balanced).mean() for prior in mixed])
    return Study(
        of=of,
        faces=2 * pairs,
        women=len(women),
        men=len(men),
        sizes=tuple(2 * half for half in halves),
        steps=np.array(steps),
        n_drift=pairs,
        drift=np.array(drift),
    )


def plot(found: Study, out: Path) -> None:
    """Draw both as one PNG at ``out``; the title says where there are fewer faces than the paper's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from contracts.files import commit

    fewer = f" instead of {WANTED:,}" if found.faces < WANTED else ""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    people = f"{found.women} women and {found.men} men at hand"
    figure.suptitle(f"Face prior of {found.of}: N = {found.faces:,} faces{fewer}, {people}")
    left, right = figure.subplots(1, 2)
    _band(left, np.array(found.sizes[1:]), found.steps)
    left.set(xscale="log", yscale="log", xlabel="faces N", ylabel="L1 to the prior of the N before")
    left.set_xticks(found.sizes[1:], [str(size) for size in found.sizes[1:]])
    left.minorticks_off()
    left.set_title("Convergence (after Fig. 10)")
    _band(right, 100 * np.array(SHARES), found.drift)
    right.set(xlabel="women among the faces, %", ylabel=f"L1 to the balanced prior of {found.faces:,}", ylim=(0, None))
    right.set_title(f"Drift, {found.n_drift} faces each (after Fig. 11)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with commit(out) as file:
        FigureCanvasAgg(figure).print_png(file)


def _band(axes: object, x: np.ndarray, values: np.ndarray) -> None:
    axes.fill_between(x, values.min(0), values.max(0), alpha=0.2, label=f"range of {len(values)} draws")  # type: ignore[attr-defined]
    axes.plot(x, values.mean(0), marker="o", label="mean")  # type: ignore[attr-defined]
