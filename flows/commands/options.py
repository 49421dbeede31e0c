"""Options that commands share, and what makes a function a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from flows.places import VARIABLE
from flows.running import Run, running

Own = ParamSpec("Own")

Work = Annotated[Path, typer.Option("--work", envvar=VARIABLE, help="Folder of everything made.")]
WORK = Path("work")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done: counts, time, disk. Do nothing.")]
ParamsFile = Annotated[Path | None, typer.Option("--params", help="Parameters [default: params.yaml, if there].")]
Address = Annotated[str, typer.Option("--address", help="Ray: local, auto or HOST:PORT.")]
System = Annotated[str, typer.Argument(help="Which paper's system, as see_the_speaker.")]
Dataset = Annotated[Path | None, typer.Option(help="Dataset folder [default: WORK/dataset].")]
Chosen = Annotated[Path | None, typer.Option("--selection", help="Selection folder [default: WORK/selection].")]


def command(name: str, *, dry: bool = False) -> Callable[[Callable[Concatenate[Run, Own], None]], Callable[..., None]]:
    """Make a function of a run and its own options the command ``name``: ``--work``, ``--json`` and ``-q`` come last.

    ``dry``: it has ``--dry-run`` too, and asks ``run.dry``.
    """
    shared: dict[str, tuple[Any, Any]] = {"work": (Work, WORK), "json": (AsJson, False)}
    shared |= {"dry_run": (DryRun, False)} if dry else {}
    shared |= {"quiet": (Quiet, False)}

    def decorate(function: Callable[Concatenate[Run, Own], None]) -> Callable[..., None]:
        def told(**given: Any) -> None:
            how = {option: given.pop(option, default) for option, (_, default) in shared.items()}
            with running(name, **how) as run:
                function(run, **given)  # type: ignore[call-arg]

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        options = [parameter.replace(kind=keyword) for parameter in own]
        options += [
            inspect.Parameter(option, keyword, default=default, annotation=kind)
            for option, (kind, default) in shared.items()
        ]
        told.__name__, told.__doc__, told.__module__ = function.__name__, function.__doc__, function.__module__
        told.__annotations__ = {option.name: option.annotation for option in options}
        told.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        return told

    return decorate
