"""How a video becomes visible: rendered under a temporary name, signed, read back, and only then in its place."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from contracts.files import TEMPORARY, commit_bytes, sha256_file, sync_folder
from contracts.settings import canonical_json
from serving.certificate import Identity
from serving.credentials import Signer, signer_of
from serving.provenance import Sidecar, inspect, own_version, portrait_path, sidecar_path, stated


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """A hidden temporary name beside ``out`` (ending as ``out`` does), gone when the block ends.

    What killed runs left under such names of ``out`` goes first.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    path = out.with_name(f"{TEMPORARY}{out.stem}.{os.getpid()}-{secrets.token_hex(4)}{out.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish(
    rendered: Path,
    out: Path,
    portrait: np.ndarray | None,
    describe: Callable[[str, str | None], Sidecar],
    signer: Signer | None = None,
) -> Sidecar:
    """Sign ``rendered`` (an mp4 beside ``out``), put it in its place with sidecar and portrait; return the sidecar.

    ``describe(video sha256, portrait sha256 or None)`` makes the sidecar. The order is: content credentials, read
    back; an older video away, portrait, sidecar, video last; so a video under its final name is always signed and
    has the sidecar of that very video, whatever is killed when. ``portrait`` is uint8 [H, W, 3]. Without ``signer``
    it is the one that the environment names (:func:`own_signer`).

    Raises ``Misuse`` or ``Transient`` where nothing can be signed; nothing is visible then that was not before.
    """
    signer = signer or own_signer()
    picture = None if portrait is None else encode_png(portrait)
    picture_digest = None if picture is None else hashlib.sha256(picture).hexdigest()
    sidecar = describe("", picture_digest)
    signed = rendered.with_name(f"{rendered.name}.signed")
    try:
        signer.sign(rendered, signed, stated(sidecar), sidecar.digital_source_type, sidecar.disclosure)
        with signed.open("rb") as file:
            os.fsync(file.fileno())
        sidecar = describe(sha256_file(signed), picture_digest)
        out.unlink(missing_ok=True)
        if picture is not None:
            commit_bytes(portrait_path(out), picture)
        else:
            portrait_path(out).unlink(missing_ok=True)
        commit_bytes(sidecar_path(out), (canonical_json(sidecar.model_dump(mode="json")) + "\n").encode())
        signed.replace(out)
        sync_folder(out.parent)
    finally:
        signed.unlink(missing_ok=True)
    return sidecar


def own_signer(identity: Identity | None = None) -> Signer:
    """The signer of ``identity``, loaded once; without one, of what the environment names. Raises ``Misuse``."""
    return _signer(identity or Identity.own())


@cache
def _signer(identity: Identity) -> Signer:
    return signer_of(identity, own_version())


def deliver(stored: Path, out: Path) -> None:
    """Put a published video also at ``out``, with what stands beside it; in the same order, so never unmarked.

    The files are hard links where the file system allows, else copies: nothing published is ever edited in place.
    """
    if out.is_file() and stored.samefile(out):
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    for of in (portrait_path, sidecar_path):
        if of(stored).is_file():
            _link(of(stored), of(out))
        else:
            of(out).unlink(missing_ok=True)
    _link(stored, out)
    sync_folder(out.parent)


def published(out: Path, job: str) -> Sidecar | None:
    """The sidecar of the video at ``out`` where it fits and is the result of ``job`` (a digest), else None."""
    if not out.is_file():
        return None
    found = inspect(out)
    fits = found.state == "fits" and found.sidecar is not None and found.sidecar.job == job
    return found.sidecar if fits else None


def encode_png(picture: np.ndarray) -> bytes:
    """PNG bytes of uint8 [H, W, 3]; equal pictures give equal bytes."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def _link(source: Path, target: Path) -> None:
    with draft(target) as path:
        try:
            path.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        path.replace(target)


def _sweep(out: Path) -> None:
    """Remove drafts of ``out``, and half-written files beside it, of processes that are gone."""
    names = "|".join(re.escape(path.name) for path in (sidecar_path(out), portrait_path(out)))
    owner = r"\.(\d+)-[0-9a-f]{8}"  # as contracts.files.commit and draft() name them
    mark = re.escape(TEMPORARY)
    # the encoder keeps a file of its own beside a draft, under the draft's name and more
    drafts = rf"{mark}(?:{mark})?{re.escape(out.stem)}{owner}{re.escape(out.suffix)}(?:\..+)?"
    form = re.compile(rf"{drafts}|{mark}(?:{names}){owner}")
    for path in out.parent.iterdir():
        match = form.fullmatch(path.name)
        if match and not _alive(int(match[1] or match[2])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
