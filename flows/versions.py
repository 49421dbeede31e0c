"""DVC, in this process: which stages of ``dvc.yaml`` would run now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.errors import Misuse


def status(root: Path) -> dict[str, Any]:
    """What DVC finds changed, by stage; empty where everything is up to date.

    Raises ``Misuse`` where ``root`` is not the top of a DVC checkout.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repository:
            changed: dict[str, Any] = repository.status()
            return changed
    except DvcException as error:
        raise Misuse(f"{root}: DVC says: {error}") from None
