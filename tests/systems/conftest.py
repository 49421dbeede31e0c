"""Makes the inherited battery importable below this folder: ``from contract import TrainedContract``."""

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")
sys.path.insert(0, str(Path(__file__).parent))
