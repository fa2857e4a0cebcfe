"""One table of runs: a row a run with its axes, seed, every metric, cost, time and key.

What `runs.csv` of a report holds and what Python is given are this very frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from harness.document.text import encodable
from harness.results.collect import Collection

PARTS_OF_A_STEP = ("forward", "backward")
"""Of the training's seconds, where a clock could see them."""
#: Column -> what the record of a finished run says in its section `training`.
_TIMES = {
    "training_seconds": "seconds",
    "evaluation_seconds": "evaluation_seconds",
    "samples_per_second": "samples_per_second",
}


def run_table(collection: Collection) -> pd.DataFrame:
    """A row a run, finished or not, in the order of the points and of their seeds.

    Columns: `label` and `seed`; each axis by its dotted name; each metric recorded, then each cost,
    by its name and in the unit of the records (fractions, counts, milliseconds); seconds; `state`,
    `reason` (why there is no number) and `key`.  What is missing is NaN.
    """
    records = collection.records
    rows = [collection.points[record.point] for record in records]
    names = collection.metrics
    values = np.array([[reading.value for reading in own] for own in collection.readings])
    columns: dict[str, object] = {
        "label": [encodable(row.label) for row in rows],
        "seed": [record.seed for record in records],
        **{axis: _axis([row.axes[axis] for row in rows]) for axis in collection.axes},
        **{name: values[:, number] for number, name in enumerate(names)},
        **{
            name: _seconds(record.training.get(field) for record in records)
            for name, field in _TIMES.items()
        },
        **{
            f"{part}_seconds": _seconds(
                (record.training.get("parts") or {}).get(part) for record in records
            )
            for part in PARTS_OF_A_STEP
        },
        "state": [record.status.state.value for record in records],
        "reason": [encodable(record.reason) for record in records],
        "key": [record.key for record in records],
    }
    return pd.DataFrame(columns)


def _axis(values: list[object]) -> pd.Series[Any]:
    """The values as they are; None would become NaN among numbers."""
    found = pd.Series(list(map(encodable, values)), dtype="object")
    return found if None in values else found.infer_objects()


def _seconds(values: Iterable[float | None]) -> pd.Series[float]:
    return pd.Series(list(values), dtype="float64")
