"""F5, F6, F7: disks that are full, and disks that fail or swallow bytes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from faults.kills import FEW
from faults.material import complete, digests, leftovers, until
from faults.row import Figure, Skip

from contracts.errors import Transient
from contracts.index import account, read_index
from contracts.shards import committed, read_shard

PAGE = 4096


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes mounted at ``folder``. Raises ``Skip`` where that is not allowed."""
    if os.geteuid() != 0:
        raise Skip("mounting a small disk needs root")
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        raise Skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class FailingDisk:
    """A disk, mounted at ``folder``, with one file; ``fail`` loses the second half of it, ``mend`` brings it back."""

    def __init__(self, folder: Path, file: Path) -> None:
        """Raises ``Skip`` where no such disk can be mounted."""
        self.folder, self.path = folder, folder / file.name
        self._image = folder.with_suffix(".img")
        content = folder.with_suffix(".d")
        content.mkdir(parents=True)
        shutil.copy(file, content)
        data = file.read_bytes()
        with self._image.open("wb") as image:
            image.truncate(len(data) + (4 << 20))
        folder.mkdir()
        # blocks of a page: less is read from the disk than is asked for where they are smaller
        self._run("mkfs.ext2", "-q", "-F", "-b", str(PAGE), "-d", str(content), str(self._image))
        self._whole = self._image.read_bytes()
        middle = len(data) // 2 // PAGE * PAGE
        self._lost = self._whole.index(data[middle : middle + PAGE])
        self._run("mount", "-o", "loop,ro", str(self._image), str(folder))

    def fail(self) -> None:
        """From now on the kernel answers EIO where the second half is read."""
        os.truncate(self._image, self._lost)
        if not until(self._broken, 10):
            raise RuntimeError("memory still holds the whole file: the disk is not asked")

    def mend(self) -> None:
        """The disk is as it was."""
        with self._image.open("r+b") as image:
            image.seek(self._lost)
            image.write(self._whole[self._lost :])
        self._forget()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _broken(self) -> bool:
        """Whether reading the file to its end is refused; what memory holds of it may take several tries to drop."""
        self._forget()
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                file.read()
        except OSError:
            return True
        return False

    def _forget(self) -> None:
        """Drop what memory holds of the file, so that the disk is asked."""
        with self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _run(self, *argv: str) -> None:
        if os.geteuid() != 0:
            raise Skip("mounting a disk that fails needs root")
        if shutil.which(argv[0]) is None:
            raise Skip(f"making a disk that fails needs {argv[0]}")
        ran = subprocess.run(argv, capture_output=True, text=True)
        if ran.returncode:
            raise Skip(f"no disk that fails can be mounted here: {ran.stderr.strip()}")


def grow(folder: Path, size: int) -> None:
    """Give the small disk more room, as when somebody frees space."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk but for ``leave`` bytes, or to the last where somebody writes there, too."""
    state = os.statvfs(folder)
    filler = folder / "filler"
    rest = max(0, state.f_bavail * state.f_frsize - leave)
    try:
        with filler.open("wb", buffering=0) as file:
            while rest > 0:
                rest -= file.write(bytes(min(rest, 16 * PAGE)))
    except OSError as error:  # the other one took the room: it is full all the same
        if error.errno != errno.ENOSPC:
            raise
    return filler


def whole_and_accounted(dataset: Path) -> bool:
    """Whether every shard that is visible is whole, and the account of them adds up."""
    shards = list(committed(dataset))
    for shard in shards:
        shard.verify()
    if shards:
        account(read_index(dataset)).check()
    return not leftovers(dataset)


def full_disk(folder: Path, count: int) -> Figure:
    """F5: a disk that is full somewhere in the middle of a run; then some space is freed."""
    rng = random.Random(5)
    complete(folder / "whole", 0, FEW)
    whole = digests(folder / "whole")
    total = sum(path.stat().st_size for path in (folder / "whole").glob("shard-*"))
    told = partial = same = 0
    for trial in range(count):
        with small_disk(folder / f"disk-{trial}", rng.randrange(16 * PAGE, total)) as disk:
            dataset = disk / "d"
            try:
                complete(dataset, 0, FEW)
            except Transient as error:
                told += str(error).startswith(f"NO_SPACE: {dataset}")
            partial += not whole_and_accounted(dataset)
            grow(disk, 4 * total)
            complete(dataset, 0, FEW)
            same += digests(dataset) == whole
    said = f"NO_SPACE told {told}/{count}, visible partial shards {partial}, resume identical {same}/{count}"
    return Figure(said, told == same == count and not partial)


def full_ledger(folder: Path, count: int) -> Figure:
    """F6: the tar fits, its ledger does not."""
    complete(folder / "whole", 0, FEW)
    whole = digests(folder / "whole")
    tars = [(folder / "whole" / f"shard-{number:06d}.tar").stat().st_size for number in range(FEW)]
    told = refused = same = 0
    for trial in range(count):
        number = trial % FEW
        with small_disk(folder / f"disk-{trial}", 64 << 20) as disk:
            dataset = disk / "d"
            complete(dataset, 0, number)
            filler = fill(disk, -(-tars[number] // PAGE) * PAGE + 2 * PAGE)
            try:
                complete(dataset, 0, FEW)
            except Transient as error:
                told += str(error).startswith(f"NO_SPACE: {dataset}")
            base = dataset / f"shard-{number:06d}"
            there = [base.with_suffix(suffix).exists() for suffix in (".tar", ".parquet", ".json")]
            refused += there == [True, False, False] and whole_and_accounted(dataset)
            filler.unlink()
            complete(dataset, 0, FEW)
            same += digests(dataset) == whole
    said = (
        f"NO_SPACE told {told}/{count}, no record and accounts hold {refused}/{count}, resume identical {same}/{count}"
    )
    return Figure(said, told == refused == same == count)


class Faulty:
    """A file on a disk that fails at its ``at``-th byte: by an error, or silently."""

    def __init__(self, file: Any, how: str, at: int) -> None:
        self._file, self._how, self._at, self._done = file, how, at, 0

    def write(self, data: bytes) -> int:
        size, first = len(data), self._at - self._done
        self._done += size
        if 0 <= first < size:
            if self._how == "error":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data = bytes(data[:first]) + (b"" if self._how == "short" else bytes([data[first] ^ 1]) + data[first + 1 :])
        self._file.write(data)
        return size

    def __enter__(self) -> Faulty:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def failing(suffix: str, how: str, times: int, at: int) -> Iterator[None]:
    """Writing files named ``*suffix`` fails ``times`` times: ``how`` is error, short, flip, sync or rename."""
    opened, synced, replaced, left = Path.open, os.fsync, Path.replace, times

    def open_file(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        nonlocal left
        file = opened(path, mode, *rest, **more)
        if mode == "wb" and suffix in path.name and left and how in ("error", "short", "flip"):
            left -= 1
            return Faulty(file, how, at)
        return file

    def sync(handle: int) -> None:
        nonlocal left
        if how == "sync" and left and suffix in str(Path(f"/proc/self/fd/{handle}").readlink()):
            left -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(handle)

    def replace(path: Path, target: Path) -> Any:
        nonlocal left
        if how == "rename" and left and suffix in path.name:
            left -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replaced(path, target)

    with mock.patch.object(Path, "open", open_file), mock.patch.object(Path, "replace", replace):  # noqa: SIM117
        with mock.patch.object(os, "fsync", sync):
            yield


def failing_disk(folder: Path, count: int) -> Figure:
    """F7: an error or a lost byte, once (tried again) or for good (told, naming the file)."""
    rng = random.Random(7)
    complete(folder / "whole", 0, 1)
    whole = digests(folder / "whole")
    mended = told = silent = once = 0
    for trial in range(count):
        how = ("error", "short", "flip", "sync", "rename")[trial % 5]
        name = sorted(whole)[trial // 5 % 3]
        times = 1 + 98 * (trial % 2)
        once += times == 1
        dataset = folder / f"failing-{trial}"
        at = rng.randrange((folder / "whole" / name).stat().st_size)
        try:
            with failing(name, how, times, at):
                complete(dataset, 0, 1)
        except Transient as error:
            told += times > 1 and f"{dataset / name} cannot be written" in str(error) and not (dataset / name).exists()
        else:
            mended += times == 1 and digests(dataset) == whole
        shown = dataset / "shard-000000.json"
        if shown.exists():
            read_shard(dataset, 0).verify()
            silent += digests(dataset) != whole
    said = f"failed once: {mended}/{once} mended; failed twice: {told}/{count - once} named; silent successes {silent}"
    return Figure(said, mended == once and told == count - once and not silent)
