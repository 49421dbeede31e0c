"""Which file a manifest line names: inside the data root, a plain file, readable, not empty."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from contracts.errors import Reject
from contracts.reasons import Reason

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # http://, file:, concat:, pipe:, C:\


def safe_path(root: Path, name: str) -> Path:
    """The resolved path of the file that ``name`` (relative to ``root``) stands for.

    Links are followed as long as they stay inside ``root``. Nothing is opened but a plain file, so a
    FIFO cannot hang. Raises ``Reject`` with URL_REFUSED, PATH_ESCAPE, MISSING_FILE, NOT_A_FILE,
    UNREADABLE or EMPTY_FILE, in that order.
    """
    if SCHEME.match(name):
        raise Reject(Reason.URL_REFUSED, f"{name!r} is an address, not a file under the data root")
    if "\0" in name:
        raise Reject(Reason.PATH_ESCAPE, f"{name!r} holds a NUL")
    base = root.resolve()
    try:
        path = (base / name).resolve()
        if not path.is_relative_to(base):
            raise Reject(Reason.PATH_ESCAPE, f"{name!r} leads out of the data root")
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Reject(Reason.MISSING_FILE, f"{name!r} is not under the data root") from None
    except PermissionError:
        raise Reject(Reason.UNREADABLE, f"{name!r}: no permission to read it") from None
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise Reject(Reason.UNREADABLE, f"{name!r}: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Reject(Reason.NOT_A_FILE, f"{name!r} is a folder, device, pipe or socket")
    try:
        # O_NOFOLLOW: what was resolved a moment ago must still be no link
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        raise Reject(Reason.UNREADABLE, f"{name!r}: {error.strerror}") from None
    if status.st_size == 0:
        raise Reject(Reason.EMPTY_FILE, f"{name!r} has zero bytes")
    return path
