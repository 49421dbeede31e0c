"""The version of the code: git commit and a digest of the tracked sources that shape a result."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from contracts.files import sha256_file, sha256_tree

ROOT = Path(__file__).resolve().parent.parent
# What shapes weights. Preprocessing does so through the dataset's digest; an edit of the command line changes none.
ROOMS = ("contracts", "systems", "training")


@cache
def code_version(root: Path = ROOT) -> str:
    """``<commit, 12 hex>+<digest of tracked sources of ROOMS, 12 hex>``; ``none+…`` where there is no git checkout.

    Without a checkout every ``.py`` file of the rooms counts; an edit shows before it is committed.
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
