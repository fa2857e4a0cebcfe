"""Published figures, each with its source: what a row must say, and how rows are found.

Files are `results/external/*.csv`.  A figure without a source is refused, and so is one that cannot
be an accuracy.  Knows nothing of our own records.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from harness.document.escaping import csv_given, csv_text
from harness.document.text import one_line
from harness.errors import HarnessError, unknown
from harness.files import MAX_JSON_BYTES, read_regular

#: Metric of a figure whose source does not say which one it is.
UNSTATED = "unstated"
_PREFIXES = ("wds/", "vtab/", "retrieval/", "wilds/", "fairness/", "misc/")
DATASETS = {
    "flickr": "flickr30k",
    "flickr30k_karpathy": "flickr30k",
    "coco": "mscoco",
    "coco_captions": "mscoco",
    "mscoco_captions": "mscoco",
    "mscoco_2014_5k_test_image_text_retrieval": "mscoco",
    "imagenet": "imagenet1k",
    "imagenet-1k": "imagenet1k",
    "oxford_pets": "pets",
    "oxford_flowers": "flowers",
    "flowers102": "flowers",
    "stanford_cars": "cars",
}
_METRICS = {
    "image_to_text_recall": "text_retrieval_recall",
    "text_to_image_recall": "image_retrieval_recall",
}


class ExternalError(HarnessError):
    """A file of published figures that cannot be used as it is."""


def _nothing(value: object) -> object:
    """An empty cell of a CSV is no value."""
    return None if isinstance(value, str) and not value.strip() else value


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[_Positive | None, BeforeValidator(_nothing)]
_Count = Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_nothing)]
_Text = Annotated[str | None, BeforeValidator(_nothing)]


class PublishedResult(BaseModel):
    """One published number of one model on one data set."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    method: str = Field(min_length=1)
    """What the authors call it: CLIP, SLIP, TinyCLIP."""
    backbone: _Text = None
    pretrain: _Text = None
    """What it was trained on, in the source's words."""
    dataset: str = Field(min_length=1)
    """The name that clip-benchmark has for it, without a prefix; see `dataset_name`."""
    metric: str = Field(min_length=1)
    """As in our records (`acc1`, `text_retrieval_recall@1`), or `unstated`."""
    value: float = Field(ge=0, le=1, allow_inf_nan=False)
    """A fraction, never a percentage."""
    n: _Count = None
    """Examples or queries behind it, where the source says."""
    params_m: _Number = None
    """Millions of parameters of both towers, embeddings counted."""
    gmacs: _Number = None
    """Multiply-accumulates of one pair, in 10^9; half of what some sources call FLOPs."""
    protocol: _Text = None
    """What the source says of split, prompts and metric."""
    source: str = Field(min_length=3)
    """Where it is printed: an address or a citation."""

    @field_validator("dataset")
    @classmethod
    def _known_name(cls, value: str) -> str:
        return dataset_name(value)

    @field_validator("metric")
    @classmethod
    def _our_name(cls, value: str) -> str:
        return metric_name(value)

    @property
    def model(self) -> str:
        """Method, backbone and training data in one line, one that tells two models apart."""
        return ", ".join(part for part in (self.method, self.backbone, self.pretrain) if part)

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What may have one value only."""
        return self.model, self.dataset, self.metric, self.source


FIELDS = tuple(PublishedResult.model_fields)


@dataclass(frozen=True)
class SourceFile:
    """One file of `results/external/`."""

    name: str
    sha256: str
    figures: tuple[PublishedResult, ...]


@dataclass(frozen=True)
class Published:
    """All published figures at hand, and the files they were read from."""

    figures: tuple[PublishedResult, ...] = ()
    files: tuple[SourceFile, ...] = ()

    def on(self, dataset: str) -> list[PublishedResult]:
        """The figures on one data set."""
        name = dataset_name(dataset)
        return [figure for figure in self.figures if figure.dataset == name]

    @property
    def datasets(self) -> list[str]:
        """Every data set there is a figure on."""
        return sorted({figure.dataset for figure in self.figures})

    @property
    def sources(self) -> list[str]:
        """Every source, each once."""
        return sorted({figure.source for figure in self.figures})


def dataset_name(name: str) -> str:
    """The one name of a data set: `wds/vtab/flowers` and `Flowers` are `flowers`."""
    short = name.strip().casefold()
    while short.startswith(_PREFIXES):
        short = short.partition("/")[2]
    return DATASETS.get(short, short)


def metric_name(name: str) -> str:
    """Our name of a metric: `text_to_image_recall@1` is `image_retrieval_recall@1`."""
    kind, at, k = name.strip().partition("@")
    return _METRICS.get(kind, kind) + at + k


def load(folder: Path) -> Published:
    """Every figure in the CSV files of `folder`; none when there is no such folder.

    Raises:
        ExternalError: a row lacks its source or cannot be a published figure, or one source is
            said to give two values for the same thing; the line is named.
    """
    figures: dict[tuple[str, str, str, str], PublishedResult] = {}
    files = []
    for file in sorted(folder.glob("*.csv")):
        data = read_regular(file, MAX_JSON_BYTES)
        rows = read_figures(data, file.name)
        files.append(
            SourceFile(file.name, hashlib.sha256(data).hexdigest(), tuple(f for _, f in rows))
        )
        for number, figure in rows:
            known = figures.setdefault(figure.place, figure)
            if known.value != figure.value:
                raise ExternalError(
                    f"{file.name}:{number}: {figure.source} gives {figure.value:g} for "
                    f"{figure.metric} of {figure.model} on {figure.dataset}, and elsewhere "
                    f"{known.value:g}; keep the right one"
                )
    return Published(tuple(figures.values()), tuple(files))


def read_figures(data: bytes, name: str) -> list[tuple[int, PublishedResult]]:
    """(line, figure) of each row of a CSV with the columns of `PublishedResult`."""
    rows = read_rows(text_of(data, name), name)
    if rows:
        for column in rows[0][1]:
            if column not in FIELDS:
                raise ExternalError(f"{name}: {unknown('column', column, FIELDS)}")
    cells = ((line, {k: csv_given(v) for k, v in row.items()}) for line, row in rows)
    return [(line, sourced_figure(row, f"{name}:{line}")) for line, row in cells]


def text_of(data: bytes, name: str) -> str:
    """`data` as text, of UTF-8 or marked as UTF-16."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ExternalError(f"{name} is no UTF-8 text: {error}") from None


def read_rows(text: str, name: str, separator: str = ",") -> list[tuple[int, dict[str, str]]]:
    """(line, column -> cell) of each row of a CSV."""
    stream = io.StringIO(text, newline="")
    reader = csv.DictReader(stream, delimiter=separator, strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ExternalError(
                    f"{name}:{reader.line_num}: this row has not as many cells as there are "
                    f"columns ({len(reader.fieldnames or ())})"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise ExternalError(f"{name}:{reader.line_num}: {error}") from None
    return rows


def sourced_figure(cells: Mapping[str, Any], where: str) -> PublishedResult:
    """A PublishedResult; ExternalError, in one line, when `cells` cannot be one."""
    if not (cells.get("source") or "").strip():
        raise ExternalError(
            f"{where}: no source; a published figure must say where it is printed "
            "(the column `source`, or --source ADDRESS when importing)"
        )
    try:
        return PublishedResult.model_validate(dict(cells))
    except ValidationError as error:
        raise ExternalError(f"{where}: {'; '.join(_problems(error))}") from None


def _problems(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        field = ".".join(map(str, problem["loc"]))
        hint = ""
        if field == "value" and problem["type"] == "less_than_equal":
            hint = " (values are fractions; --percent imports percentages)"
        yield f"{field} = {problem.get('input')!r}: {problem['msg']}{hint}"


def to_csv(figures: Sequence[PublishedResult]) -> str:
    """The figures as the text of a file of `results/external/`, in a stable order."""
    ordered = sorted(figures, key=lambda f: (f.method, f.backbone or "", *f.place))
    cells = [figure.model_dump() for figure in ordered]
    return csv_text(FIELDS, ([_cell(each[name]) for name in FIELDS] for each in cells))


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, float) else one_line(value)
