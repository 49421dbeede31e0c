"""The page in a real browser, over a service whose workers render a toy in this process: how a test uses it.

``VOXFACE_PAGE_SHOTS=DIR`` keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from serving.api import create_api
from serving.jobs import Job, Outcome
from serving.loader import load_pipeline
from serving.policy import ServingLimits
from serving.render import Progress, Renderer, Watch
from serving.rows import Model, Models
from serving.service import Service
from serving.worker import Worker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LIMITS = ServingLimits(portrait_bytes=100_000, upload_bytes=2_000_000, request_bytes=4_000_000)
WAIT_MS = 20_000
STATES = ("empty", "running", "done", "failed")


@dataclass
class Site:
    """A service at a loopback port, with a key; its workers stand still while ``gate`` is clear."""

    service: Service
    url: str
    key: str
    gate: threading.Event
    shots: Path

    def jobs(self) -> list[Any]:
        (caller,) = [self.service.keys.verify(self.key)]
        assert caller is not None
        return self.service.orders.page(caller, 100)[0]


def paced(renderer: Renderer, gate: threading.Event) -> Callable[..., list[Outcome]]:
    """Rendering that stops after its first frames until the gate opens, and hears meanwhile that it is not wanted."""

    def render(jobs: Sequence[Job], progress: Progress | None, watch: Watch | None, _: Any) -> list[Outcome]:
        def move(done: int, total: int, note: str) -> None:
            assert progress is not None
            progress(done, total, note)
            while not gate.wait(0.02):
                progress(done, total, note)

        return renderer.render(jobs, move, watch)

    return render


@contextmanager
def standing(folder: Path, bundles: Mapping[str, Path]) -> Iterator[Site]:
    """The site of these bundles, by alias, as long as the block lasts; a worker for each."""
    renderers = [Renderer(*load_pipeline(bundle)) for bundle in bundles.values()]
    found = zip(bundles.items(), renderers, strict=True)
    models = Models([Model(alias, bundle, renderer.bundle) for (alias, bundle), renderer in found])
    service = Service(folder / "service", models, limits=LIMITS, lease_s=0.8)
    key = service.keys.create("ada", ["submit", "read"])[1]
    gate, stop = threading.Event(), threading.Event()
    gate.set()
    workers = [Worker(service.queue, r.bundle_digest, service.results, paced(r, gate), 1) for r in renderers]
    threads = [threading.Thread(target=worker.run, args=(stop,), daemon=True) for worker in workers]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_api(service), host="127.0.0.1", port=port, log_level="warning"))
    threads.append(threading.Thread(target=server.run, daemon=True))
    for thread in threads:
        thread.start()
    while not server.started:
        assert threads[-1].is_alive()
        time.sleep(0.02)
    kept = os.environ.get("VOXFACE_PAGE_SHOTS")
    shots = Path(kept) if kept else folder / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    yield Site(service, f"http://127.0.0.1:{port}/", key, gate, shots)
    gate.set()
    stop.set()
    server.should_exit = True
    for thread in threads:
        thread.join(20)
    service.close()


def enter(page: Any, site: Site) -> None:
    page.get_by_label("API key").fill(site.key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("heading", name="New video").wait_for()


def shoot(page: Any, site: Site, name: str, whole: bool = True) -> None:
    """The page in both windows, nothing wider than them; in both schemes and all states where somebody will look."""
    looked_at = "VOXFACE_PAGE_SHOTS" in os.environ
    schemes = ("light", "dark") if looked_at else ("light",) if name in STATES else ()
    for size, window in (("wide", WIDE), ("narrow", NARROW)):
        page.set_viewport_size(window)
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=site.shots / f"{name}-{size}-{scheme}.png", full_page=whole)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{name}: {over} pixels too wide for {window['width']}"
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")


def submit(page: Any, sound: Path, name: str, seed: int = 0) -> Any:
    """The list's row of a new job."""
    page.get_by_label("Recording", exact=True).set_input_files(sound)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("button", name="Make the video").click()
    return row(page, name)


def row(page: Any, name: str) -> Any:
    from playwright.sync_api import expect

    found = page.locator(".job").filter(has=page.locator(".label", has_text=re.compile(f"^{re.escape(name)}$")))
    expect(found).to_have_count(1)
    return found


def state(found: Any, word: str) -> None:
    from playwright.sync_api import expect

    expect(found.locator(".state")).to_have_text(word, timeout=WAIT_MS)


def until(page: Any, expression: str) -> None:
    """Wait until ``expression`` holds; Playwright's own way evaluates text in the page, which the policy forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def playing(video: Any) -> dict[str, float]:
    """Where a playing video is after its time has advanced; fails where it does not."""
    return video.evaluate(
        """video => new Promise((resolve, reject) => {
            const start = video.currentTime, end = performance.now() + 8000;
            const look = () => {
                if (video.readyState >= 2 && video.currentTime > start + 0.2) {
                    resolve({time: video.currentTime, ready: video.readyState, width: video.videoWidth});
                } else if (performance.now() > end) reject(`${video.currentTime} ${video.readyState} ${video.error}`);
                else setTimeout(look, 20);
            };
            look();
        })"""
    )
