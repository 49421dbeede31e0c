"""The page in a real browser, over a service whose workers render a toy in this process: what a person can do there.

``VOXFACE_PAGE_SHOTS=DIR`` keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from serving.api import create_api
from serving.guard import SECURITY
from serving.jobs import Job, Outcome
from serving.loader import load_pipeline
from serving.page import FILES, FOLDER
from serving.policy import ServingLimits
from serving.provenance import inspect
from serving.render import Progress, Renderer, Watch
from serving.rows import Model, Models
from serving.service import Service
from serving.worker import Worker

pytestmark = pytest.mark.timeout(120)
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
LIMITS = ServingLimits(portrait_bytes=100_000)
WAIT_MS = 20_000
browser_only = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian package chromium)"),
]


@dataclass
class Site:
    """A service at a loopback port, with a key; its workers stand still while ``gate`` is clear."""

    service: Service
    url: str
    key: str
    gate: threading.Event
    shots: Path
    faults: list[str] = field(default_factory=list)  # of the page's scripts and policy

    def jobs(self) -> list[Any]:
        (caller,) = [self.service.keys.verify(self.key)]
        assert caller is not None
        return self.service.orders.page(caller, 100)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def paced(renderer: Renderer, gate: threading.Event) -> Callable[..., list[Outcome]]:
    """Rendering that stops after its first frames until the gate opens, and hears meanwhile that it is not wanted."""

    def render(jobs: Sequence[Job], progress: Progress | None, watch: Watch | None) -> list[Outcome]:
        def move(done: int, total: int, note: str) -> None:
            assert progress is not None
            progress(done, total, note)
            while not gate.wait(0.02):
                progress(done, total, note)

        return renderer.render(jobs, move, watch)

    return render


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, bundle: Path, make_bundle: Callable[..., Path]) -> Iterator[Site]:
    def louder(models: dict) -> None:
        models["mouth"]["gain"].gain.weight.data.fill_(9.0)

    folder = tmp_path_factory.mktemp("page")
    renderers = [Renderer(*load_pipeline(each)) for each in (bundle, make_bundle(folder / "louder", louder))]
    folders = [bundle, folder / "louder" / "bundle"]
    aliases = ["champion", "candidate"]
    models = Models([Model(*each) for each in zip(aliases, folders, [r.bundle for r in renderers], strict=True)])
    service = Service(folder / "service", models, limits=LIMITS, lease_s=0.8)
    key = service.keys.create("ada", ["submit", "read"])[1]
    gate, stop = threading.Event(), threading.Event()
    gate.set()
    workers = [Worker(service.queue, r.bundle_digest, service.results, paced(r, gate), 1) for r in renderers]
    threads = [threading.Thread(target=worker.run, args=(stop,), daemon=True) for worker in workers]
    port = free_port()
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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, site: Site) -> Iterator[Any]:
    """A new tab with the page; at its end no script and no policy may have complained."""
    context = chromium.new_context(viewport=WIDE, accept_downloads=True, locale="en-GB")
    context.set_default_timeout(WAIT_MS)
    tab = context.new_page()
    told: list[str] = []
    tab.on("pageerror", lambda error: told.append(str(error)))
    # an answer of 4xx is written to the console by the browser itself
    tab.on("console", lambda line: told.append(line.text) if "Content Security Policy" in line.text else None)
    tab.goto(site.url)
    yield tab
    context.close()
    assert told == []
    site.gate.set()


def enter(page: Any, site: Site) -> None:
    page.get_by_label("API key").fill(site.key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("heading", name="New video").wait_for()


def shoot(page: Any, site: Site, name: str) -> None:
    """The page in both windows and both schemes, nothing wider than the window."""
    for size, window in (("wide", WIDE), ("narrow", NARROW)):
        page.set_viewport_size(window)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=site.shots / f"{name}-{size}-{scheme}.png", full_page=True)
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


def test_the_page_needs_no_key_and_its_policy_lets_nothing_else_in(bundle: Path, tmp_path: Path) -> None:
    loaded = load_pipeline(bundle)[1]
    service = Service(tmp_path / "service", Models([Model("champion", bundle, loaded)]))
    with TestClient(create_api(service)) as client:
        for path, file in FILES.items():
            answer = client.get(path)
            assert (answer.status_code, answer.content) == (200, file.read_bytes()), path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            others = {name: value for name, value in SECURITY.items() if name != "Content-Security-Policy"}
            assert {name: answer.headers[name] for name in others} == others
            assert client.head(path).status_code == 200
            assert client.post(path).status_code == 401
        for path in ("/page/", "/page/index.html", "/page/../guard.py", "/page/__init__.py", "/page/nothing.js"):
            assert client.get(path).status_code == 401, path
        assert not {path for path in client.app.openapi()["paths"] if not path.startswith("/v1/")}
    service.close()


def test_the_page_takes_nothing_from_outside_and_inserts_no_markup() -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in FILES.values()}
    assert {"index.html", "page.css", "page.js"} <= text.keys()
    for name, content in text.items():
        found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", content)) - {
            "http://www.w3.org",
            "//www.w3.org",
        }
        assert not found, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage", content)
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text["index.html"])
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 100_000
    for script in re.findall(r"from \"\./([a-z]+\.js)\"", "".join(text.values())):
        assert script in text


class TestBrowser:
    pytestmark = browser_only

    def test_from_a_file_to_a_playing_video(
        self, page: Any, site: Site, speech: Callable[..., Path], tmp_path: Path
    ) -> None:
        from playwright.sync_api import expect

        shoot(page, site, "key")
        enter(page, site)
        expect(page.get_by_text("Nothing here yet.")).to_be_visible()
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]
        shoot(page, site, "empty")
        site.gate.clear()
        found = submit(page, speech("talk.wav", 64_000), "A greeting <b>&", seed=4)
        bar = found.get_by_role("progressbar")
        expect(found.get_by_text("10 of 100 frames")).to_be_visible()
        assert bar.evaluate("bar => [bar.value, bar.max]") == [10, 100]
        state(found, "being made")
        shoot(page, site, "running")
        site.gate.set()
        state(found, "done")
        video = found.locator("video")
        expect(video).to_be_visible()
        video.evaluate("video => video.play()")
        told = playing(video)
        assert told["ready"] >= 2
        assert told["width"] > 0
        image = found.locator("img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == told["width"]
        expect(found.locator(".disclosure")).to_contain_text("generated by an algorithm")
        facts = dict(zip(found.locator("dt").all_inner_texts(), found.locator("dd").all_inner_texts(), strict=True))
        bundle = site.service.models.all[0].digest
        assert facts["Model"] == f"{bundle[:12]} (champion)"
        assert (facts["System"], facts["Data version"], facts["Seed"]) == ("loudmouth (tiny)", "d" * 12, "4")
        expect(page.locator("#news")).to_have_text("A greeting <b>&: done.")
        shoot(page, site, "done")
        for name in ("Download video", "Sidecar", "Portrait"):
            with page.expect_download() as waited:
                found.get_by_role("link", name=name).click()
            waited.value.save_as(tmp_path / waited.value.suggested_filename)
        (downloaded,) = tmp_path.glob("A-greeting-b*.mp4")
        assert inspect(downloaded).state == "fits"
