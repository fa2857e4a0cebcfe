"""Result files of other projects turned into published figures.

Reads open_clip's tables of results (one row a model, one column a data set), clip-benchmark's CSV
and JSON files, DataComp's JSON lines, rows with our own columns, and tables as papers have them,
wide or long.  Which it is, the names of the columns tell.  No number is changed but by moving the
decimal point of a percentage, and none is averaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import unknown
from harness.evaluate.suites import BENCHMARKS
from harness.files import write_atomic
from harness.report import external
from harness.report.external import (
    FIELDS,
    UNSTATED,
    ExternalError,
    PublishedResult,
    metric_name,
    sourced_figure,
)
from harness.report.external_tables import Row, printed_number, rows_of

_OPEN_CLIP = ("name", "pretrained", "params (M)", "FLOPs (B)")
#: Column of open_clip's tables -> data set and the metric that is its main one in the DataComp
#: suite (`main_metric` in the task list of mlfoundations/datacomp; accuracy where none is given).
_DATACOMP = {
    "ImageNet 1k": ("imagenet1k", "acc1"),
    "Caltech-101": ("caltech101", "mean_per_class_recall"),
    "CIFAR-10": ("cifar10", "acc1"),
    "CIFAR-100": ("cifar100", "acc1"),
    "CLEVR Counts": ("clevr_count_all", "acc1"),
    "CLEVR Distance": ("clevr_closest_object_distance", "acc1"),
    "Country211": ("country211", "acc1"),
    "Describable Textures": ("dtd", "acc1"),
    "EuroSAT": ("eurosat", "acc1"),
    "FGVC Aircraft": ("fgvc_aircraft", "mean_per_class_recall"),
    "Food-101": ("food101", "acc1"),
    "GTSRB": ("gtsrb", "acc1"),
    "ImageNet Sketch": ("imagenet_sketch", "acc1"),
    "ImageNet v2": ("imagenetv2", "acc1"),
    "ImageNet-A": ("imagenet-a", "acc1"),
    "ImageNet-O": ("imagenet-o", "acc1"),
    "ImageNet-R": ("imagenet-r", "acc1"),
    "KITTI Vehicle Distance": ("kitti_closest_vehicle_distance", "acc1"),
    "MNIST": ("mnist", "acc1"),
    "ObjectNet": ("objectnet", "acc1"),
    "Oxford Flowers-102": ("flowers", "mean_per_class_recall"),
    "Oxford-IIIT Pet": ("pets", "mean_per_class_recall"),
    "Pascal VOC 2007": ("voc2007", "acc1"),
    "PatchCamelyon": ("pcam", "acc1"),
    "Rendered SST2": ("renderedsst2", "acc1"),
    "RESISC45": ("resisc45", "acc1"),
    "Stanford Cars": ("cars", "acc1"),
    "STL-10": ("stl10", "acc1"),
    "SUN397": ("sun397", "acc1"),
    "SVHN": ("svhn", "acc1"),
    "Flickr": ("flickr30k", "mean_recall@1"),
    "MSCOCO": ("mscoco", "mean_recall@1"),
    "WinoGAViL": ("winogavil", "jaccard_score_10-12"),
    "iWildCam": ("iwildcam", "f1_macro"),
    "Camelyon17": ("camelyon17", "acc1"),
    "FMoW": ("fmow", "acc_worst_region"),
    "Dollar Street": ("dollar_street", "acc5_worst_group"),
    "GeoDE": ("geode", "acc_worst_group"),
}
_RETRIEVAL = re.compile(r"(Flickr|MSCOCO) (image|text) retr\. R@(\d+)")
_JACCARD = re.compile(r"WinoGAViL (?:avg )?jaccard score ?([\d-]*)")
_CLIP_BENCHMARK = {"dataset", "model", "pretrained", "task"}
_METRICS_OF_A_KEY = re.compile(
    r"acc[15]|mean_per_class_recall|(image|text)_retrieval_recall@\d+|mean_average_precision"
)
_OWN = {"method", "dataset", "metric", "value"}


@dataclass(frozen=True)
class Asked:
    """What the command says of the figures of a file.

    Attributes:
        source: where they are printed, of rows that name no place.
        percent: whether all values are percentages.
        method: the model, of rows that name none.
        metric: of columns that name a data set alone.
    """

    source: str | None = None
    percent: bool = False
    method: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Imported:
    """What an import left on disk, and what it did not take in.

    Attributes:
        file: of `results/external/`.
        left_out: columns that name neither a data set nor anything else that is known.
    """

    file: Path
    figures: list[PublishedResult]
    left_out: list[str] = field(default_factory=list)


def import_file(file: Path, folder: Path, asked: Asked, *, name: str | None = None) -> Imported:
    """Turn `file` into a CSV of `folder`, called as `file` is.

    A file of that name stays, and the new one takes a number, unless `name` was given or it holds
    nothing but figures that the new one has too.  All of `folder` must still be consistent.

    Raises:
        ExternalError: the format is not known, a figure has no source, or two files disagree.
    """
    if asked.source is not None and len(asked.source.strip()) < 3:
        raise ExternalError(
            f"--source {asked.source!r} names no source; give an address or a citation"
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ExternalError(f"{file} cannot be read: {error.strerror}") from None
    left_out: dict[str, None] = {}
    figures = [f for row in rows_of(data, file.name) for f in _figures(row, file, asked, left_out)]
    if not figures:
        raise ExternalError(f"{file} holds no figure; {_formats()}")
    target = folder / f"{_file_name(name or file.stem)}.csv"
    target = _free(target, figures) if name is None else target
    before = target.read_bytes() if target.exists() else None
    write_atomic(target, external.to_csv(figures).encode())
    try:
        external.load(folder)
    except ExternalError:
        if before is None:
            target.unlink()
        else:
            write_atomic(target, before)
        raise
    return Imported(target, figures, list(left_out))


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "figures"


def _free(target: Path, figures: list[PublishedResult]) -> Path:
    """`target`, or the first of `NAME-2`, ... that no other figures would be lost by."""
    places, file, number = {figure.place for figure in figures}, target, 1
    while file.exists():
        there = external.read_figures(file.read_bytes(), file.name)
        if all(figure.place in places for _, figure in there):
            break
        number += 1
        file = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return file


def _figures(
    row: Row, file: Path, asked: Asked, left_out: dict[str, None]
) -> Iterator[PublishedResult]:
    line, cells = row
    where, header = f"{file.name}:{line}", set(cells)
    if header.issuperset(_OPEN_CLIP):
        yield from _open_clip_row(cells, where, asked)
    elif header >= {"key", "dataset"} and "model" not in header:
        yield from _datacomp_row(cells, where, asked)
    elif header >= _CLIP_BENCHMARK and "metric" not in header:
        yield from _clip_benchmark_row(cells, where, asked)
    elif header >= _OWN:
        for column in header - set(FIELDS):
            raise ExternalError(f"{file.name}: {unknown('column', column, FIELDS)}")
        yield from _figure(cells, cells["value"], where, asked)
    else:
        yield from _paper_row(cells, where, asked, left_out)


def _figure(
    cells: Mapping[str, Any], value: str, where: str, asked: Asked, *, percent: bool = False
) -> Iterator[PublishedResult]:
    """The figure of a cell; none where a dash is printed."""
    found = printed_number(value, where, percent=percent or asked.percent)
    if found is None:
        return
    if not (cells.get("method") or asked.method or "").strip():
        raise ExternalError(
            f"{where}: no model is named; --method NAME says whose figures they are"
        )
    number, spread = found
    said = [cells.get("protocol"), spread and f"\N{PLUS-MINUS SIGN} {spread} as printed"]
    given = {
        **cells,
        "method": cells.get("method") or asked.method,
        "source": cells.get("source") or asked.source,
        "protocol": "; ".join(filter(None, said)),
        "value": number,
    }
    yield sourced_figure(given, where)


def _formats() -> str:
    return (
        "none of the files that can be imported: open_clip's result tables "
        f"({', '.join(_OPEN_CLIP)}, ...), clip-benchmark's CSV or JSON "
        f"({', '.join(sorted(_CLIP_BENCHMARK))}, metrics), DataComp's JSON lines (key, dataset, "
        "metrics), a table of CSV, Markdown or LaTeX with a column that names the model and "
        f"columns that name data sets, or rows of {', '.join(FIELDS)}"
    )


# --------------------------------------------------------------------------- open_clip


def _open_clip_row(row: Mapping[str, str], where: str, asked: Asked) -> Iterator[PublishedResult]:
    flops = row["FLOPs (B)"].strip()
    for column, cell in row.items():
        if column in _OPEN_CLIP or column.startswith("Average") or not cell.strip():
            continue
        dataset, metric = _open_clip_column(column, where)
        told = {
            "method": row["name"],
            "pretrain": row["pretrained"],
            "dataset": dataset,
            "metric": metric,
            "params_m": row["params (M)"],
            # Counted there as two operations a multiply-accumulate: ViT-B-32 has 14.78.
            "gmacs": str(float(flops) / 2) if flops else "",
            "protocol": "zero-shot, DataComp suite",
        }
        yield from _figure(told, cell, f"{where}, {column}", asked)


def _open_clip_column(column: str, where: str) -> tuple[str, str]:
    if column in _DATACOMP:
        return _DATACOMP[column]
    if found := _RETRIEVAL.fullmatch(column):
        dataset, _ = _DATACOMP[found[1]]
        return dataset, f"{found[2]}_retrieval_recall@{found[3]}"
    if found := _JACCARD.fullmatch(column):
        return "winogavil", f"jaccard_score_{found[1] or 'mean'}"
    raise ExternalError(f"{where}: {unknown('column', column, _DATACOMP)}")


# --------------------------------------------------------------------------- a metric a key


def _clip_benchmark_row(
    row: Mapping[str, str], where: str, asked: Asked
) -> Iterator[PublishedResult]:
    words = [f"clip-benchmark, {row['task']}"]
    if row.get("language"):
        words.append(f"language {row['language']}")
    told = {
        "method": row["model"],
        "pretrain": row["pretrained"],
        "dataset": row["dataset"],
        "protocol": "; ".join(words),
    }
    yield from _metrics_of(row, told, where, asked)


def _datacomp_row(row: Mapping[str, str], where: str, asked: Asked) -> Iterator[PublishedResult]:
    """A line of eval_results.jsonl; its `main_metric` is one of the others by another name."""
    dataset, main = _DATACOMP.get(row["dataset"], (row["key"], None))
    told = {"dataset": dataset, "protocol": "zero-shot, DataComp suite"}
    yield from _metrics_of(row, told, where, asked)
    if main is None or "main_metric" not in row:
        return
    if main not in row or not _METRICS_OF_A_KEY.fullmatch(main):
        told["metric"] = main
        yield from _figure(told, row["main_metric"], f"{where}, main_metric", asked)


def _metrics_of(
    row: Mapping[str, str], told: Mapping[str, str], where: str, asked: Asked
) -> Iterator[PublishedResult]:
    for metric, value in row.items():
        if _METRICS_OF_A_KEY.fullmatch(metric):
            yield from _figure({**told, "metric": metric}, value, f"{where}, {metric}", asked)


# --------------------------------------------------------------------------- tables of papers

_ROLES = {
    "method": "method model name approach modelname",
    "backbone": "backbone arch architecture encoder imageencoder visionencoder",
    "pretrain": "pretrain pretrained pretraining pretrainingdata trainingdata traindata data",
    "params_m": "params paramsm parameters parametersm paramm",
    "gmacs": "gmacs macs macsg",
    "dataset": "dataset datasets benchmark testset evaluationset task",
    "metric": "metric metrics",
    "value": "value score result performance",
    "n": "n testitems",
    "protocol": "protocol setting",
    "source": "source reference paper",
}
"""Field of a figure -> what a column of it may be called, without spaces and signs."""
_DATASETS_ELSEWHERE = {
    "in1k": "imagenet1k", "inet": "imagenet1k", "in": "imagenet1k", "aircraft": "fgvc_aircraft",
    "food": "food101", "caltech": "caltech101", "sun": "sun397", "voc": "voc2007",
}  # fmt: skip
_METRIC_WORDS = {
    "acc1": "acc1", "top1": "acc1", "acc": "acc1", "accuracy": "acc1", "top1acc": "acc1",
    "top1accuracy": "acc1", "acc5": "acc5", "top5": "acc5", "top5acc": "acc5",
    "meanperclass": "mean_per_class_recall", "meanperclassrecall": "mean_per_class_recall",
    "mpcr": "mean_per_class_recall", "meanrecall": "mean_recall", "zeroshot": "", "zs": "", "": "",
}  # fmt: skip
_AT = re.compile(r"\b[it]?r(?:ecall)?\s*@\s*(\d+)", re.I)
_IMAGES = re.compile(
    r"t2i|t\s*(?:->|\N{RIGHTWARDS ARROW})\s*i|text.to.image|image.?retr|\bir\b", re.I
)
_TEXTS = re.compile(
    r"i2t|i\s*(?:->|\N{RIGHTWARDS ARROW})\s*t|image.to.text|text.?retr|\btr\b", re.I
)


def _paper_row(
    row: Mapping[str, str], where: str, asked: Asked, left_out: dict[str, None]
) -> Iterator[PublishedResult]:
    """The figures of a row of a table as papers have them: a data set a column, or named in one."""
    roles = {column: role for column in row if (role := _role(column)) is not None}
    told = {role: row[column] for column, role in roles.items() if role != "value"}
    if "dataset" in told:
        told["dataset"] = _known_datasets().get(_folded(told["dataset"]), told["dataset"])
    for size in {"params_m", "gmacs"} & set(told):
        told[size] = told[size].rstrip("MmGg ")
    for column, cell in row.items():
        percent = "%" in column
        if roles.get(column) == "value":
            named = {"metric": asked.metric or UNSTATED, **told}
        elif column in roles:
            continue
        else:
            place = _place_of(column, told.get("dataset"))
            if place is None:
                left_out.setdefault(column)
                continue
            named = {**told, "dataset": place[0], "metric": place[1] or asked.metric or UNSTATED}
        yield from _figure(named, cell, f"{where}, {column}", asked, percent=percent)


def _role(column: str) -> str | None:
    folded = _folded(column)
    return next((role for role, names in _ROLES.items() if folded in names.split()), None)


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def _place_of(column: str, dataset: str | None) -> tuple[str, str] | None:
    """The data set and the metric (empty if unsaid) that a column is about; None if about none.

    Args:
        dataset: that of the row, where a column of it says so; this one is a metric then.
    """
    if dataset is not None:
        metric = _metric_in(column)
        return (dataset, metric) if metric else None
    words = re.findall(r"[^\s/(),:%\[\]]+", column)
    known = _known_datasets()
    spans = [(a, b) for a in range(len(words)) for b in range(a + 1, len(words) + 1)]
    for first, last in sorted(spans, key=lambda span: span[0] - span[1]):
        found = known.get(_folded("".join(words[first:last])))
        if found is not None:
            metric = _metric_in(" ".join([*words[:first], *words[last:]]))
            return None if metric is None else (found, metric)
    return None


def _metric_in(words: str) -> str | None:
    """Our name of the metric that `words` say; empty if they say none, None if not understood."""
    if at := _AT.search(words):
        which = [
            kind for kind, said in (("image", _IMAGES), ("text", _TEXTS)) if said.search(words)
        ]
        kind = f"{which[0]}_retrieval_" if len(which) == 1 else ""
        return f"{kind}recall@{at[1]}"
    if _METRICS_OF_A_KEY.fullmatch(words.strip()):
        return metric_name(words)
    return _METRIC_WORDS.get(_folded(words))


@cache
def _known_datasets() -> dict[str, str]:
    """What a data set may be called, without spaces and signs -> its one name."""
    shipped = {name: name for name in BENCHMARKS}
    titles = {benchmark.title: name for name, benchmark in BENCHMARKS.items()}
    columns = {column: name for column, (name, _) in _DATACOMP.items()}
    names = {name: name for name in columns.values()}
    every = {**titles, **external.DATASETS, **columns, **names, **shipped, **_DATASETS_ELSEWHERE}
    return {_folded(called): name for called, name in every.items()}
