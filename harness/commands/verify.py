"""Whether numbers are right: beside CLIP_benchmark's own functions, or beside what is published."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.commands.shared import HOLES, print_table
from harness.config import Evaluate, Runtime
from harness.document.text import DASH
from harness.errors import ConfigError, InvariantError
from harness.evaluate.golden import GoldenModel, gaps
from harness.evaluate.suites.find import Found, Hole
from harness.launch.evaluations import ModelSpec, load

if TYPE_CHECKING:
    from harness.document.table import Table


def verify(
    models: Sequence[ModelSpec],
    places: Sequence[Found | Hole],
    settings: Evaluate,
    runtime: Runtime,
) -> int:
    """Ours and CLIP_benchmark's numbers side by side; InvariantError where they differ."""
    from harness.device import pick_device, set_up
    from harness.evaluate import verify as verification

    device = pick_device(runtime)
    set_up(runtime, device)
    named = [(spec.name, load(spec, Path())[:2]) for spec in models]
    differing = 0
    for name, (model, identity) in named or [verification.small_model()]:
        model.to(device)  # type: ignore[attr-defined]
        for place in places:
            if isinstance(place, Hole):
                print(f"hole: {place}", file=sys.stderr)
                continue
            comparison = verification.compare(model, identity, place, settings, runtime)
            print(f"{name} on {place.benchmark.name}, {comparison.precision}:")
            for row in comparison.rows:
                print(f"    {row}")
            if comparison.difference is not None:
                differing += 1
                print(f"    differs: {comparison.difference}")
    if differing:
        raise InvariantError(f"{differing} comparisons with CLIP_benchmark differ, see above")
    return HOLES if any(isinstance(place, Hole) for place in places) else 0


def check_golden(args: argparse.Namespace, model: GoldenModel | None) -> None:
    """Fill in what a golden model says of its architecture; ConfigError for what cannot be."""
    if model is None:
        return
    if not args.verify:
        raise ConfigError("--golden says what --verify compares with: --verify --golden NAME")
    if args.pretrained is None and not args.what:
        raise ConfigError(
            f"--golden {model.name}: which weights? --pretrained FILE of {model.architecture}, or "
            "the folder of its open_clip_config.json"
        )
    args.model = args.model or model.architecture


def compare_golden(
    golden: GoldenModel, name: str, found: Mapping[str, Mapping[str, Any]], asked: Sequence[str]
) -> int:
    """Print found, published and the difference, metric by metric; returns the exit code.

    Args:
        name: of the model as it was loaded.
        found: its metrics.
        asked: the data sets that were looked for.
    """
    differences = gaps(golden, found)
    told = [f for f in golden.figures if f.metric.partition("/")[0] in asked]
    apart = [
        figure.metric
        for figure in told
        if (gap := differences[figure.metric]) is not None and abs(gap) > figure.slack
    ]
    print_table(_table(golden, name, {f.metric: differences[f.metric] for f in told}, apart))
    holes = sum(differences[figure.metric] is None for figure in told)
    if holes:
        print(f"{holes} of {len(told)} figures have nothing beside them", file=sys.stderr)
    if apart:
        print(
            f"{len(apart)} of {len(told)} differ by more than print and decoding explain: "
            f"{', '.join(apart)}",
            file=sys.stderr,
        )
    return HOLES if holes or apart else 0


def _table(
    golden: GoldenModel, name: str, shown: Mapping[str, float | None], apart: Sequence[str]
) -> Table:
    from harness.document.table import plain_table

    heads = ["metric", f"{name} (%)", f"{golden.name}, published (%)", "difference (points)", ""]
    rows = []
    for figure in golden.figures:
        if figure.metric in shown:
            gap, places = shown[figure.metric], max(0, figure.digits - 2)
            ours = DASH if gap is None else f"{100 * (figure.value + gap):.2f}"
            rows.append(
                [
                    metrics.display(figure.metric),
                    ours,
                    f"{100 * figure.value:.{places}f}",
                    DASH if gap is None else f"{100 * gap:+.2f}",
                    "differs" if figure.metric in apart else "",
                ]
            )
    caption = f"Published: {golden.source}."
    return plain_table(heads, rows, numeric=heads[1:4], caption=caption)
