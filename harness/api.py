"""Door of Python, for notebooks and scripts: see harness.commands.functions and docs/python.md."""

from harness.commands.functions import load, report, run

__all__ = ["load", "report", "run"]
