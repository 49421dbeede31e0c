"""The version of the code: git commit and a digest of the tracked sources, so that an edit shows at once."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from contracts.files import sha256_file, sha256_tree

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("contracts", "preprocessing", "systems", "training", "serving", "flows")


@cache
def code_version(root: Path = ROOT) -> str:
    """``<commit, 12 hex>+<digest of tracked sources, 12 hex>``; ``none+…`` where there is no git checkout.

    Without a checkout every ``.py`` file of the rooms counts.
    """
    from dulwich.errors import NotGitRepository
    from dulwich.repo import Repo

    try:
        with Repo(str(root)) as repository:
            commit = repository.head().decode()[:12]
            names = [name.decode() for name in repository.open_index()]
    except (NotGitRepository, KeyError):  # KeyError: a repository without a commit
        commit, names = (
            "none",
            [path.relative_to(root).as_posix() for room in ROOMS for path in root.glob(f"{room}/**/*.py")],
        )
    sources = [name for name in names if name.endswith(".py") and name.split("/")[0] in ROOMS]
    files = {name: sha256_file(root / name) for name in sources if (root / name).is_file()}
    return f"{commit}+{sha256_tree(files)[:12]}"


def text_digest(text: str) -> str:
    """The first 12 hex digits of the text's SHA-256, for names."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
