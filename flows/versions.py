"""DVC, in this process: what would run now, running it, and sending what it made to where a remote is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import Misuse, Transient


def status(root: Path, targets: Sequence[str] = ()) -> dict[str, Any]:
    """What DVC finds changed, by stage; empty where everything is up to date. ``targets``: these and what they need.

    Raises ``Misuse`` where ``root`` is not the top of a DVC checkout.
    """
    with _repository(root) as repository:
        changed: dict[str, Any] = repository.status(targets=list(targets) or None, with_deps=bool(targets))
        return changed


def reproduce(root: Path, targets: Sequence[str]) -> list[str]:
    """Run what changed among ``targets`` and what they need; the stages that were run.

    What their commands print goes to standard error. Raises ``Misuse`` where one of them fails: its lines say why.
    """
    with _repository(root) as repository, _spoken_aside():
        return [str(stage.addressing) for stage in repository.reproduce(targets=list(targets))]


def push(root: Path, targets: Sequence[str]) -> int | None:
    """Send the versions of ``targets`` and of what they need to the default remote; files sent, ``None``: no remote.

    Raises ``Transient`` where the remote does not take them.
    """
    from dvc.exceptions import DvcException

    with _repository(root) as repository:
        if not repository.config["core"].get("remote"):
            return None
        try:
            return int(repository.push(targets=list(targets), with_deps=True))
        except (DvcException, OSError) as error:
            raise Transient(f"DVC's remote does not take the data: {' '.join(str(error).split())}") from error


@contextmanager
def _spoken_aside() -> Iterator[None]:
    """Commands that are run meanwhile inherit standard error as their standard output: the result is ours to say."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _repository(root: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with chdir(root), Repo() as repository:  # DVC takes names, and the folder of its commands, from the current one
            yield repository
    except DvcException as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise Misuse(f"{root}: DVC says: {' '.join(str(error).split())}{cause}") from error
