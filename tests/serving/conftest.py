"""A toy system, a bundle of it, and speech files, for the tests of serving."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toys import talker

from serving.ledger import Ledger, sqlite_url

POSTGRES = Path("/usr/lib/postgresql/15/bin")  # Debian's


@pytest.fixture(scope="session", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folder of toys is among the systems, here and in Ray's workers; what is published is signed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXFACE_CREDENTIALS", str(tmp_path_factory.mktemp("credentials")))
        patch.setenv(talker.PATH_VARIABLE, talker.systems_path())
        yield


@pytest.fixture(scope="session")
def movie() -> Callable[[bytes], bytes]:
    """Makes the smallest file that can carry credentials: an mp4 without pictures around any bytes."""

    def make(content: bytes) -> bytes:
        boxes = [(b"ftyp", b"isom\0\0\2\0isomiso2mp41"), (b"free", b""), (b"mdat", content)]
        return b"".join((len(inside) + 8).to_bytes(4, "big") + kind + inside for kind, inside in boxes)

    return make


@pytest.fixture(scope="session")
def unsigned() -> Callable[[Path], bytes]:
    """Reads an mp4 without the box of its credentials."""
    return talker.unsigned


@pytest.fixture(scope="session")
def make_bundle(toys: None) -> Callable[..., Path]:
    """Writes a bundle of the toy; ``change`` may alter its networks (a dict by stage) before they are stored."""
    return talker.make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """A bundle of the toy system; not to be altered."""
    return make_bundle(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


@pytest.fixture
def speech(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sound (``talker.write_sound``) under a name."""
    return lambda name, samples, **more: talker.write_sound(tmp_path / name, samples, **more)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an empty PostgreSQL of our own, on a unix socket in a temporary folder."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed (Debian: postgresql-15)")
    user: dict = {}
    folder = Path(tempfile.mkdtemp(prefix="vox-pg-", dir="/tmp"))
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = {"user": "postgres" if "postgres" in names else "nobody"}
        shutil.chown(folder, user["user"])
    control = [POSTGRES / "pg_ctl", "-D", folder / "data", "-s", "-w"]
    options = f"-k {folder} -h '' -c fsync=off -c max_connections=60"
    here: dict = {"cwd": folder, "check": True, "capture_output": True, **user}
    try:
        subprocess.run([POSTGRES / "initdb", "-D", folder / "data", "-U", "vox", "--auth=trust", "-N"], **here)
        subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], **here)
        try:
            yield f"postgresql://vox@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **here)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The URL of a new database in that PostgreSQL."""
    from sqlalchemy import create_engine, text

    name = f"vox{secrets.token_hex(4)}"
    engine = create_engine(postgres.replace("postgresql:", "postgresql+psycopg2:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, of either kind."""
    return sqlite_url(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """An empty ledger of either kind, whose time is ``clock``."""
    ledger = Ledger(ledger_url, clock)
    yield ledger
    ledger.close()
