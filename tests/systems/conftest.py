"""Makes the inherited battery importable: ``from contract import TrainedContract`` in any test below this folder."""

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")
sys.path.insert(0, str(Path(__file__).parent))
