"""F33: the signer is missing, wrong, or fails: nothing becomes visible."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count as numbers
from pathlib import Path
from typing import Any
from unittest import mock

from faults.row import Figure
from outages.standing import toys
from toys import talker

from contracts.errors import Misuse, Transient
from serving.certificate import CERTIFICATE, CHAIN_FILE, KEY, KEY_FILE, Identity
from serving.credentials import Signer
from serving.jobs import Job
from serving.loader import load_pipeline
from serving.provenance import inspect
from serving.publish import own_signer
from serving.render import Renderer


def fail_signer(folder: Path, count: int) -> Figure:
    """As many videos are asked for of signers that fail in seven ways."""
    refused = visible = 0
    with toys(folder) as bundle:
        pipeline, manifest = load_pipeline(bundle)
        own_signer()  # makes the test certificate
        pair = folder / "credentials" / "test"
        sound = talker.write_sound(folder / "talk.wav", 8_000)
        for number, fault in zip(range(count), _turns(), strict=False):
            out = folder / "out" / str(number) / "talk.mp4"
            with fault(folder / f"s{number}", pair):
                try:
                    outcomes = Renderer(pipeline, manifest).render([Job(audio=sound, out=out, seed=number)])
                    refused += outcomes[0].state != "done"
                except (Misuse, Transient):
                    refused += 1
            visible += sum(path.is_file() for path in (folder / "out").rglob("*"))
        out = folder / "out" / "talk.mp4"
        Renderer(pipeline, manifest).render([Job(audio=sound, out=out)])
        after = inspect(out).state == "fits"
    said = f"refused {refused}/{count}; files visible or left over {visible}; with the signer back, published {after}"
    return Figure(said, refused == count and not visible and after)


Fault = Callable[[Path, Path], Any]


def _turns() -> Iterator[Fault]:
    faults: list[Fault] = [
        _without("key"),
        _without("certificate"),
        _garbled,
        _strange,
        _signing(lambda *_: (_ for _ in ()).throw(RuntimeError("the hardware module does not answer"))),
        _signing(lambda signer, source, target, *_: target.write(source.read())),  # says nothing, and signs nothing
        _signing(lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))),
    ]
    for number in numbers():
        yield faults[number % len(faults)]


@contextmanager
def _named(chain: Path, key: Path) -> Iterator[None]:
    with mock.patch.dict(os.environ, {CERTIFICATE: str(chain), KEY: str(key)}):
        yield


def _without(what: str) -> Fault:
    """A file of the pair is not there."""

    def fault(folder: Path, pair: Path) -> Any:
        shutil.copytree(pair, folder)
        (folder / (KEY_FILE if what == "key" else CHAIN_FILE)).unlink()
        return _named(folder / CHAIN_FILE, folder / KEY_FILE)

    return fault


def _garbled(folder: Path, pair: Path) -> Any:
    """The key's file holds something else."""
    shutil.copytree(pair, folder)
    (folder / KEY_FILE).write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")
    return _named(folder / CHAIN_FILE, folder / KEY_FILE)


def _strange(folder: Path, pair: Path) -> Any:
    """The key is another certificate's."""
    own_signer(Identity(folder=folder))
    return _named(pair / CHAIN_FILE, folder / "test" / KEY_FILE)


def _signing(write: Callable[..., Any]) -> Fault:
    """A signer that was fine when it was looked at, and then does this when a video is to be signed."""

    @contextmanager
    def fault(folder: Path, pair: Path) -> Iterator[None]:
        real = Signer._write

        def turned(signer: Signer, source: Any, target: Any, statement: Any, *said: Any) -> None:
            if statement.system:
                write(signer, source, target, statement, *said)
            else:  # the trial when a signer is made
                real(signer, source, target, statement, *said)

        with mock.patch.object(Signer, "_write", turned):
            yield

    return fault
