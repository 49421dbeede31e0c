"""Errors of ours through Ray Serve, which hands on no more of a failed replica than text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.errors import Corrupt, Misuse, Transient, VoxfaceError
from contracts.settings import canonical_json

MARK = "voxface-error:"  # before the JSON of our own errors in Serve's text of a failed deployment


@contextmanager
def marked() -> Iterator[None]:
    """Our own errors raised inside leave as text that :func:`own_error` finds in any other."""
    try:
        yield
    except VoxfaceError as error:
        raise RuntimeError(MARK + canonical_json([type(error).__name__, *map(str, error.args)])) from None


def own_error(told: str) -> Exception:
    """The error that a replica's constructor marked in Serve's text, as itself again; else one with that text."""
    at = told.find(MARK)
    if at < 0:
        return RuntimeError(f"the application could not be deployed: {told.strip()[-2000:]}")
    (name, *args), _ = json.JSONDecoder().raw_decode(told, at + len(MARK))
    kinds: dict[str, type[VoxfaceError]] = {kind.__name__: kind for kind in (Corrupt, Misuse, Transient)}
    return kinds[name](*args)
