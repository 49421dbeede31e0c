"""What a worker does once so that pictures, which come and go by the megabyte, cost it little besides their work."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
PIECE_BYTES = 32 << 20  # larger pieces go back to the system at once; glibc takes no larger number
KEPT_BYTES = 64 << 20  # of what is free at the end of the heap


@cache
def settle() -> None:
    """Keep freed memory for the next picture, and let the garbage collector pass over what is loaded by now.

    Fresh pages have to be zeroed, at a tenth of what a frame costs. Where the C library is not glibc, nothing is kept.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, PIECE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    gc.collect()
    gc.freeze()
