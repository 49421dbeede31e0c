"""The fault matrix of the service: its rows, in order. F28 to F32 under load are not among them yet."""

from __future__ import annotations

from faults.row import Row
from outages import clocks, outputs, signers

ROWS = (
    Row(
        "F28-inspect",
        "one byte of a published video flipped",
        "reported {count}/{count}, with the sidecar and without",
        outputs.flip_bytes,
        20,
        200,
    ),
    Row(
        "F33-signer",
        "the signer is missing or fails",
        "refused {count}/{count}, visible 0",
        signers.fail_signer,
        7,
        100,
    ),
    Row("F34-clock", "the clock is set back, changes zone, passes 2038", "differences 0", clocks.set_clock, 1, 3),
)
