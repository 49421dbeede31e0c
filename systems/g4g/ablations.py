"""Table 2 (§4.6): which settings of stage ``g4g`` make each row, and what the paper measured there.

The paper contradicts itself: "w/o supervision" is better than "Ours" in all six columns, while the text claims the
opposite for LRS2. The rows are built as the text describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from systems.base import Preset
from systems.g4g.dubbing import G4GStage

MEASURES = ("PSNR", "SSIM", "LPIPS", "MSE", "LSE-D", "LSE-C")  # of the paper's table, on HDTF


@dataclass(frozen=True)
class Row:
    """One row: its name in the paper, settings changed, the paper's figures in the order of ``MEASURES``."""

    name: str
    figures: tuple[float, ...]
    changes: Mapping[str, bool] = field(default_factory=dict)

    def stage(self, preset: Preset) -> G4GStage:
        """The stage of this row at a preset."""
        made = G4GStage.preset(preset, **self.changes)
        assert isinstance(made, G4GStage)
        return made


TABLES: Mapping[Literal["2"], tuple[Row, ...]] = {
    "2": (
        Row("w/o alignment", (23.7250, 0.8557, 0.1027, 0.0042, 8.0251, 7.0682), {"alignment": False}),
        Row("w/o supervision", (27.6478, 0.9160, 0.0783, 0.0019, 7.7244, 7.4636), {"multi_scale": False}),
        Row("w/o fusion", (25.7960, 0.8746, 0.1082, 0.0030, 7.9698, 7.3311), {"fusion": False}),
        Row("Ours", (27.5560, 0.9083, 0.0904, 0.0020, 7.8920, 7.3381)),
    ),
}
