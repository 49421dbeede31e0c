"""``make schedule``: Prefect's deployment `generate` of infra/prefect.yaml: a server, a worker, runs by the clock.

Everything is done by Prefect's own commands, those of docs/operations.md. The page of the first run is looked at in
Chromium, where there is one; ``work/campaigns/schedule.png`` is what it showed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

import httpx  # noqa: E402
from faults.material import until  # noqa: E402
from faults.row import MARK, kill_marked, short_folder  # noqa: E402
from faults.server import answering, start_server  # noqa: E402
from scoreboard import Scoreboard, ended  # noqa: E402
from toys import talker  # noqa: E402

VIDEOS = 8
EVERY_S = 60  # the schedule's interval
LONGEST_S = 600.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SHOT = "schedule.png"


def main() -> int:
    from flows import environment

    folder, mark = short_folder("vp-"), secrets.token_hex(8)
    board = Scoreboard("schedule")
    environment.prepare(folder / "work")
    own = {MARK: mark, "RAY_TMPDIR": str(folder / "r"), "PWD": str(ROOT), "PREFECT_HOME": str(folder / "prefect")}
    own |= {talker.PATH_VARIABLE: talker.systems_path(), "VOXFACE_CREDENTIALS": str(folder / "credentials")}
    own |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    (folder / "r").mkdir()
    try:
        with mock.patch.dict(os.environ, own):
            address = answering(start_server(folder, mark, ui=True))
            with mock.patch.dict(os.environ, {"PREFECT_API_URL": address}):
                measure(board, folder, address)
        return board.close()
    finally:
        kill_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


def measure(board: Scoreboard, folder: Path, address: str) -> None:
    """Deploy, switch a schedule on, start a worker, and wait for two runs."""
    manifest, out = ordered(folder)
    given = {"manifest": str(manifest), "out": str(out), "system": "loudmouth", "work": str(folder / "work")}
    prefect("work-pool", "create", "voxface", "--type", "process")
    prefect("--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--name", "generate", *params(given))
    prefect("deployment", "schedule", "create", "generate/generate", "--interval", EVERY_S)
    with (folder / "worker.log").open("wb") as told:
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "voxface"]
        subprocess.Popen(worker, cwd=ROOT, stdout=told, stderr=told, start_new_session=True)
    server = Server(address)

    first = server.run_that_ended(after=0.0)
    valid, refused = looked_at(out)
    said = (
        f"{first['state_type']}, by the schedule {first['auto_scheduled']}; {valid}/{VIDEOS} videos marked, signed and "
    )
    said += f"whole; 1 unsound line answered {', '.join(refused) or 'not at all'}"
    held = first["state_type"] == "COMPLETED" and first["auto_scheduled"] and valid == VIDEOS and len(refused) == 1
    board.check("S1-run", "a run by the schedule", said, f"COMPLETED, {VIDEOS} of {VIDEOS}, the unsound told", held)

    before = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    talker.write_sound(folder / "new.wav", 9_000)
    with manifest.open("a") as file:
        file.write(json.dumps({"audio": "new.wav"}) + "\n")
    second = server.run_that_ended(after=time.time())
    untouched = sum(path.stat().st_mtime_ns == when for path, when in before.items())
    made = len(list(out.glob("*.mp4"))) - len(before)
    said = f"{second['state_type']}, {made} made, {untouched}/{VIDEOS} untouched"
    held = second["state_type"] == "COMPLETED" and made == 1 and untouched == VIDEOS
    board.check("S2-again", "the next run, after one line more", said, f"1 made, {VIDEOS} untouched", held)

    pictures = server.pictures(first["id"])
    board.check("S3-record", "thumbnails that the first run keeps", f"{pictures}", "1", pictures == 1)
    looked = page(address, first["id"], Path(os.environ.get("VOXFACE_WORK", "work")) / "campaigns" / SHOT)
    if looked is None:
        board.skip("S4-page", "thumbnails on the run's page", "no chromium here")
    else:
        width, height, shot = looked
        said = f"a picture of {width} x {height} pixels is shown ({shot})"
        board.check("S4-page", "thumbnails on the run's page", said, "one, not empty", width > 100 < height)


def ordered(folder: Path) -> tuple[Path, Path]:
    """A manifest of so many speeches and one line that cannot be, the champion that makes them, and where to."""
    from flows.places import Places
    from training.registry import register

    register(talker.make_bundle(folder / "toy"), "loudmouth", "champion", Places(folder / "work").tracking_uri)
    lines = [{"audio": "none.wav"}]
    for number in range(VIDEOS):
        talker.write_sound(folder / f"s{number}.wav", 12_000 + 2_000 * number, peak=0.2 + 0.1 * number)
        lines.append({"audio": f"s{number}.wav"})
    manifest = folder / "jobs.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest, folder / "talks"


def looked_at(out: Path) -> tuple[int, list[str]]:
    """How many videos under ``out`` fit their marks and signatures; codes of the lines that were refused."""
    from serving.provenance import inspect

    report = out / "report.jsonl"
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.is_file() else []
    valid = sum(inspect(path).state == "fits" for path in out.glob("*.mp4"))
    return valid, [line["code"] for line in lines if line["state"] == "rejected"]


class Server:
    """What is asked of Prefect's API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def run_that_ended(self, after: float) -> dict[str, Any]:
        """The first run that began after that second and has ended. Raises ``TimeoutError``."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            time.sleep(1.0)
            wanted = {"state": {"type": {"any_": list(ENDED)}}}
            runs = self._ask("flow_runs", {"flow_runs": wanted, "sort": "START_TIME_ASC"})
            found[:] = [run for run in runs if seconds(run["start_time"]) > after]
            return bool(found)

        if not until(there, LONGEST_S):
            raise TimeoutError(f"no run of the schedule ended within {LONGEST_S:.0f} s")
        return found[0]

    def pictures(self, run: str) -> int:
        """Artifacts of the run that are pictures."""
        kept = self._ask("artifacts", {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": ["image"]}}})
        return sum(str(each["data"]).startswith("data:image/") for each in kept)

    def _ask(self, what: str, body: dict[str, Any]) -> list[Any]:
        answer = httpx.post(f"{self.address}/{what}/filter", json=body, timeout=60)
        answer.raise_for_status()
        found: list[Any] = answer.json()
        return found


def page(address: str, run: str, shot: Path) -> tuple[int, int, Path] | None:
    """Width and height of the thumbnails on the run's page, as a browser shows them; None where there is no browser."""
    from toys.browser import CHROMIUM, FLAGS, WIDE

    if CHROMIUM is None:
        return None
    from playwright.sync_api import TimeoutError, sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport=WIDE)
        tab.set_default_timeout(60_000)
        tab.goto(f"{address.removesuffix('/api')}/runs/flow-run/{run}")
        shot.parent.mkdir(parents=True, exist_ok=True)
        tab.get_by_text("Artifacts", exact=True).first.click()
        tab.get_by_text("thumbnails", exact=True).first.wait_for()
        tab.screenshot(path=shot.with_name("schedule-run.png"), full_page=True)
        tab.get_by_text("thumbnails", exact=True).first.click()
        picture = tab.locator("img[src^='data:image/jpeg']").first
        with suppress(TimeoutError):
            picture.wait_for()
        tab.screenshot(path=shot, full_page=True)
        size = picture.evaluate("e => [e.naturalWidth, e.naturalHeight]") if picture.count() else (0, 0)
        browser.close()
    return size[0], size[1], shot


def prefect(*words: object) -> None:
    """One of Prefect's own commands, in the project's folder."""
    command = [sys.executable, "-m", "prefect", *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)


def params(given: dict[str, str]) -> tuple[str, str]:
    return "--params", json.dumps(given)


def seconds(told: str | None) -> float:
    """Since the epoch, of a time as Prefect writes it."""
    from datetime import datetime

    return datetime.fromisoformat(told).timestamp() if told else 0.0


if __name__ == "__main__":
    sys.exit(ended(main))
