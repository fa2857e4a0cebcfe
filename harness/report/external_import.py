"""Result files of other projects turned into published figures.

Reads open_clip's tables of results (one row a model, one column a data set), clip-benchmark's CSV
and JSON files, and CSV with our own columns.  Which it is, the header tells.  No number is changed
but by moving the decimal point of a percentage, and none is averaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import unknown
from harness.files import write_atomic
from harness.report import external
from harness.report.external import FIELDS, ExternalError, PublishedResult, make_figure, read_rows

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
_CLIP_BENCHMARK_METRICS = re.compile(
    r"acc[15]|mean_per_class_recall|(image|text)_retrieval_recall@\d+|mean_average_precision"
)


def import_file(
    file: Path, folder: Path, *, source: str | None, percent: bool = False, name: str | None = None
) -> tuple[Path, list[PublishedResult]]:
    """Turn `file` into `<folder>/<name>.csv`; returns it and its figures.

    A file of that name is replaced.  All of `folder` must still be consistent with it.

    Raises:
        ExternalError: the format is not known, a figure has no source, or two files disagree.
    """
    if source is not None and len(source.strip()) < 3:
        raise ExternalError(f"--source {source!r} names no source; give an address or a citation")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ExternalError(f"{file} cannot be read: {error.strerror}") from None
    figures = list(_figures(data, file.name, source, percent))
    if not figures:
        raise ExternalError(f"{file} holds no figure")
    target = folder / f"{_file_name(name or file.stem)}.csv"
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
    return target, figures


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "figures"


def _figures(
    data: bytes, name: str, source: str | None, percent: bool
) -> Iterator[PublishedResult]:
    if data.lstrip()[:1] in (b"{", b"["):
        yield from _clip_benchmark_json(data, name, source)
        return
    rows = read_rows(data, name)
    header = set(rows[0][1]) if rows else set()
    if header.issuperset(_OPEN_CLIP):
        for line, row in rows:
            yield from _open_clip_row(row, f"{name}:{line}", _needed(source))
    elif header >= _CLIP_BENCHMARK and "metric" not in header:
        for line, row in rows:
            metrics = {key: cell for key, cell in row.items() if cell.strip()}
            yield from _clip_benchmark_row(metrics, row, f"{name}:{line}", _needed(source))
    elif header >= {"method", "dataset", "metric", "value"}:
        for _, figure in external.read_figures(data, name, source=source, percent=percent):
            yield figure
    else:
        raise ExternalError(
            f"{name} is none of the files that can be imported: open_clip's result tables "
            f"({', '.join(_OPEN_CLIP)}, ...), clip-benchmark's CSV or JSON "
            f"({', '.join(sorted(_CLIP_BENCHMARK))}, metrics), or a CSV of {', '.join(FIELDS)}"
        )


def _needed(source: str | None) -> str:
    if source is None:
        raise ExternalError(
            "this format names no source, and a figure without one is refused; "
            "say where the file is published: --source ADDRESS"
        )
    return source


# --------------------------------------------------------------------------- open_clip


def _open_clip_row(row: Mapping[str, str], where: str, source: str) -> Iterator[PublishedResult]:
    flops = row["FLOPs (B)"].strip()
    for column, cell in row.items():
        if column in _OPEN_CLIP or column.startswith("Average") or not cell.strip():
            continue
        dataset, metric = _open_clip_column(column, where)
        yield make_figure(
            {
                "method": row["name"],
                "pretrain": row["pretrained"],
                "dataset": dataset,
                "metric": metric,
                "value": cell,
                "params_m": row["params (M)"],
                # Counted there as two operations a multiply-accumulate: ViT-B-32 has 14.78.
                "gmacs": str(float(flops) / 2) if flops else "",
                "protocol": "zero-shot, DataComp suite",
                "source": source,
            },
            f"{where}, {column}",
        )


def _open_clip_column(column: str, where: str) -> tuple[str, str]:
    if column in _DATACOMP:
        return _DATACOMP[column]
    if found := _RETRIEVAL.fullmatch(column):
        dataset, _ = _DATACOMP[found[1]]
        return dataset, f"{found[2]}_retrieval_recall@{found[3]}"
    if found := _JACCARD.fullmatch(column):
        return "winogavil", f"jaccard_score_{found[1] or 'mean'}"
    raise ExternalError(f"{where}: {unknown('column', column, _DATACOMP)}")


# --------------------------------------------------------------------------- clip-benchmark


def _clip_benchmark_json(data: bytes, name: str, source: str | None) -> Iterator[PublishedResult]:
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise ExternalError(f"{name} is not valid JSON: {error}") from None
    for number, entry in enumerate(tree if isinstance(tree, list) else [tree], 1):
        where = f"{name}, result {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("metrics"), dict):
            raise ExternalError(f"{where} holds no `metrics`; clip-benchmark's results do")
        metrics = {key: value for key, value in entry["metrics"].items() if value is not None}
        yield from _clip_benchmark_row(metrics, entry, where, _needed(source))


def _clip_benchmark_row(
    metrics: Mapping[str, Any], entry: Mapping[str, Any], where: str, source: str
) -> Iterator[PublishedResult]:
    missing = _CLIP_BENCHMARK - set(entry)
    if missing:
        raise ExternalError(f"{where} lacks {', '.join(sorted(missing))}")
    words = [f"clip-benchmark, {entry['task']}"]
    if entry.get("language"):
        words.append(f"language {entry['language']}")
    for metric, value in metrics.items():
        if _CLIP_BENCHMARK_METRICS.fullmatch(metric):
            yield make_figure(
                {
                    "method": str(entry["model"]),
                    "pretrain": str(entry["pretrained"]),
                    "dataset": str(entry["dataset"]),
                    "metric": metric,
                    "value": value,
                    "protocol": "; ".join(words),
                    "source": source,
                },
                f"{where}, {metric}",
            )
