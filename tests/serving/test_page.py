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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from serving.api import create_api
from serving.client import Client
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

pytestmark = pytest.mark.timeout(300)
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

    def test_a_failed_and_a_rejected_one_say_why(
        self, page: Any, site: Site, speech: Callable[..., Path], tmp_path: Path
    ) -> None:
        from playwright.sync_api import expect

        enter(page, site)
        failed = submit(page, speech("loud.wav", 32_000, peak=1.0), "Too loud")
        state(failed, "failed")
        fault = failed.locator(".item .fault")
        expect(fault).to_contain_text("This could not be made, through no fault of the recording.")
        expect(fault).to_contain_text("a fault of the program")
        assert "the toy cannot bear" not in fault.inner_text(), "what went wrong within is for the ledger alone"
        (tmp_path / "text.wav").write_text("this is no sound")
        rejected = submit(page, tmp_path / "text.wav", "No sound")
        state(rejected, "rejected")
        expect(rejected.locator(".item .fault")).to_contain_text("This is no file that the service can read.")
        assert str(tmp_path) not in rejected.inner_text()
        shoot(page, site, "failed")

    def test_cancel_and_delete_with_the_keyboard(self, page: Any, site: Site, speech: Callable[..., Path]) -> None:
        from playwright.sync_api import expect

        enter(page, site)
        site.gate.clear()
        found = submit(page, speech("long.wav", 48_000), "Not needed", seed=11)
        state(found, "being made")
        found.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        state(found, "cancelled")
        expect(found.locator(".item .fault")).to_contain_text("Cancelled.")
        expect(found.locator("summary")).to_be_focused()
        expect(found.get_by_role("button", name="Cancel")).to_be_hidden()
        shoot(page, site, "cancelled")
        site.gate.set()
        before = len(site.jobs())
        found.get_by_role("button", name="Delete").press("Enter")
        sure = page.get_by_role("dialog", name="Delete this job?")
        expect(sure).to_contain_text("Not needed: its videos")
        shoot(page, site, "delete", whole=False)
        page.keyboard.press("Escape")
        expect(sure).to_be_hidden()
        assert len(site.jobs()) == before
        found.get_by_role("button", name="Delete").press("Enter")
        sure.get_by_role("button", name="Delete").press("Enter")
        expect(found).to_have_count(0)
        assert len(site.jobs()) == before - 1
        assert page.evaluate("document.activeElement !== document.body")  # the keyboard is not thrown out

    def test_two_versions_play_in_step(self, page: Any, site: Site, speech: Callable[..., Path]) -> None:
        from playwright.sync_api import expect

        enter(page, site)
        page.get_by_label("Make a second version, to compare").check()
        page.get_by_label("Second seed", exact=True).fill("7")
        page.get_by_label("Recording", exact=True).set_input_files(speech("both.wav", 64_000))
        page.get_by_label("Name").fill("Two of it")
        page.get_by_label("Seed", exact=True).fill("7")
        page.get_by_role("button", name="Make the video").click()
        expect(page.locator("#form-fault")).to_contain_text("Both versions would be the same")
        page.get_by_label("Second system and model").select_option(label="loudmouth · candidate (tiny)")
        page.get_by_role("button", name="Make the video").click()
        found = row(page, "Two of it")
        state(found, "done")
        found.get_by_role("button", name="Compare the two").click()
        view = page.get_by_role("region", name="Side by side")
        expect(view.get_by_role("heading")).to_be_focused()
        models = [each.digest[:12] for each in site.service.models.all]
        captions = view.locator("figcaption").all_inner_texts()
        assert [models[0] in captions[0], models[1] in captions[1]] == [True, True]
        assert all("Seed 7" in caption and f"Data {'d' * 12}" in caption for caption in captions)
        view.get_by_role("button", name="Play both").click()
        for side in ("left", "right"):
            assert playing(page.locator(f"#{side}"))["ready"] >= 2
        apart = page.evaluate("Math.abs(left.currentTime - right.currentTime)")
        assert apart < 0.15
        assert page.evaluate("[left.muted, right.muted]") == [False, True]
        page.evaluate("right.currentTime = 0")  # one that fell behind catches up
        until(page, "Math.abs(left.currentTime - right.currentTime) < 0.1 && right.currentTime > 0.3")
        view.get_by_role("button", name="Pause both").click()
        assert page.evaluate("[left.paused, right.paused]") == [True, True]
        view.get_by_label("Place in both videos").fill("2")
        until(page, "Math.abs(left.currentTime - 2) < 0.05 && Math.abs(right.currentTime - 2) < 0.05")
        shoot(page, site, "compare")
        view.get_by_role("button", name="Close").click()
        expect(view).to_be_hidden()
        pressed = found.get_by_role("button", name="Compare", exact=True)
        expect(pressed.first).to_be_focused()
        assert [each.get_attribute("aria-pressed") for each in pressed.all()] == ["false", "false"]

    def test_the_microphone_and_a_portrait_with_consent(
        self, page: Any, site: Site, speech: Callable[..., Path], tmp_path: Path
    ) -> None:
        from PIL import Image
        from playwright.sync_api import expect
        from skimage.data import astronaut  # in the public domain

        enter(page, site)
        face = tmp_path / "face.jpg"
        Image.fromarray(astronaut()).save(face)
        page.get_by_role("button", name="Record with the microphone").click()
        expect(page.get_by_role("timer")).to_have_text("1 s")
        page.get_by_role("button", name="Stop recording").click()
        sound = page.get_by_label("Your recording")
        expect(sound).to_be_visible()
        until(page, "document.getElementById('recorded-sound').duration > 0.8")
        page.get_by_label("Portrait, or a video to dub").set_input_files(face)
        fault = page.locator("#form-fault")
        for field_, value, told in (
            ("Who is shown", "Eileen Collins (picture by NASA)", "Say who is shown"),
            ("What they agreed to", "a test, of this page", "Say what they agreed to"),
        ):
            page.get_by_role("button", name="Make the video").click()
            expect(fault).to_contain_text(told)
            expect(page.get_by_label(field_)).to_be_focused()
            page.get_by_label(field_).fill(value)
        page.get_by_role("button", name="Make the video").click()
        expect(fault).to_contain_text("needs the consent")
        assert not [job for job in site.jobs() if job.label == "Recording"]
        shoot(page, site, "consent")
        page.get_by_label("agreed to be animated").check()
        page.get_by_role("button", name="Make the video").click()
        found = row(page, "Recording")
        state(found, "done")
        expect(
            found.locator("dd").filter(has_text="Eileen Collins (picture by NASA): a test, of this page")
        ).to_be_visible()
        expect(found.locator("figcaption").first).to_have_text("Portrait")
        found.locator("video").evaluate("video => video.play()")
        assert playing(found.locator("video"))["ready"] >= 2
        shoot(page, site, "portrait")
        face.write_bytes(b"no picture")
        page.get_by_label("Portrait, or a video to dub").set_input_files(face)
        page.get_by_label("Name").fill("No picture")
        page.get_by_role("button", name="Make the video").click()
        found = row(page, "No picture")
        state(found, "rejected")
        expect(found.locator(".item .fault")).to_contain_text(re.compile(r"(picture|file|face).*\."))

    def test_seeds_of_two_jobs_and_a_system_that_makes_no_portrait(
        self, page: Any, site: Site, speech: Callable[..., Path]
    ) -> None:
        from playwright.sync_api import expect

        def without(route: Any) -> None:
            answer = route.fetch()
            route.fulfill(response=answer, json=answer.json() | {"portrait": None})

        enter(page, site)
        page.route("**/sidecar", without)
        for seed in (21, 22):
            found = submit(page, speech("seeds.wav", 32_000), f"Seed {seed}", seed=seed)
            state(found, "done")
            expect(found.locator("figcaption").first).to_have_text("First frame")
            expect(found.locator("img")).to_have_attribute("src", re.compile("^blob:"))
            assert found.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            found.get_by_role("button", name="Compare", exact=True).click()
        view = page.get_by_role("region", name="Side by side")
        captions = view.locator("figcaption").all_inner_texts()
        assert ["Seed 21" in captions[0], "Seed 22" in captions[1]] == [True, True]
        found.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(found).to_have_count(0)
        expect(view).to_be_hidden()  # one of the two is gone

    def test_a_large_job_shows_some_and_fetches_what_is_asked_for(
        self, page: Any, site: Site, speech: Callable[..., Path]
    ) -> None:
        from playwright.sync_api import expect

        rows = [{"audio": "a", "seed": number % 2} for number in range(21)]  # equal ones are made once
        rows.append({"audio": "b", "id": "too-loud"})
        files = {"a": speech("small.wav", 9_600), "b": speech("small-loud.wav", 9_600, peak=1.0)}
        with Client(site.url, site.key) as client:
            job = client.submit_items(rows, files, label="Many").job
            client.wait(job, timeout_s=30)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
        enter(page, site)
        found = row(page, "Many")
        state(found, "21 of 22 done")
        found.locator("summary").click()
        expect(found.locator(".item")).to_have_count(20)
        found.get_by_role("button", name="Show more").click()
        expect(found.locator(".item")).to_have_count(22)
        expect(found.get_by_role("button", name="Show more")).to_be_hidden()
        expect(found.locator(".item .fault:visible")).to_have_count(1)
        assert "video" not in asked  # twenty videos are not fetched because somebody opens a row
        found.get_by_role("button", name="Show the video: Video 5", exact=True).click()
        expect(found.locator("video:visible")).to_have_count(1)
        expect(found.locator(".item").nth(4).get_by_role("heading")).to_have_text("Video 5")
        assert asked.count("video") == 1
        shoot(page, site, "many")

    def test_refusals_are_sentences(self, page: Any, site: Site, speech: Callable[..., Path], tmp_path: Path) -> None:
        from playwright.sync_api import expect

        trouble, fault = page.locator("#trouble"), page.locator("#form-fault")
        page.get_by_label("API key").fill("not a key")
        page.get_by_role("button", name="Use this key").press("Enter")
        expect(trouble).to_contain_text("does not look like a key")
        page.get_by_label("API key").fill("vf_0123456789abcdef_" + "x" * 43)
        page.keyboard.press("Enter")
        expect(trouble).to_have_text("This key is not known here, or was revoked.")
        assert page.evaluate("sessionStorage.length") == 0
        info, key = site.service.keys.create("reader", ["read"])
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        sound = speech("refused.wav", 16_000)
        page.get_by_label("Recording", exact=True).set_input_files(sound)
        make = page.get_by_role("button", name="Make the video")
        make.click()
        expect(fault).to_contain_text("This key may not do that: this key may not submit")
        site.service.keys.revoke(info.id)
        make.click()  # a key that was good until now
        expect(trouble).to_contain_text("was revoked")
        expect(page.get_by_label("API key")).to_be_focused()
        poor = site.service.keys.create("poor", ["submit", "read"], daily=1)[1]
        page.get_by_label("API key").fill(poor)
        page.keyboard.press("Enter")
        make.click()
        row(page, "refused")
        page.get_by_label("Seed", exact=True).fill("1")
        make.click()
        expect(fault).to_contain_text("This key has had its share for today")
        expect(fault).to_contain_text("Try again in 60 minutes.")
        (tmp_path / "big.png").write_bytes(b"\x89PNG" + bytes(200_000))
        page.get_by_label("Portrait, or a video to dub").set_input_files(tmp_path / "big.png")
        page.get_by_label("Who is shown").fill("Ada")
        page.get_by_label("What they agreed to").fill("a test")
        page.get_by_label("agreed to be animated").check()
        make.click()
        expect(fault).to_contain_text("That is too large for this service: portrait has more than 100000 bytes.")
        shoot(page, site, "refused")
        (tmp_path / "long.wav").write_bytes(bytes(5_000_000))  # refused before it is read: the connection may break
        page.get_by_label("Recording", exact=True).set_input_files(tmp_path / "long.wav")
        make.click()
        expect(fault).to_contain_text(re.compile("the request has more than 4000000 bytes|files may be too large"))
        print(fault.inner_text())
        page.route("**/v1/**", lambda route: route.abort())
        make.click()
        expect(fault).to_contain_text("The service cannot be reached")

    def test_it_is_usable_with_the_keyboard(self, page: Any, site: Site) -> None:
        enter(page, site)
        until(page, "document.activeElement.id === 'new-title'")  # where a key takes the keyboard
        order = []
        for _ in range(14):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
            assert page.evaluate(
                "document.activeElement === document.body || "
                "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            ), order
        expected = ["audio", "record", "face", "model", "seed", "Random", "twice", "label", "submit"]
        places = [order.index(each) for each in expected]
        assert places == sorted(places), order
        unnamed = page.evaluate(
            """[...document.querySelectorAll('input, select, button, video, audio')].filter(each =>
                !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).map(each => each.outerHTML)"""
        )
        assert unnamed == []
