"""The dataset's page stands alone, says what the ledger says, and is drawn by a browser without a fault."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from contracts.sample import pack_frames
from contracts.selection import REFUSED_SCHEMA, Chosen, Selection, write_selection
from contracts.shards import dataset_digest, write_shard
from preprocessing.report import thresholds, write_dataset_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def jpeg(colour: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of three kept clips, one rejected and one failed row; and a selection that leaves one clip out."""
    dataset, folder = tmp_path / "dataset", tmp_path / "selection"
    samples, lines = [], []
    for row, (key, colour) in enumerate([("a", (200, 0, 0)), ("b", (0, 200, 0)), ("c", (0, 0, 200))]):
        facts = {"key": key, "row": row, "state": "kept", "kind": "clip", "frames": 25, "file": f"{key}.mp4"}
        people = {"speaker": "Zoë <b>", "gender": "f", "licence": "MIT"}
        lines.append({"level": "row"} | facts)
        scores = {"static": 0.1 * row, "loudness_dbfs": -20.0 - row}
        if key == "a":
            scores |= {"sync_offset": 2.0, "sync_geometry": 0.5}
        lines.append({"level": "span", "span": 0} | facts | {"key": f"{key}-s00"} | people | scores)
        samples.append((f"{key}-s00", {"json": b"{}", "frames": pack_frames([jpeg(colour)] * 3, 64)}))
    refused = {"state": "rejected", "reason": "NO_FACE", "detail": "no detector sees a face", "file": "d & co.mp4"}
    lines.append({"level": "row", "key": "d", "row": 3} | refused)
    lines.append({"level": "span", "key": "d-s00", "row": 3, "span": 0} | refused)
    lines.append({"level": "row", "key": "e", "row": 4, "state": "failed", "reason": "INTERNAL", "detail": "<oops>"})
    write_shard(dataset, 0, samples, lines, steps="s", rows="r")
    chosen = tuple(
        Chosen(key=key, shard=0, kind="clip", frames=25, speaker="Zoë <b>", gender="f", split="train")
        for key in ("a-s00", "b-s00")
    )
    rules = {"STATIC_FRAMES": "static < 0.15"}
    why = REFUSED_SCHEMA.empty_table().from_pylist(
        [{"key": "c-s00", "reason": "STATIC_FRAMES", "detail": "not: static < 0.15"}], schema=REFUSED_SCHEMA
    )
    selection = Selection(dataset=dataset_digest(dataset), samples=chosen, refused={"STATIC_FRAMES": 1}, rules=rules)
    write_selection(folder, selection, why)
    return dataset, folder


def test_says_what_the_ledger_says(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, folder = made
    page = tmp_path / "page.html"
    write_dataset_report(dataset, page, folder)
    text = page.read_text()
    assert "3 samples, 0.1 minutes, 1 named speakers" in text
    assert "STATIC_FRAMES unless static &lt; 0.15" in text
    assert text.count("no detector sees a face") == 1  # the row, not its span again
    assert text.count("data:image/jpeg;base64,") == 3
    assert "<b>STATIC_FRAMES</b>" in text
    assert text.count("25 frames · sound +80 ms (0.50)") == 1
    assert 'class="rule"' in text


def test_what_comes_from_outside_is_escaped(made: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_dataset_report(made[0], page, made[1])
    text = page.read_text()
    assert "Zoë <b>" not in text
    assert "<oops>" not in text
    assert "d &amp; co.mp4" in text


def test_needs_nothing_from_elsewhere(made: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_dataset_report(made[0], page, None)
    text = page.read_text()
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text


def test_equal_datasets_give_equal_pages(made: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset_report(made[0], tmp_path / name, made[1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_empty_dataset_has_a_page(tmp_path: Path) -> None:
    write_dataset_report(tmp_path, tmp_path / "page.html", None)
    assert "Nothing was refused" in (tmp_path / "page.html").read_text()


def test_thresholds_are_read_from_rules() -> None:
    assert thresholds("static", ["static < 0.9", "silence > 1", "not_static < 3", "-60 < static"]) == [0.9]
    assert thresholds("loudness_dbfs", ["loudness_dbfs > -60.5"]) == [-60.5]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian package chromium)")
def test_a_browser_draws_it_without_a_fault(made: tuple[Path, Path], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page = tmp_path / "page.html"
    write_dataset_report(made[0], page, made[1])
    complaints: list[str] = []
    asked: list[str] = []
    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        widths = tab.eval_on_selector_all("figure img", "found => found.map(image => image.naturalWidth)")
        wider = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert widths == [128, 128, 128]
    assert not wider
