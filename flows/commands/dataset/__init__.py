"""``voxface dataset``: look at a dataset, choose from it, split it, follow it through its versions."""

from flows.commands.dataset.prior import prior
from flows.commands.dataset.report import report, verify
from flows.commands.dataset.selection import funnel, gates, select, select_samples
from flows.commands.dataset.split import split
from flows.commands.dataset.versions import diff, forget, trace

COMMANDS = (verify, report, select, split, funnel, diff, trace, forget, prior)

__all__ = ["COMMANDS", "gates", "select_samples"]
