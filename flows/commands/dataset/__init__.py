"""``voxface dataset``: look at a dataset, choose from it, split it, follow it through its versions."""

from flows.commands.dataset.report import report, verify
from flows.commands.dataset.selection import funnel, gates, select, select_samples
from flows.commands.dataset.split import split

COMMANDS = (verify, report, select, split, funnel)

__all__ = ["COMMANDS", "funnel", "gates", "report", "select", "select_samples", "split", "verify"]
