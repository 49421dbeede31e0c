"""What ``voxface ingest`` imports, imported: processes forked from one with this module begin with their work."""

from __future__ import annotations

import os
from pathlib import Path

from faults.row import WORK

from flows import environment

environment.prepare(Path(os.environ[WORK]))  # Prefect reads its home when it is imported

import prefect.artifacts  # noqa: E402
import prefect.flow_engine  # noqa: E402
import prefect.task_engine  # noqa: E402, F401
import ray  # noqa: E402, F401

import flows.__main__  # noqa: E402
import flows.ingest  # noqa: E402
import preprocessing.report  # noqa: E402
import preprocessing.run  # noqa: E402, F401

flows.__main__.application()
