"""dvc.yaml, the make targets and the command line fit each other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from flows.__main__ import application

ROOT = Path(__file__).resolve().parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def stage(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def filled(text: str) -> str:
    return text.replace("${item}", "see_the_speaker").replace("${generate.seed}", "0")


@pytest.mark.parametrize("name", STAGES)
def test_its_command_can_be_parsed(name: str) -> None:
    program, *words = shlex.split(filled(stage(name)["cmd"]))
    assert program == "voxface"
    command = typer.main.get_command(application())
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(name, words)  # raises where an option or a value is wrong


@pytest.mark.parametrize("name", STAGES)
def test_it_depends_on_what_there_is_and_keeps_what_it_made(name: str) -> None:
    made = {filled(next(iter(out))) for each in STAGES for out in stage(each)["outs"]}
    for dep in map(filled, stage(name)["deps"]):
        assert dep in made or (ROOT / dep).exists(), f"{name} depends on {dep}"
    for out in stage(name)["outs"]:
        assert next(iter(out.values())) == {"persist": True}
    for param in map(filled, stage(name).get("params", [])):
        found = PARAMS
        for part in param.split("."):
            found = found[part]


def test_every_system_is_trained_by_dvc() -> None:
    from systems import catalogue

    assert set(STAGES["train"]["foreach"]) == {name for name in catalogue.names() if (ROOT / "systems" / name).is_dir()}


def test_make_run_trains_the_main_system_alone() -> None:
    """Every further system would make it longer; its targets need one ``train`` stage, and all else."""
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"dvc repro (.+)$", text, re.MULTILINE)
    assert targets is not None
    maker = {next(iter(out)): name for name in STAGES for out in stage(name)["outs"]}
    maker["work/training/see_the_speaker"] = "train"
    needed, waiting = set(), targets[1].split()
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += [maker[dep] for dep in stage(name)["deps"] if dep in maker and maker[dep] not in needed]
    assert needed == set(STAGES)
    trained = {dep for name in STAGES for dep in stage(name)["deps"] if dep.startswith("work/training/")}
    assert trained == {"work/training/see_the_speaker"}


def test_the_readme_s_commands_exist() -> None:
    commands = typer.main.get_command(application()).commands
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for word in re.findall(r"`?voxface ([a-z-]+)", text):
        assert word in commands, f"voxface {word}"


def test_make_targets_exist() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("setup", "run", "test", "check"):
        assert re.search(rf"^{target}:", text, re.MULTILINE)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['voxface', 'ingest', '--help']\n"
    code += "from flows.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit as ending:\n    assert ending.code == 0, ending.code\n"
    code += "heavy = {'torch', 'ray', 'prefect', 'mlflow', 'dvc', 'mediapipe', 'dlib', 'pandas'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    assert "Example: voxface ingest" in found.stdout
    assert "[default: WORK/dataset]" in " ".join(found.stdout.replace("│", " ").split()), "defaults are told"


@pytest.mark.parametrize(
    "name",
    [
        "demo-corpus",
        "ingest",
        "train",
        "evaluate",
        "publish",
        "generate",
        "serve",
        "inspect",
        "retrain",
        "rollback",
        "gc",
    ],
)
def test_every_command_has_an_example(name: str) -> None:
    command = typer.main.get_command(application()).commands[name]
    assert f"Example: voxface {name}" in command.help
