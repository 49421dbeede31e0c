"""The toy's bundle where a row needs one, and the ledger's executions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import select
from toys import talker

from serving.ledger import Ledger, executions


@contextmanager
def toys(folder: Path) -> Iterator[Path]:
    """The toy is among the systems, a test certificate under ``folder`` signs; the toy's bundle."""
    own = {talker.PATH_VARIABLE: talker.systems_path(), "VOXFACE_CREDENTIALS": str(folder / "credentials")}
    with mock.patch.dict(os.environ, own):
        yield talker.make_bundle(folder / "toy")


def executions_of(ledger: Ledger) -> list[Any]:
    """All executions, oldest first."""
    with ledger.reading() as connection:
        return list(connection.execute(select(executions).order_by(executions.c.seq)).mappings())
