"""Where each made thing lies under the work folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "VOXFACE_WORK"


def default_work() -> Path:
    """The work folder where no ``--work`` is given: ``VOXFACE_WORK``, else ``work`` in the current folder."""
    return Path(os.environ.get(VARIABLE) or "work")


@dataclass(frozen=True)
class Places:
    """Paths under one work folder; nothing is created by naming it."""

    work: Path

    @property
    def demo(self) -> Path:
        return self.work / "demo"

    @property
    def dataset(self) -> Path:
        return self.work / "dataset"

    @property
    def selection(self) -> Path:
        return self.work / "selection"

    @property
    def runs(self) -> Path:
        return self.work / "runs"

    @property
    def generated(self) -> Path:
        return self.work / "generated"

    @property
    def service(self) -> Path:
        """The ledger of jobs, their inputs and their results."""
        return self.work / "service"

    def training(self, system: str) -> Path:
        return self.work / "training" / system

    def bundles(self, system: str) -> Path:
        return self.work / "bundles" / system

    def published(self, system: str) -> Path:
        """What was published last: bundle, digest and alias, as JSON."""
        return self.work / "published" / f"{system}.json"

    def evaluation(self, system: str) -> Path:
        return self.work / "evaluation" / f"{system}.json"

    def ablation(self, system: str, table: str) -> Path:
        return self.work / "ablation" / system / table

    def retraining(self, system: str) -> Path:
        """The frozen test, the last decision, and a page per retraining."""
        return self.work / "retraining" / system

    @property
    def tracking_uri(self) -> str:
        """MLflow's store: ``MLFLOW_TRACKING_URI`` where set, else a database in the work folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.work / 'mlflow.db').resolve()}"
