"""Writes docs/papers.md: every `# eq. (n), §…` comment of the systems, by paper and equation. Run by `make papers`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EQUATION = re.compile(r"\beqs?\. (\(\d+\w*\)(?:(?:, |–| and )\(\d+\w*\))*)")
PAGE = ROOT / "docs" / "papers.md"
HEAD = """# Equations and the lines that hold them

Made from the comments in the code by `make papers`; a test checks that every anchor is right.
"""


class Anchor(NamedTuple):
    """A line of code that holds an equation."""

    system: str
    number: int
    equation: str
    file: str
    line: int
    says: str


def anchors() -> Iterator[Anchor]:
    """Comments beside code that name an equation and its section."""
    for path in sorted((ROOT / "systems").glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            found = EQUATION.search(token.string) if token.type == tokenize.COMMENT else None
            if found and "§" in token.string:
                number = int(re.findall(r"\d+", found[1])[0])
                says = token.string.lstrip("# ")
                yield Anchor(
                    path.parent.name, number, found[1], f"systems/{path.parent.name}/{path.name}", token.start[0], says
                )


def title(system: str) -> str:
    """The paper, as the folder's ``SYSTEM`` names it."""
    for node in ast.walk(ast.parse((ROOT / "systems" / system / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "System":
            for keyword in node.keywords:
                if keyword.arg == "paper" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return system


def page() -> str:
    """The text of docs/papers.md."""
    found = sorted(anchors(), key=lambda anchor: (anchor.system, anchor.number, anchor.file, anchor.line))
    parts = [HEAD]
    for system in sorted({anchor.system for anchor in found}):
        parts.append(f"\n## {system}\n\n{title(system)}\n\n| equation | line | says |\n|---|---|---|\n")
        for anchor in found:
            if anchor.system == system:
                where = f"[{anchor.file}:{anchor.line}](../{anchor.file}#L{anchor.line})"
                says = anchor.says.replace("|", "\\|")
                parts.append(f"| {anchor.equation} | {where} | {says} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
