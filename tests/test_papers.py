"""Every anchor of docs/papers.md points to a line that names that equation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANCHOR = re.compile(r"^\| (\(.+?\)) \| \[(.+?):(\d+)\]", re.MULTILINE)


def test_every_anchor_is_right() -> None:
    found = ANCHOR.findall((ROOT / "docs" / "papers.md").read_text(encoding="utf-8"))
    assert len(found) > 10
    wrong = []
    for equation, file, line in found:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        number = int(line)
        if number > len(lines) or not re.search(rf"#.*eqs?\. {re.escape(equation)}", lines[number - 1]):
            wrong.append(f"{file}:{line} does not name eq. {equation}: run make papers")
    assert not wrong, "\n".join(wrong)


def test_links_of_the_documents_lead_somewhere() -> None:
    wrong = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert not wrong, "\n".join(wrong)
