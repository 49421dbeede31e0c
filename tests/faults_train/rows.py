"""The fault matrix of training: its rows, in order."""

from __future__ import annotations

from faults.row import Row
from faults_train import damage, kills, poison, retries

SAME = "max difference 0.0 after {count} landed kills, steps redone within the interval"
OF = {
    "coder": "one phase, batch norm and dropout",
    "all": "with accumulation, clipping, moving average, schedule and fp16",
    "mouth": "a GAN's two phases, with parents",
    "conre": "see_the_speaker's conre",
}

ROWS = (
    *(
        Row(f"F17-{name}", f"SIGKILL of training: {told}", SAME, kills.kill_training(name), int(name == "all"), 20)
        for name, told in OF.items()
    ),
    Row(
        "F18-save",
        "SIGKILL in the middle of saving a checkpoint",
        "0 of {count} unusable, max difference 0.0",
        kills.kill_saving,
        2,
        30,
    ),
    Row(
        "F20-damage",
        "a checkpoint cut short, or with a flipped bit",
        "silent loads 0/{count}, the file and what is used instead named",
        damage.damage_checkpoint,
        0,
        50,
    ),
    Row(
        "F21-poison",
        "losses or gradients that are not finite",
        "skipped and recorded {count}/{count}, stopped after 5 in a row, exports not finite 0",
        poison.spoil,
        0,
        20,
    ),
    Row(
        "F22-data",
        "the data changed since the checkpoint",
        "refused with both fingerprints {count}/{count}",
        damage.change_data,
        0,
        12,
    ),
    Row(
        "F27-retries",
        "transient and permanent errors of a task",
        "extra attempts on permanent errors 0, three on a transient one",
        retries.try_again,
        0,
        6,
    ),
)
