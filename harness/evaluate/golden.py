"""Published figures of public models, each with its source, to set what is found here beside.

The table `golden.csv` is a row a model: its name, open_clip's architecture, where the figures are
printed, then a column a metric; a figure stands as it was printed or as its file has it, to four
digits.  A new model is a new row.  Torch-free.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, unknown
from harness.evaluate.suites import BENCHMARKS
from harness.files import read_regular
from harness.metrics import benchmark_metrics

FIGURES = Path(__file__).with_name("golden.csv")
_HEADS = ["name", "architecture", "source"]
_MOST_BYTES = 1 << 20
SLACK = 0.002
"""Beyond the last printed digit: what decoders, precisions and orders of summation move."""


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure.

    Attributes:
        value: as a fraction.
        digits: how many decimals of it are printed.
    """

    metric: str
    value: float
    digits: int

    @property
    def slack(self) -> float:
        """The largest difference that is told as none."""
        return 0.5 * 10.0**-self.digits + SLACK


@dataclass(frozen=True)
class GoldenModel:
    """A public model, and what is published of it."""

    name: str
    architecture: str
    source: str
    figures: tuple[PublishedFigure, ...]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The data sets of its figures, each once."""
        return tuple(dict.fromkeys(figure.metric.partition("/")[0] for figure in self.figures))


def golden(name: str, file: Path | None = None) -> GoldenModel:
    """The model called `name`; ConfigError naming the nearest, or what is wrong with the table."""
    models = read_golden(FIGURES if file is None else file)
    if name not in models:
        raise ConfigError(unknown("golden model", name, models, show=30))
    return models[name]


def read_golden(file: Path) -> dict[str, GoldenModel]:
    """Every model of a table by its name.

    Raises ConfigError for a row that is not as long as the head, a column that is no metric of a
    benchmark here, a figure that is none, and a model without a source, a figure or a name of its
    own.
    """
    try:
        rows = list(csv.reader(read_regular(file, _MOST_BYTES).decode("utf-8").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    heads = rows[0] if rows else []
    if heads[:3] != _HEADS or len(heads) < 4:
        raise ConfigError(f"{file}: its head begins with {','.join(_HEADS)}, then metrics")
    for name in heads[3:]:
        _check_metric(file, name)
    models: dict[str, GoldenModel] = {}
    for number, row in enumerate(rows[1:], 2):
        where = f"{file}, line {number}"
        if len(row) != len(heads):
            raise ConfigError(f"{where} has {len(row)} cells, its head {len(heads)}")
        figures = tuple(_figures(where, heads[3:], row[3:]))
        if not all(row[:3]) or not figures or row[0] in models:
            raise ConfigError(f"{where}: a name of its own, a source and a figure are wanted")
        models[row[0]] = GoldenModel(row[0], row[1], row[2], figures)
    return models


def _check_metric(file: Path, name: str) -> None:
    benchmark = BENCHMARKS.get(name.partition("/")[0])
    if benchmark is None:
        raise ConfigError(f"{file}: {unknown('data set', name.partition('/')[0], BENCHMARKS)}")
    known = benchmark_metrics(benchmark)
    if name not in known:
        raise ConfigError(f"{file}: {unknown('metric', name, known)}")


def _figures(where: str, names: Sequence[str], cells: Sequence[str]) -> Iterator[PublishedFigure]:
    for name, cell in zip(names, cells, strict=True):
        if cell:
            whole, _, decimals = cell.partition(".")
            digits = decimals.isdecimal() and decimals.isascii()
            if whole not in {"0", "1"} or not digits or float(cell) > 1:
                raise ConfigError(f"{where}: {name} = {cell!r} is no fraction like 0.678")
            yield PublishedFigure(name, float(cell), len(decimals))


def gaps(model: GoldenModel, found: Mapping[str, Mapping[str, object]]) -> dict[str, float | None]:
    """Metric -> found minus published, as a fraction; None where nothing was found."""
    values = {figure.metric: found.get(figure.metric, {}).get("value") for figure in model.figures}
    return {
        figure.metric: None
        if not isinstance(value := values[figure.metric], float)
        else value - figure.value
        for figure in model.figures
    }
