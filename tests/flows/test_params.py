"""params.yaml: the one in the repository is right, and a wrong one says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Misuse
from contracts.index import SCHEMA
from contracts.query import parse
from flows.choice import COPY_OF
from flows.params import Params, read_params

ROOT = Path(__file__).resolve().parents[2]


def test_the_repository_s_own() -> None:
    params = read_params(ROOT / "params.yaml")
    assert params.train["see_the_speaker"].preset == "tiny"
    for rule in params.selection.rules.values():
        parse(rule, [*SCHEMA.names, COPY_OF])


def test_its_ingest_section_fits_preprocessing() -> None:
    from preprocessing.run import IngestSettings

    IngestSettings.read(read_params(ROOT / "params.yaml").ingest, "params.yaml: ingest")


def test_without_a_file_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_params() == Params()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("selection: {rulez: {}}", r"selection\.rulez"),
        ("selection: {rules: {BORING: 'static < 1'}}", "BORING"),
        ("train: {see_the_speaker: {preset: huge}}", r"train\.see_the_speaker\.preset"),
        ("demo: {speakers: 1}", r"demo\.speakers"),
        ("- a", "expected sections"),
        ("a: [", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(Misuse, match=told):
        read_params(tmp_path / "p.yaml")


def test_a_missing_file_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        read_params(tmp_path / "p.yaml")
