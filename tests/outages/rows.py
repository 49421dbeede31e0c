"""The fault matrix of the service: its rows, in order."""

from __future__ import annotations

from faults.row import Row
from outages import batches, clocks, outputs, overload, replicas, signers, versions

ROWS = (
    Row(
        "F28-replica",
        "kill -9 of a replica under load",
        "{count} landed, lost 0, published twice 0, every output valid; recovery told",
        replicas.kill_replicas,
        0,
        10,
    ),
    Row(
        "F28-inspect",
        "one byte of a published video flipped",
        "reported {count}/{count}, with the sidecar and without",
        outputs.flip_bytes,
        20,
        200,
    ),
    Row(
        "F29-overload",
        "ten times as many requests as can be served",
        "all answered, 202 or 429 with Retry-After; all taken finish; memory growth < 10 %",
        overload.overload,
        0,
        30,
    ),
    Row(
        "F30-upload",
        "clients that vanish, or send a byte a second",
        "slots leaked 0, orphans 0, 408 at the deadline",
        overload.hold_uploads,
        0,
        100,
    ),
    Row(
        "F31-worker",
        "kill -9 of the only worker amid a batch",
        "{count} landed, lost 0, published twice 0, identical all",
        batches.kill_workers,
        0,
        30,
    ),
    Row(
        "F31-service",
        "SIGKILL of voxface serve and all it started",
        "{count} landed, lost 0, published twice 0",
        batches.kill_service,
        0,
        3,
    ),
    Row(
        "F32-bundle",
        "weights, configuration, or the bundle change on disk",
        "the loaded one goes on, the changed one never serves {count}/{count}, wrong-model videos 0",
        replicas.change_bundle,
        0,
        3,
    ),
    Row(
        "F32-rollback",
        "a canary beside the champion, promoted and rolled back under a running service",
        "every move followed, lost 0, published twice 0, by another bundle than asked for 0, refused 0",
        versions.roll_back,
        0,
        1,
    ),
    Row(
        "F33-signer",
        "the signer is missing or fails",
        "refused {count}/{count}, visible 0",
        signers.fail_signer,
        7,
        100,
    ),
    Row("F34-clock", "the clock is set back, changes zone, passes 2038", "differences 0", clocks.set_clock, 3, 3),
)
