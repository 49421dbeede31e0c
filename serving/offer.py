"""What a service offers while it runs: aliases and the bundles they lead to, in a file that all its doors read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import VoxfaceError
from contracts.files import commit_bytes
from contracts.settings import canonical_json
from serving.rows import Models

OFFER_FILE = "offer.json"

log = logging.getLogger(__name__)


class Offer:
    """The offer of the service under ``root``; written by whoever keeps the bundles loaded, read by every door."""

    def __init__(self, root: Path) -> None:
        self.path = root / OFFER_FILE
        self._seen: tuple[int, int] | None = None  # which file the models were read from
        self._models: Models | None = None

    def write(self, models: Sequence[tuple[str, Path]]) -> None:
        """From now on these are offered; the first is what is meant where none is named."""
        commit_bytes(self.path, canonical_json([[alias, str(folder.absolute())] for alias, folder in models]).encode())

    def read(self) -> Models | None:
        """What is offered now; ``None`` where nobody has said it. What cannot be read changes nothing."""
        try:
            found = self.path.stat()
            seen = found.st_ino, found.st_mtime_ns
            if seen != self._seen:
                told = json.loads(self.path.read_bytes())
                self._models = Models.read([(alias, Path(folder)) for alias, folder in told])
                self._seen = seen
        except FileNotFoundError:
            pass
        except (VoxfaceError, OSError, ValueError, TypeError) as error:
            log.warning("%s: %s; the offer stays as it was", self.path, error)
        return self._models
