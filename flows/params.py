"""params.yaml: what an experimenter changes, a section per DVC stage; a typo is an error with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contracts.errors import Misuse
from contracts.reasons import Reason
from contracts.settings import Settings
from flows.promotion import PromotionParams

FILE = Path("params.yaml")


class DemoParams(Settings):
    """``demo``: the demo corpus."""

    seed: int = 0
    speakers: int = Field(default=12, ge=2)


class SelectionParams(Settings):
    """``selection``: which samples are used. A rule is what must hold; null (no such score) breaks none."""

    where: str = ""  # samples for which it does not hold are NOT_SELECTED
    rules: dict[Reason, str] = Field(default_factory=dict)
    split: str = ""  # file of a frozen split (voxface dataset split): then val_share and seed say nothing
    val_share: float = Field(default=0.2, gt=0, lt=1)  # of the speakers
    seed: int = 0


class TrainParams(Settings):
    """``train.<system>``: preset, workers, processes that read ahead, and single settings of stages changed."""

    preset: Literal["paper", "small", "tiny"] = "tiny"
    workers: int = Field(default=1, ge=1)
    loaders: int = Field(default=0, ge=0)  # processes per worker that decode ahead; 0: the worker itself decodes
    seed: int = 0
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)  # stage -> setting -> value


class GenerateParams(Settings):
    """``generate``: the talking face that ``make run`` ends with."""

    seed: int = 0


class Params(Settings):
    """The whole file; every section may be left out."""

    demo: DemoParams = DemoParams()
    ingest: dict[str, Any] = Field(default_factory=dict)  # IngestSettings, read by preprocessing
    selection: SelectionParams = SelectionParams()
    train: dict[str, TrainParams] = Field(default_factory=dict)
    publish: dict[str, str] = Field(default_factory=lambda: {"alias": "champion"})
    promotion: PromotionParams = PromotionParams()
    generate: GenerateParams = GenerateParams()


def read_params(path: Path | None = None) -> Params:
    """The parameters at ``path`` (default: ``params.yaml`` here; defaults where there is no such file).

    Raises ``Misuse`` for a file that is named but absent, is not YAML, or has a wrong key.
    """
    import yaml

    if path is None and not FILE.is_file():
        return Params()
    path = path or FILE
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misuse(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if values is not None and not isinstance(values, dict):
        raise Misuse(f"{path}: expected sections such as 'selection:'")
    return Params.read(values, str(path))
