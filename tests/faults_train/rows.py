"""The fault matrix of training: its rows, in order."""

from __future__ import annotations

from faults.row import Row
from faults_train import damage, kills, loaders, poison, retries, tracking, workers

SAME = "max difference 0.0 after {count} landed kills, steps redone within the interval"
OF = {
    "coder": "one phase, batch norm and dropout",
    "all": "with accumulation, clipping, moving average, schedule and fp16",
    "mouth": "a GAN's two phases, with parents",
    "mean": "computed, not trained",
    "conre": "see_the_speaker's conre",
    "lips": "see_the_speaker's lip_landmarks",
    "space": "see_the_speaker's motion_space",
    "diffusion": "see_the_speaker's motion_diffusion",
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
        "F19-worker",
        "kill -9 of a worker of Ray Train",
        "{count} landed, finished as an unbroken training to the bit, steps redone within the interval",
        workers.kill_group,
        0,
        10,
    ),
    Row(
        "F19-node",
        "a node of three lost in the middle of a stage",
        "{count} landed, finished as an unbroken training to the bit, steps redone within the interval",
        workers.kill_node,
        0,
        2,
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
        "F23-loaders",
        "0, 1, 2 and 4 loader processes",
        "order and losses identical {count}/{count}",
        loaders.vary_loaders,
        0,
        4,
    ),
    Row(
        "F24-mlflow",
        "MLflow down, slow (5 s) or erroring",
        "points lost 0, step time within 2 %",
        tracking.lose_mlflow,
        0,
        3,
        alone=True,
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
