"""``make faults-train``: the fault matrix of training and of its flows, a line per row as it is measured.

Example: .venv/bin/python tests/faults_train/campaign.py --only F17,F20 --quick
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

if __name__ == "__main__":
    from faults.campaign import main

    sys.exit(main("faults-train", "faults_train.rows", __doc__))
