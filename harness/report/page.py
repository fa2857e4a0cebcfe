"""The report folder: the page with its answer, figures, table and protocol, and the manifest.

Owns which files a report has and how they are replaced.  Every date and number comes from the
records, so the same records give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout
from jinja2 import Environment, StrictUndefined

from harness import metrics
from harness.errors import HarnessError
from harness.record import State, Store, dump_json, read_json, write_atomic
from harness.report import ReportResult, style, tables, text
from harness.report.collect import Collection, collect
from harness.report.figures import Drawing, draw
from harness.report.records import Record
from harness.report.summary import Cell, Cells, summarise
from harness.space import Run, Sweep

_SCHEMA = 1
_LOCK_SECONDS = 60.0
_MANIFEST = "manifest.json"


class ReportBusyError(HarnessError):
    """Another process is writing the same report."""


def write_report(sweep: Sweep, runs: Sequence[Run], store: Store, out: Path) -> ReportResult:
    """What `harness.report.build` promises."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.parent / f".{out.name}.lock"
    try:
        with FileLock(lock, timeout=_LOCK_SECONDS):
            return _write(sweep, runs, store, out)
    except Timeout:
        raise ReportBusyError(
            f"{out} is being written by another process for over {_LOCK_SECONDS:g} s; "
            "call again with --report-only"
        ) from None


def _write(sweep: Sweep, runs: Sequence[Run], store: Store, out: Path) -> ReportResult:
    collection = collect(sweep, runs, store)
    cells = summarise(collection)
    table = tables.build_table(collection, cells)
    with style.house():
        drawings = draw(collection, cells)
        files = dict(_figure_files(drawings))
    files["table.tex"] = tables.to_latex(table).encode()
    files["table.csv"] = tables.to_csv(collection, cells).encode()
    files["report.md"] = _page(collection, cells, table, drawings).encode()
    files[_MANIFEST] = dump_json(_manifest(collection, files))
    stale = _listed(out) - set(files)
    for name, data in files.items():
        write_atomic(out / name, data)
    for name in sorted(stale):
        (out / name).unlink(missing_ok=True)
    holes = _runs_with_holes(collection)
    return ReportResult(
        complete=holes == 0,
        holes=holes,
        failed=sum(record.failed for record in collection.records),
        files=tuple(out / name for name in files),
    )


def _figure_files(drawings: Iterable[Drawing]) -> Iterator[tuple[str, bytes]]:
    for drawing in drawings:
        yield f"figures/{drawing.name}.svg", style.svg(drawing.figure)
        yield f"figures/{drawing.name}.png", style.png(drawing.figure)
        yield f"figures/{drawing.name}.csv", drawing.data.encode()


def _runs_with_holes(collection: Collection) -> int:
    shown = collection.frame[collection.frame["metric"].isin(collection.shown)]
    holes = shown[shown["value"].isna()]
    return len(holes[["point", "seed"]].drop_duplicates())


def _listed(out: Path) -> set[str]:
    """Files of the report that is there now, as its manifest lists them."""
    listed = (read_json(out / _MANIFEST) or {}).get("files", {})
    return {name for name in listed if _is_inside(name)}


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _manifest(collection: Collection, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Every run that was asked for with the hash of each file read, and of each file written."""
    return {
        "schema": _SCHEMA,
        "sweep": collection.sweep.name,
        "question": collection.sweep.question,
        "sweep_sha256": collection.sweep.source and collection.sweep.source.sha256,
        "metrics": collection.metrics,
        "runs": [
            {
                "key": record.run.key,
                "label": record.run.label,
                "seed": record.seed,
                "state": record.status.state.value,
                "used": record.reason is None,
                "reason": record.reason,
                "code": (record.result or {}).get("code"),
                "evaluation_key": record.run.config.evaluation_key,
                "inputs": dict(record.inputs),
            }
            for record in collection.records
        ],
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }


# --------------------------------------------------------------------------- the page

_TEMPLATE = """\
# {{ title | md }}

{% if warnings %}
{% for warning in warnings %}
> **Note.** {{ warning | md }}
{% endfor %}

{% endif %}
## Answer

{% for line in answers %}
- {{ line }}
{% endfor %}

{% if drawings %}
## Figures

{% for drawing in drawings %}
![{{ drawing.name | replace("_", " ") }}](figures/{{ drawing.name }}.png)

{{ drawing.words | md }} Files: [SVG](figures/{{ drawing.name }}.svg), \
[data](figures/{{ drawing.name }}.csv).

{% endfor %}
{% endif %}
## Table

{{ table }}
The same as [LaTeX](table.tex); every metric recorded, in full precision, as [CSV](table.csv).

{% if failed %}
## Failed runs

{{ failed }}
{% endif %}
{% if open %}
## Not finished

{{ open }}
{% endif %}
## Protocol

{% for name, value in protocol %}
- {{ name }}: {{ value }}
{% endfor %}

{% if time %}
## Where the time went

{{ time }}
{% endif %}
## Runs

{{ runs }}
"""


def _page(
    collection: Collection, cells: Cells, table: tables.Table, drawings: Sequence[Drawing]
) -> str:
    # Not HTML: every foreign word passes through text.markdown, which escapes for both.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["md"] = text.markdown
    page = environment.from_string(_TEMPLATE).render(
        title=collection.sweep.question.strip() or collection.sweep.name,
        warnings=list(_warnings(collection)),
        answers=[answer(collection, cells, metric) for metric in collection.shown],
        drawings=drawings,
        table=tables.to_markdown(table),
        failed=_failed_table(collection),
        open=_open_table(collection),
        protocol=list(_protocol(collection, cells)),
        time=_time_table(collection),
        runs=_runs_table(collection),
    )
    return page.rstrip("\n") + "\n"


def _warnings(collection: Collection) -> Iterator[str]:
    codes = _distinct(record.result.get("code") for record in _used(collection) if record.result)
    if len(codes) > 1:
        yield (
            f"these numbers were made by {len(codes)} versions of the code ({', '.join(codes)}); "
            "--rerun stale repeats the older ones"
        )
    holes = _runs_with_holes(collection)
    if holes:
        yield (
            f"{holes} of {len(collection.records)} runs miss a number that is shown; a cell that "
            "lacks a seed is a dash with its reason, and no mean is taken over the rest"
        )


# --------------------------------------------------------------------------- the answer


def answer(collection: Collection, cells: Cells, metric: str) -> str:
    """A Markdown list's item on one metric, with an item below it for each point compared."""
    column = [cells[(row.index, metric)] for row in collection.points]
    decimals = tables.decimals_of(column)
    parts = []
    groups: dict[int | None, list[Cell]] = {}
    for cell in column:
        groups.setdefault(cell.baseline, []).append(cell)
    for baseline, members in groups.items():
        if baseline is None:
            parts += [_level(collection, cell, decimals) for cell in members]
            continue
        parts.append(f"{_level(collection, cells[(baseline, metric)], decimals)} is the baseline")
        others = [cell for cell in members if cell.point != baseline]
        parts += [_comparison(collection, cell, decimals) for cell in others]
    heading = (
        f"**{text.markdown(metrics.display(metric))}** ({text.markdown(metrics.unit(metric))})"
    )
    chances = {round(cell.chance * 100, 6) for cell in column if cell.chance is not None}
    chance = f", chance {text.number(chances.pop(), decimals)}" if len(chances) == 1 else ""
    return "\n  - ".join([f"{heading}{chance}{_tally(column)}", *parts])


def _tally(column: Sequence[Cell]) -> str:
    """How many of the points compared differ from their baseline."""
    compared = [cell for cell in column if cell.baseline not in {None, cell.point}]
    if not compared:
        return ""
    better = sum(cell.better is True for cell in compared)
    worse = sum(cell.better is False for cell in compared)
    rest = len(compared) - better - worse
    return f": of {len(compared)} compared, {better} better, {worse} worse, {rest} undecided"


def _level(collection: Collection, cell: Cell, decimals: int) -> str:
    label = text.markdown(collection.points[cell.point].label)
    if cell.estimate is None:
        return f"{label} (no mean: {text.markdown(cell.hole)})"
    return f"{label} ({tables.estimate_text(cell.estimate, cell.metric, decimals)})"


def _comparison(collection: Collection, cell: Cell, decimals: int) -> str:
    label = text.markdown(collection.points[cell.point].label)
    difference = cell.difference
    if difference is None:
        return (
            f"{label}: no seed to compare ({text.markdown(cell.hole or 'the baseline has none')})"
        )
    shown = text.markdown(tables.difference_text(difference, cell.metric, decimals))
    points = " points" if metrics.unit(cell.metric) == "%" else f" {metrics.unit(cell.metric)}"
    over = "" if cell.paired_in_full else f", over {difference.n} of {len(cell.seeds)} seeds"
    if difference.n == 1:
        verdict = "one seed, no interval to judge by"
    elif difference.no_spread:
        verdict = "the same at every seed, no spread to judge by"
    elif cell.better is None:
        verdict = "no difference detectable"
    else:
        verdict = "better" if cell.better else "worse"
    return f"{label}: {verdict} ({shown}{points}{over})"


# --------------------------------------------------------------------------- what went wrong


def _failed_table(collection: Collection) -> str:
    failed = [record for record in collection.records if record.failed]
    return _markdown_table(
        ["label", "seed", "failure", "error", "log", "attempts"],
        [
            [
                text.markdown(record.run.label),
                str(record.seed),
                text.markdown(record.status.failure or "bug"),
                text.markdown(_last_line(record.status.error)),
                text.markdown_code(record.log) if record.log else text.DASH,
                str(max(len(record.attempts), record.status.attempt)),
            ]
            for record in failed
        ],
    )


def _last_line(error: str | None) -> str:
    lines = [line for line in (error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _open_table(collection: Collection) -> str:
    unfinished = [r for r in collection.records if r.reason is not None and not r.failed]
    names = {State.NEW: "not started", State.DONE: "done"}
    return _markdown_table(
        ["label", "seed", "state", "samples seen", "of"],
        [
            [
                text.markdown(record.run.label),
                str(record.seed),
                names.get(record.status.state, record.status.state.value),
                f"{record.status.samples_seen:,}",
                f"{record.run.config.train.samples:,}",
            ]
            for record in unfinished
        ],
    )


# --------------------------------------------------------------------------- protocol and time


def _used(collection: Collection) -> list[Record]:
    return [record for record in collection.records if record.reason is None]


def _distinct(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(text.plain(value) for value in values if value is not None))


def _listing(values: Iterable[object]) -> str:
    return ", ".join(map(text.markdown, _distinct(values))) or text.DASH


def _codes(values: Iterable[object]) -> str:
    return ", ".join(map(text.markdown_code, _distinct(values))) or text.DASH


def _protocol(collection: Collection, cells: Cells) -> Iterator[tuple[str, str]]:
    used = _used(collection)
    configs = [record.run.config for record in collection.records]
    evaluations = [record.evaluation["protocol"] for record in used if record.evaluation]
    names = [protocol["data"]["name"] for protocol in evaluations] or [
        c.data.source for c in configs
    ]
    prints = [c.data.fingerprint[:12] for c in configs if c.data.fingerprint]
    yield "Data", f"{_listing(names)}, fingerprint {_codes(prints)}"
    for line in _distinct_lines(map(_split_words, evaluations)):
        yield "Evaluated on", text.markdown(line)
    samples = {
        text.markdown(metrics.display(metric)): _spans(
            n for row in collection.points for n in cells[(row.index, metric)].samples
        )
        for metric in collection.shown
    }
    yield "Samples behind a value", ", ".join(f"{name} {n}" for name, n in samples.items())
    for line in _distinct_lines(map(_prompt_words, evaluations)):
        yield "Prompts", text.markdown(line)
    for line in _distinct_lines(map(_rule_words, evaluations)):
        yield "Scoring", text.markdown(line)
    yield (
        "Training",
        f"{_spans(c.train.samples for c in configs)} samples, "
        f"batch {_listing(c.train.batch_size for c in configs)}, "
        f"precision {_listing(r.training.get('precision') for r in used)}, "
        f"device {_listing(r.training.get('device') for r in used)}, "
        f"seeds {_listing(sorted({record.seed for record in collection.records}))}",
    )
    bad = [len(record.training.get("bad_samples") or []) for record in used]
    if any(bad):
        yield "Samples left out of training", f"{_spans(bad)} a run, listed in each result.json"
    yield "Cost measured on", _listing((r.result or {}).get("cost", {}).get("device") for r in used)
    yield "Code", _codes((record.result or {}).get("code") for record in used)
    yield "Commit", _codes(map(_commit, used))
    times = sorted(str(a["time"]) for r in used for a in r.attempts if a.get("time"))
    if times:
        ends = dict.fromkeys([times[0], times[-1]])
        yield "Started", " to ".join(map(text.markdown, ends))


def _distinct_lines(groups: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(line for group in groups for line in group))


def _split_words(protocol: Mapping[str, Any]) -> list[str]:
    lines = []
    for split, facts in protocol["splits"].items():
        parts = [f"{facts['images']:,} images", f"{facts['captions']:,} captions"]
        parts += [f"{n:,} labelled with {task}" for task, n in facts["labelled"].items()]
        if facts.get("excluded"):
            parts.append(f"{len(facts['excluded']):,} images left out as unusable")
        lines.append(f"split {split}: {', '.join(parts)}")
    for folder, facts in protocol["class_folders"].items():
        lines.append(f"class folder {folder}: {facts['images']:,} images")
    return lines


def _prompt_words(protocol: Mapping[str, Any]) -> list[str]:
    tasks = {**protocol.get("tasks", {}), **protocol["class_folders"]}
    return [
        f"{name}, {len(task['classnames'])} classes: {_templates(task['templates'])}"
        for name, task in tasks.items()
        if "templates" in task and "classnames" in task
    ]


def _templates(templates: Sequence[str]) -> str:
    few = " / ".join(templates[:3])
    return few if len(templates) <= 3 else f"{len(templates)} templates such as {few}"


def _rule_words(protocol: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {rule}" for name, rule in protocol.get("rules", {}).items()]


def _spans(values: Iterable[float]) -> str:
    """One number, or the least and the greatest of several."""
    known = sorted(set(values))
    ends = dict.fromkeys(f"{value:,}" for value in [*known[:1], *known[-1:]])
    return "\u2013".join(ends) or text.DASH


def _commit(record: Record) -> str | None:
    if not record.attempts:
        return None
    last = record.attempts[-1]
    if last.get("commit") is None:
        return "no commit known"
    dirty = f" with uncommitted changes {last['dirty']}" if last.get("dirty") else ""
    return f"{str(last['commit'])[:12]}{dirty}"


def _time_table(collection: Collection) -> str:
    rows = []
    for row in collection.points:
        done = [
            record.training for record in collection.of_point(row.index) if record.reason is None
        ]
        if done:
            rows.append(
                [
                    text.markdown(row.label),
                    str(len(done)),
                    _average(done, "seconds", 1, 1),
                    _average(done, "evaluation_seconds", 1, 1),
                    _average(done, "samples_per_second", 1, 0),
                    _average(done, "data_wait", 100, 1),
                ]
            )
    heads = ["label", "finished runs", "training (s)", "evaluation (s)"]
    return _markdown_table([*heads, "samples/s", "waiting for data (%)"], rows)


def _average(done: Sequence[Mapping[str, Any]], name: str, scale: float, decimals: int) -> str:
    """Mean over the finished runs, whose number stands beside it."""
    values = [training.get(name) for training in done]
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values):
        return text.DASH
    return text.number(scale * sum(known) / len(known), decimals)


def _runs_table(collection: Collection) -> str:
    return _markdown_table(
        ["label", "seed", "run", "state", "attempts"],
        [
            [
                text.markdown(record.run.label),
                str(record.seed),
                text.markdown_code(record.run.key),
                record.status.state.value,
                str(max(len(record.attempts), record.status.attempt)),
            ]
            for record in collection.records
        ],
    )


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table of cells that are Markdown already; nothing without rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
