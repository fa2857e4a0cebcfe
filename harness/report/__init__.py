"""From records to pages: statistics, tables, figures and the text around them.

Reads run directories and writes one report folder; never starts, changes or scores a run.
Importing this package is cheap: pandas, seaborn and scipy are imported when a report is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.document.layout import NARROWEST

if TYPE_CHECKING:
    from harness.config.sweep import Run, Sweep
    from harness.report.result import ReportResult
    from harness.store.record import Store


def build(
    sweep: Sweep, runs: Sequence[Run], store: Store, out: Path, layout: str = NARROWEST
) -> ReportResult:
    """Write the report of `sweep` to the folder `out`, from what is on disk now.

    Args:
        runs: the whole expansion of the sweep, finished or not.
        out: replaced file by file, each atomically; files of an earlier report that are not part
            of this one are removed.  The same records give the same bytes.
        layout: the paper that tables and figures fit, a name of `harness.document.layout`.

    Raises:
        HarnessError: another process has been writing this report for a minute.
    """
    from harness.report.folder import write_report

    return write_report(sweep, runs, store, out, layout)
