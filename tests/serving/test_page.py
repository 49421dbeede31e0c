"""What the page's files promise: nothing from outside, no markup from data, a policy that lets nothing else in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.api import create_api
from serving.guard import SECURITY
from serving.loader import load_pipeline
from serving.page import FILES, FOLDER
from serving.rows import Model, Models
from serving.service import Service

pytestmark = pytest.mark.timeout(300)


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
        assert {path for path in client.app.openapi()["paths"] if not path.startswith("/v1/")} == {"/metrics"}
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
