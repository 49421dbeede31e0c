"""``voxface``: assembles the commands and turns every ending into an exit code and one line."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flows import environment
from flows.places import default_work

if TYPE_CHECKING:
    import typer


def main() -> None:
    """The console script ``voxface``; never returns."""
    environment.prepare(_work_of(sys.argv[1:]))
    code = int(_run())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # nothing is left to tell of: end at once
    sys.exit(code)


def application() -> typer.Typer:
    """All commands. Their modules import nothing heavy: ``voxface --help`` must be quick."""
    import typer

    from flows.commands import (
        ablate,
        corpus,
        dataset,
        doctor,
        evaluate,
        gc,
        generate,
        ingest,
        inspect,
        keys,
        publish,
        retrain,
        rollback,
        runs,
        serve,
        train,
    )

    # -h as well: --help alone is a word too long for a thing so often asked for
    names = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        help="Talking faces: recordings into training data, training data into models, speech into video.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # rich's own would swallow "[default: ...]"
        context_settings=names,
    )
    app.command("demo-corpus")(corpus.demo_corpus)
    app.command("ingest")(ingest.ingest)
    data = typer.Typer(help="Look at a dataset, choose from it, split it, follow its versions.", no_args_is_help=True)
    for command in dataset.COMMANDS:
        data.command(context_settings=names)(command)
    app.add_typer(data, name="dataset")
    app.command("train")(train.train)
    app.command("evaluate")(evaluate.evaluate)
    app.command("publish")(publish.publish)
    app.command("generate")(generate.generate)
    app.command("serve")(serve.serve)
    app.command("inspect")(inspect.inspect)
    access = typer.Typer(help="Who may use the service over HTTP.", no_args_is_help=True)
    access.command("create", context_settings=names)(keys.create)
    access.command("list", context_settings=names)(keys.show)
    access.command("revoke", context_settings=names)(keys.revoke)
    app.add_typer(access, name="keys")
    app.command("prove")(evaluate.prove)
    app.command("ablate")(ablate.ablate)
    app.command("retrain")(retrain.retrain)
    app.command("rollback")(rollback.rollback)
    app.command("gc")(gc.gc)
    app.command("runs")(runs.runs)
    app.command("doctor")(doctor.doctor)
    return app


def _run() -> int:
    from typer.exceptions import TyperException

    from contracts.errors import Exit, VoxfaceError
    from flows.console import note_error
    from flows.running import Ended, Terminated, command_line, exit_code

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = application()(standalone_mode=False, prog_name="voxface")
        if code == Exit.INTERRUPTED:  # what typer makes of KeyboardInterrupt
            note_error(f"interrupted; what is done stays done. To go on: {command_line()}")
        return code if isinstance(code, int) else Exit.DONE
    except TyperException as error:
        if error.format_message():  # a group named without a command has printed its help already
            note_error(f"voxface: {error.format_message()} (voxface --help, or voxface COMMAND --help)")
        return Exit.MISUSE
    except Terminated:
        note_error(f"terminated; what is done stays done. To go on: {command_line()}")
        return Exit.TERMINATED
    except Ended as ended:
        note_error(f"voxface: {ended}")
        return ended.code
    except VoxfaceError as error:
        note_error(f"voxface: {error}")
        return exit_code(error)
    except Exception as error:  # our bug: the traceback is in the log
        note_error(f"voxface: internal error: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        note_error(f"  the newest log under {_work_of(sys.argv[1:]) / 'runs'} has the traceback")
        return Exit.FAILED


def _work_of(arguments: list[str]) -> Path:
    """The work folder, needed before the command line can be parsed: Prefect reads its home when imported."""
    for place, argument in enumerate(arguments):
        if argument == "--work" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if argument.startswith("--work="):
            return Path(argument.removeprefix("--work="))
    return default_work()


if __name__ == "__main__":
    main()
