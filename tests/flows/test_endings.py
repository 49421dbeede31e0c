"""Every ending has its exit code, one line for people, a record and a log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import Corrupt, Exit, Misuse, Reject, Transient
from contracts.reasons import Reason
from flows.commands.ingest import _judge, share
from flows.running import Ended, Terminated, exit_code, running

ENDINGS = [
    (Misuse("m"), 2),
    (Corrupt("f", "p", "a", "b"), 4),
    (Transient("t"), 75),
    (Reject(Reason.NO_FACE, "d"), 2),
    (KeyboardInterrupt(), 130),
    (Terminated(), 143),
    (ValueError("bug"), 1),
    (Ended(Exit.MISSED, "m"), 3),
    (SystemExit(2), 2),
    (SystemExit(99), 1),
]


@pytest.mark.parametrize(("problem", "code"), ENDINGS)
def test_every_ending_has_its_code_and_its_record(tmp_path: Path, problem: BaseException, code: int) -> None:
    assert exit_code(problem) == code
    with pytest.raises(type(problem)), running("try", work=tmp_path, quiet=True):
        raise problem
    (record,) = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("*.json")]
    assert record["exit_code"] == code
    assert record["error"] == str(problem)
    log = Path(record["log"]).read_text()
    assert ("Traceback" in log) == (not isinstance(problem, Ended))


def test_a_good_ending_is_recorded_with_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running("try", work=tmp_path, json=True) as run:
        run.finish({"made": 3, "where": str(tmp_path)})
    (record,) = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("*.json")]
    assert (record["exit_code"], record["result"]["made"]) == (0, 3)
    assert json.loads(capsys.readouterr().out) == record["result"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ingest"], "name the clips by one of --manifest FILE, --folder DIR"),
        (["ingest", "--manifest", "no.csv"], "no.csv does not exist"),
        (["ingest", "--folder", ".", "--max-rejected", "200%"], "expected a share"),
        (["ingest", "--nonsense"], "No such option"),
        (["nonsense"], "nonsense"),
        (["train", "see_the_speaker"], "voxface dataset select"),
        (["train", "see_the_speaker", "--set", "steps=3"], "STAGE.KEY=VALUE"),
        (["dataset", "verify", "nowhere"], "voxface ingest"),
        (["dataset", "select", "nowhere"], "voxface ingest"),
        (["publish", "see_the_speaker"], "not trained yet: voxface train see_the_speaker"),
        (["publish", "no_such_paper"], "there is no system"),
        (["generate"], "--audio FILE or --manifest FILE"),
        (["generate", "--audio", "a.wav", "--out", "b.avi", "--bundle", "c"], ".mp4"),
        (["generate", "--audio", "a.wav", "--bundle", "nowhere"], "voxface publish"),
        (["inspect", "no.mp4"], "does not exist"),
    ],
)
def test_misuse_is_one_line_that_says_the_mend(voxface: Callable, arguments: list[str], told: str) -> None:
    said = voxface(*arguments)
    assert said.code == 2
    assert told in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_bug_is_one_line_and_a_traceback_in_the_log(voxface: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.commands.runs

    def broken(places: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(flows.commands.runs, "past", broken)
    said = voxface("runs")
    assert said.code == 1
    assert "internal error: ZeroDivisionError: oh" in said.err
    assert "Traceback" not in said.err


def test_runs_lists_what_ran(voxface: Callable) -> None:
    assert voxface("runs", "--json").result == {"runs": []}
    voxface("dataset", "verify", "nowhere")
    (line,) = voxface("runs", "--json").result["runs"]
    assert (line["command"], line["exit_code"]) == ("dataset verify", 2)
    made = voxface("runs", "--made", "--json").result
    assert made["video"] == []


def test_doctor_finds_this_environment_healthy(voxface: Callable) -> None:
    said = voxface("doctor", "--json")
    states = {line["what"]: line["state"] for line in said.result["doctor"]}
    assert {states[name] for name in ("python", "packages", "ffmpeg", "face models", "code")} == {"ok"}


def test_doctor_names_a_damaged_bundle(voxface: Callable, tmp_path: Path) -> None:
    bundle = tmp_path / "work" / "bundles" / "toy" / "abc"
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text("{")
    said = voxface("doctor", "-q")
    assert said.code == 2
    assert "bundle.json" in said.out


@pytest.mark.parametrize(
    ("failed", "rejected", "budget", "code"),
    [(0, 3, 1.0, 0), (1, 0, 1.0, 1), (0, 3, 0.3, 0), (0, 4, 0.3, 3), (1, 9, 0.0, 1)],
)
def test_failed_rows_and_the_budget_decide_the_code(
    failed: int, rejected: int, budget: float, code: int | None
) -> None:
    result = {"rows": {"read": 10, "failed": {"INTERNAL": failed}, "rejected": {"NO_FACE": rejected}}}
    with pytest.raises(Ended) if code else contextlib.nullcontext() as ended:
        _judge(result, budget)
    assert ended is None or ended.value.code == code


def test_shares() -> None:
    assert (share("5%"), share("0.05"), share("0"), share("100%")) == (0.05, 0.05, 0.0, 1.0)
    for wrong in ("", "x", "-1%", "1.5", "nan"):
        with pytest.raises(Misuse):
            share(wrong)


WAIT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
sys.argv = ["voxface", "dataset", "verify", "some dataset"]
from flows import __main__ as program
import preprocessing.run
def wait(dataset):
    os.write(1, b"waiting\\n")
    time.sleep(60)
preprocessing.run.verify = wait
program.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_the_line_that_goes_on(tmp_path: Path, number: int, code: int) -> None:
    surroundings = os.environ | {"VOXFACE_WORK": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode == code
    assert err.strip().endswith("To go on: voxface dataset verify 'some dataset'")
    (record,) = [json.loads(path.read_bytes()) for path in (tmp_path / "runs").glob("*.json")]
    assert record["exit_code"] == code


def test_what_packages_print_goes_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running("try", work=tmp_path, json=True) as run:
        print("a package", "is chatty")
        run.finish({"made": 3})
    assert json.loads(capsys.readouterr().out) == {"made": 3}
    assert "printed: a package is chatty" in next((tmp_path / "runs").glob("*.log")).read_text()
