"""The ledger opens what it knows, refuses what it does not, and says so when the database is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update

from contracts.errors import Corrupt, Misuse, Transient
from serving.ledger import MIGRATIONS, Ledger, audit, sqlite_url, version


def test_opened_twice_it_is_the_same(ledger_url: str) -> None:
    one = Ledger(ledger_url)
    with one.writing() as connection:
        connection.execute(insert(audit).values(at=1.0, action="x", status=200))
    two = Ledger(ledger_url)
    with two.reading() as connection:
        assert connection.scalar(select(audit.c.action)) == "x"
        assert connection.scalar(select(version.c.number)) == len(MIGRATIONS)
    one.close()
    two.close()


def test_one_of_a_newer_version_is_left_alone(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    with ledger.writing() as connection:
        connection.execute(update(version).values(number=99))
    ledger.close()
    with pytest.raises(Corrupt, match="newer"):
        Ledger(ledger_url)


def test_an_error_takes_the_whole_transaction_back(ledger: Ledger) -> None:
    def half() -> None:
        with ledger.writing() as connection:
            connection.execute(insert(audit).values(at=1.0, action="x", status=200))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with ledger.reading() as connection:
        assert connection.execute(select(audit)).all() == []


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+nope:///x"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(Misuse):
        Ledger(url)


def test_a_database_that_is_away_is_transient_and_no_password_is_told(tmp_path: Path) -> None:
    with pytest.raises(Transient) as caught:
        Ledger("postgresql://ada:geheim@127.0.0.1:1/none")
    assert "geheim" not in str(caught.value)
    with pytest.raises(Transient):
        Ledger(f"sqlite:///{tmp_path}/no/folder/ledger.db")


def test_sqlite_survives_sigkill_in_the_midst_of_writing(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "ledger.db")
    Ledger(url).close()
    code = (
        "import sys; from sqlalchemy import insert; from serving.ledger import Ledger, audit\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for number in range(10**6):\n"
        "    with ledger.writing() as connection:\n"
        "        connection.execute(insert(audit), [dict(at=number, action='x', status=n) for n in range(3)])\n"
        "    print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout]
    process.wait()
    ledger = Ledger(url)
    with ledger.reading() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        rows = connection.execute(select(audit.c.at)).all()
    assert len(rows) % 3 == 0  # no half transaction
    assert len(rows) // 3 in (len(told), len(told) + 1)  # nothing that was said to be done is gone
    ledger.close()
