"""What must be in the environment before a heavy package is imported: silence, short start-ups, one thread each."""

from __future__ import annotations

import os
from pathlib import Path

QUIET = {
    # nobody is told that this program ran
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # nothing is fetched behind the user's back
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # a first start of the ephemeral server takes longer than Prefect's 20 s on a cold disk, minutes on a busy machine
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
    "PREFECT_LOGGING_LEVEL": "INFO",
    # workers are as many as cores: a second thread in each only makes them wait for one another
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Ray's own 15 starves its workers beside whatever else runs: they have the command's own (nice voxface …)
    "RAY_worker_niceness": "0",
    # Serve kills a proxy that is not up within 5 s and begins again: on a busy machine, until it has given up
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    # a worker that dies is reported by us, once
    "RAY_DEDUP_LOGS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "GLOG_minloglevel": "2",
    "WDS_SECURE": "1",
    # MLflow asks git by subprocess otherwise; the code's version is ours to record
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare(work: Path) -> None:
    """Set what is not set yet. ``work`` is the folder of made things; Prefect's database and credentials lie there."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str((work / "prefect").resolve()))
    os.environ.setdefault("VOXFACE_CREDENTIALS", str((work / "credentials").resolve()))
