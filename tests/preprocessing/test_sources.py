"""Sources in a folder and in a store: the same bytes, the same refusals, nothing left behind."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stores import planned_row, refusal

from contracts.errors import Misuse, Reject, Transient
from contracts.reasons import Reason
from preprocessing import sources
from preprocessing.copies import sweep_copies
from preprocessing.sources import Sources, count_sources

pytestmark = pytest.mark.usefixtures("own_copies")


def test_a_store_refuses_as_a_folder_does(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc")
    memory.pipe("/m/empty.mp4", b"")
    memory.pipe("/m/sub/b.mp4", b"b")
    memory.pipe("/outside.mp4", b"o")
    for name in ("a.mp4", "empty.mp4", "sub/b.mp4"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(memory.cat(f"/m/{name}"))
    here, there = Sources.of(tmp_path / "m"), Sources.of("memory://m")
    there.check()
    for name, reason in {
        "gone.mp4": Reason.MISSING_FILE,
        "empty.mp4": Reason.EMPTY_FILE,
        "sub": Reason.NOT_A_FILE,
        "../outside.mp4": Reason.PATH_ESCAPE,
        "s3://media/a.mp4": Reason.URL_REFUSED,
        "file:///etc/passwd": Reason.URL_REFUSED,
        "concat:a.mp4|b.mp4": Reason.URL_REFUSED,
        "http://169.254.169.254/latest/meta-data": Reason.URL_REFUSED,
    }.items():
        details = []
        for where in (here, there):
            with pytest.raises(Reject) as caught:
                where.look(name)
            assert caught.value.reason is reason, name
            details.append(caught.value.detail)
        if reason is not Reason.PATH_ESCAPE:
            assert details[0] == details[1]
    assert there.look("a.mp4").bytes == 3
    assert there.digest("a.mp4", there.look("a.mp4")) == here.digest("a.mp4", here.look("a.mp4"))
    names = ["a.mp4", "a.mp4", "gone.mp4", "empty.mp4", "http://x/y.mp4"]
    assert count_sources(here, names) == count_sources(there, names)
    assert count_sources(there, names)[1] == {
        Reason.MISSING_FILE: 1,
        Reason.EMPTY_FILE: 1,
        Reason.URL_REFUSED: 1,
    }


def test_addresses_of_data_roots(tmp_path):
    (tmp_path / "a b").mkdir()
    assert Sources.of(f"file://{tmp_path}/a%20b").folder == tmp_path / "a b"
    assert Sources.of(str(tmp_path)).folder == tmp_path
    for text in ("s3://KEY:SECRET@bucket/x", "simplecache::s3://bucket/x"):
        with pytest.raises(Misuse, match="environment") as caught:
            Sources.of(text)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(Misuse, match="--data-root"):
        Sources.of("nothing-known://x").check()
    with pytest.raises(Misuse, match="not a folder"):
        Sources.of(tmp_path / "gone").check()
    with pytest.raises(Misuse, match="holds nothing"):
        Sources.of("memory://gone").check()


def test_a_copy_is_private_and_gone_after_the_row(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc" * 1000)
    planned = planned_row("a.mp4", b"abc" * 1000)
    there = Sources.of("memory://m")
    with there.held(planned) as path:
        assert path.read_bytes() == b"abc" * 1000
        assert path.suffix == ".mp4"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    with pytest.raises(RuntimeError), there.held(planned) as path:
        raise RuntimeError
    assert not path.exists()
    assert memory.cat("/m/a.mp4") == b"abc" * 1000


@pytest.mark.parametrize("now", [b"abd", b"ab", b"abcd", b"x" * 100_000])
def test_other_bytes_than_planned_are_a_mismatch(memory, now):
    memory.pipe("/m/a.mp4", now)
    with (
        pytest.raises(Reject, match="has changed") as caught,
        Sources.of("memory://m").held(planned_row("a.mp4", b"abc")),
    ):
        pass
    assert caught.value.reason is Reason.HASH_MISMATCH


def test_a_source_beyond_the_limit_is_refused(memory):
    memory.pipe("/m/a.mp4", b"abcd")
    there = dataclasses.replace(Sources.of("memory://m"), most_bytes=3)
    assert refusal(lambda: there.look("a.mp4")) is Reason.UNREADABLE
    with pytest.raises(Reject, match="fetched_bytes"), there.held(planned_row("a.mp4", b"abcd")):
        pass


class _Flaky:
    """A store that raises ``faults`` first."""

    def __init__(self, store, faults):
        self._store, self._faults = store, faults

    def info(self, path):
        if self._faults:
            raise self._faults.pop(0)
        return self._store.info(path)

    def open(self, *args, **kwargs):
        return self._store.open(*args, **kwargs)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FileNotFoundError(), Reason.MISSING_FILE),
        (PermissionError(), Reason.UNREADABLE),
        (OSError(22, "Bad Request"), Reason.UNREADABLE),
        (ValueError("no such key"), Reason.UNREADABLE),
    ],
)
def test_what_will_not_change_is_the_rows_and_asked_once(memory, monkeypatch, fault, reason):
    memory.pipe("/m/a.mp4", b"abc")
    flaky = _Flaky(memory, [fault])
    monkeypatch.setattr(sources, "_store", lambda root: (flaky, "/m"))
    assert refusal(lambda: Sources("memory://m").look("a.mp4")) is reason
    assert Sources("memory://m").look("a.mp4").bytes == 3


@pytest.mark.parametrize(
    "fault", [TimeoutError(), ConnectionResetError(), OSError(16, "Slow down"), OSError("no code")]
)
def test_what_may_change_is_tried_three_times(memory, monkeypatch, fault):
    memory.pipe("/m/a.mp4", b"abc")
    with monkeypatch.context() as patch:
        flaky = _Flaky(memory, [fault] * 2)
        patch.setattr(sources, "_store", lambda root: (flaky, "/m"))
        assert Sources("memory://m").look("a.mp4").bytes == 3
    flaky = _Flaky(memory, [fault] * 9)
    monkeypatch.setattr(sources, "_store", lambda root: (flaky, "/m"))
    with pytest.raises(Transient):
        Sources("memory://m").look("a.mp4")
    assert len(flaky._faults) == 6


HOLDER = """
import sys, tempfile
from pathlib import Path
from preprocessing import copies
copies._base = lambda: Path(sys.argv[1])
with copies.private_copy([b"abc"], "a.mp4", 3, sys.argv[2]) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def test_copies_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path):
    base = tmp_path / "copies"
    argv = [sys.executable, "-c", HOLDER, str(base), hashlib.sha256(b"abc").hexdigest()]
    root = str(Path(__file__).parents[2])
    holders = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
        )
        for _ in range(2)
    ]
    killed, living = (Path(holder.stdout.readline().strip()) for holder in holders)
    assert killed.exists()
    assert living.exists()
    assert sweep_copies() == 0
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait()
    assert killed.exists()
    assert sweep_copies() == 1
    assert not killed.parent.exists()
    assert living.exists()
    holders[1].communicate("")
    assert not living.parent.exists()


def test_a_folder_of_copies_that_is_not_ours_alone_is_not_used(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc")
    (tmp_path / "copies").mkdir(mode=0o755)
    (tmp_path / "copies").chmod(0o755)
    with (
        pytest.raises(Misuse, match="not a folder of ours"),
        Sources.of("memory://m").held(planned_row("a.mp4", b"abc")),
    ):
        pass
