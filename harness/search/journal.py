"""The optimiser's own file: Optuna's format, from one writer that does not wait for the disk.

What a machine takes with it when it goes down, the ledger and the runs have; see `study`.  Imports
the optimiser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from harness.files import append


class Journal(JournalFileBackend):
    """Appends without a wait for the disk, nine times a trial; a reader sees nothing of it.

    Nor is there a lock: the search's lease is, and a line is one write at the end of the file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Put these entries at the end of the file, a line each."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        append(self._file, lines.encode())
