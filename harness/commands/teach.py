"""What `python -m harness.data teach` does: a teacher named, checked, and its embeddings stored."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from harness.commands.shared import store_of
from harness.config import RunConfig, Runtime, override, parse_assignment
from harness.config.inheritance import TeacherName, read_teacher
from harness.errors import ConfigError
from harness.store.record import Store

if TYPE_CHECKING:
    from harness.data.tools.jobs import Progress


def teach_seeds(
    args: argparse.Namespace, data_fields: Mapping[str, object], progress: Progress
) -> Iterator[str]:
    """Store the views of each seed; a line for each, which says where they are.

    Args:
        data_fields: where the data are, as a run has it.
    """
    from harness.data.catalog import cache_dir, open_data
    from harness.device import pick_device, placed, resolve_precision, set_up
    from harness.train.teach import teach
    from harness.train.teacher import check_lengths, check_numbers, load_teacher

    runtime = Runtime(
        cache=args.cache,
        max_pixels=args.max_pixels,
        max_bad_fraction=args.max_bad_fraction,
        workers=args.workers if args.workers > 1 else 0,
    )
    config = override(RunConfig(), {**data_fields, **_set(args)})
    data = open_data(config.data, runtime)
    config = override(config, {"data.fingerprint": data.fingerprint})
    store = store_of(args)
    name, content = _teacher(args, store)
    teacher = load_teacher(name, content, store.runs)
    device = pick_device(runtime)
    set_up(runtime, device)
    placed(teacher.model, device)  # type: ignore[type-var]
    precision = resolve_precision("fp32", device, "precision")
    check_numbers(teacher, precision)
    check_lengths(teacher, data, runtime)
    data.prepare()
    for seed in args.seeds:
        folder = teach(
            teacher,
            content,
            data,
            override(config, {"seed": seed}),
            runtime,
            views=args.views,
            cache=cache_dir(runtime),
            precision=precision,
            progress=progress,
        )
        yield f"{folder}: {args.views} views of {content[:40]} with seed {seed}"


def _set(args: argparse.Namespace) -> dict[str, object]:
    """The fields of `data` that were set; ConfigError for another."""
    found = dict(map(parse_assignment, args.set))
    for path in found:
        if not path.startswith("data."):
            raise ConfigError(f"--set {path}: a field of data is wanted, such as data.flip=true")
    return found


def _teacher(args: argparse.Namespace, store: Store) -> tuple[TeacherName, str]:
    """Name and content of the teacher, whose parts are registered."""
    from harness.models.teachers import content_of
    from harness.plugins import read_run

    given = args.teacher
    is_key = re.fullmatch("[0-9a-f]{4,12}", given) is not None
    name = read_teacher(f"run {given}" if is_key else given)
    if name.layers is not None:
        raise ConfigError(f"teacher {given!r}: of which run? name one that is finished: 'run KEY'")
    if name.run is None:
        return name, content_of(name)[0]
    run = store.find(name.run)
    run.finished()
    read_run(run, args.sweep)
    return name, f"run {run.key}"
