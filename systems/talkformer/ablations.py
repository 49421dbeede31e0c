"""Tables III and IV (§IV-D): which settings of stage ``talkformer`` make each row, and what the paper measured there.

Each row is built, not cut out: see :class:`systems.talkformer.denoiser.Denoiser`. ``Ours`` is the preset as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from systems.talkformer.talkformer import TalkFormerStage

Table = Literal["III", "IV"]
MEASURES = ("PSNR", "SSIM", "LPIPS", "FID", "CSIM", "SyncScore")  # of the paper's tables, on HDTF


@dataclass(frozen=True)
class Row:
    """One row: its name in the paper, settings changed, the paper's figures in the order of ``MEASURES``."""

    name: str
    figures: tuple[float, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, preset: Literal["paper", "small", "tiny"]) -> TalkFormerStage:
        """The stage of this row at a preset; rows without temporal attention switch it off where a preset has it."""
        made = TalkFormerStage.preset(preset, **{"temporal": False, **self.changes})
        assert isinstance(made, TalkFormerStage)
        return made


TABLES: Mapping[Table, tuple[Row, ...]] = {
    "III": (
        Row("Ours w/o M-Align", (20.82, 0.75, 0.159, 50.28, 0.687, 1.12), {"align_motion": False}),
        Row("Ours w/o R-Align", (24.28, 0.82, 0.114, 43.36, 0.790, 1.54), {"align_reference": False}),
        # not in the paper: as many items per step, of one picture each
        Row("Ours w/o B-Sequential", (23.88, 0.81, 0.118, 35.91, 0.777, 5.35), {"frames": 1}),
        Row("Ours w/o End2End", (23.85, 0.82, 0.096, 30.96, 0.786, 4.93), {"end_to_end": False}),
        Row("Ours", (24.49, 0.83, 0.097, 29.15, 0.795, 5.46)),
        Row("Ours + CompleteRef", (25.12, 0.86, 0.091, 23.66, 0.794, 5.48), {"appearance": "unet"}),
        Row("Ours + TempAttn", (26.34, 0.86, 0.083, 23.62, 0.791, 5.59), {"temporal": True}),
    ),
    "IV": (
        Row("Ours (N=1)", (23.66, 0.80, 0.111, 31.74, 0.781, 4.55), {"references": 1}),
        Row("Ours (N=3)", (24.33, 0.82, 0.098, 29.83, 0.793, 5.25), {"references": 3}),
        Row("Ours (N=5)", (24.49, 0.83, 0.097, 29.15, 0.795, 5.46), {"references": 5}),
        Row("Ours (N=10)", (24.31, 0.84, 0.098, 29.35, 0.794, 5.48), {"references": 10}),
    ),
}
