"""The bundles that a running service keeps loaded, changed while it runs: canaries, promotions, rollbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contracts.bundle import read_bundle
from contracts.errors import VoxfaceError
from serving.offer import Offer
from serving.queue import Queue

log = logging.getLogger(__name__)


class Fleet:
    """Loads what is to be offered before the door offers it; unloads what is offered no more once it has no work left.

    ``load`` starts an application for the bundle in a folder, returns its name once it is healthy, and raises where it
    does not get there; ``unload`` ends one by name. ``loaded``: names by the digest of their bundle.
    """

    def __init__(
        self,
        offer: Offer,
        queue: Queue,
        loaded: Mapping[str, str],
        load: Callable[[Path], str],
        unload: Callable[[str], None],
    ) -> None:
        self.offer, self.queue, self.loaded = offer, queue, dict(loaded)
        self._load, self._unload = load, unload
        self._offered: list[tuple[str, str, Path]] | None = None  # alias, digest, folder
        self._refused: set[str] = set()  # digests that did not load: not tried again before the alias moves

    def follow(self, wanted: Sequence[tuple[str, str, Path]]) -> bool:
        """Offer these (alias, digest, folder); whether the offer changed.

        The offer stays as it was, whole, where one of them does not load: what is loaded goes on.
        """
        asked = list(wanted)
        if asked == self._offered:
            self._refused.clear()
            return False
        if self._refused & {digest for _, digest, _ in asked}:
            return False
        for alias, digest, folder in asked:
            if digest in self.loaded:
                continue
            try:
                found = read_bundle(folder).digest
                if found != digest:
                    raise VoxfaceError(f"{folder} is another bundle, {found[:12]}")
                self.loaded[digest] = self._load(folder)
            except VoxfaceError as error:
                log.error("%s (%s) is not served: %s; what is loaded goes on", alias, digest[:12], error)
                self._refused.add(digest)
                return False
        self.offer.write([(alias, folder) for alias, _, folder in asked])
        self._offered = asked
        self._refused.clear()
        return True

    def settle(self) -> list[str]:
        """Unload what is not offered and has nothing queued or in hand; the digests of what went."""
        offered = {digest for _, digest, _ in self._offered or ()}
        gone = []
        for digest in [each for each in self.loaded if self._offered is not None and each not in offered]:
            depth = self.queue.depth(digest)
            if not depth.get("queued", 0) + depth.get("running", 0):
                self._unload(self.loaded.pop(digest))
                gone.append(digest)
        return gone
