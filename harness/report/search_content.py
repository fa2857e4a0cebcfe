"""The page of a search's report: what was best, whether that holds, and what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from harness import metrics
from harness.document import text
from harness.document.blocks import Block, BulletList, Document, Figure, Note, Paragraph, Section
from harness.document.table import Table, plain_table
from harness.document.text import Text, link, strong
from harness.report.search_data import CONFIRMED, Confirmed, SearchData, free
from harness.results.records import Record
from harness.stats.tests import Judged
from harness.store.trials import Origin, Outcome, Trial

_DECIMALS = 2
_MOST_BEST = 6
"""Of the best trials of several objectives, as many as have a column of their own."""


def write_search_content(
    data: SearchData, figures: Sequence[Figure], records: Sequence[Record]
) -> Document:
    """The page of the report on `data`.

    Args:
        records: what is on disk of the runs, those of the confirmation included.
    """
    known = {record.key for record in records}
    over = sum(trial.over for trial in data.trials)
    confirmed = _confirmed(data, records)
    seeds = (confirmed, Paragraph(_about_confirmed(data))) if confirmed else ()
    lead: list[Block] = [
        *(Paragraph((*told, ".")) for told in _answers(data)),
        Paragraph(_design(data)),
        _point(data),
        *figures[:1],
        *map(Note, _warnings(data, records)),
    ]
    sections = [
        Section("With fresh seeds", seeds),
        Section("Further figures", tuple(figures[1:])),
        Section("What was done", (BulletList(tuple(_protocol(data))),)),
        Section("Trials", (_trials(data, known), Paragraph(_ABOUT_TRIALS))),
        Section("Reproducing this report", (BulletList(tuple(_footer(data, records))),)),
    ]
    return Document(
        data.about["question"].strip() or data.name,
        (*lead, *(section for section in sections if section.blocks)),
        f"{data.name} \u00b7 {over:,} of {len(data.trials):,} trials",
    )


_ABOUT_TRIALS = ("In full precision, with the run of each: ", link("CSV", "trials.csv"), ".")


def _about_confirmed(data: SearchData) -> Text:
    return (
        "Mean over the seeds with its 95 % interval (Student), and the difference to the base, "
        "paired by seed. The whole comparison: ",
        link("report", f"../{quote(data.name + CONFIRMED, safe='')}/report.*"),
        ".",
    )


# --------------------------------------------------------------------------- what was found


def _warnings(data: SearchData, records: Sequence[Record]) -> Iterator[str]:
    left = [str(trial.number) for trial in data.trials if not trial.over]
    if left:
        yield f"Unfinished trials: {', '.join(left)}; the same command resumes them."
    if not data.best:
        yield "No trial was trained to the end, so there is no best one."
    elif not data.confirmed and data.about["confirm"]:
        yield "The best trial has not been confirmed with fresh seeds yet."
    if data.holes:
        plural = "s" if data.holes > 1 else ""
        yield (
            f"Results of {data.holes} run{plural} of the confirmation are missing; means are never "
            "taken over fewer seeds."
        )
    codes = _codes(records)
    if len(codes) > 1:
        yield f"These numbers were made by {len(codes)} versions of the code: {', '.join(codes)}."


def _codes(records: Sequence[Record]) -> list[str]:
    return sorted({record.code for record in records if record.code})


def _design(data: SearchData) -> str:
    """`Design: 10 trials over 5 fields by tpe, of at most 4,608 samples each; ...`."""
    about, fields = data.about, f"{len(data.axes)} field{'s' * (len(data.axes) != 1)}"
    said = (
        f"Design: {len(data.trials):,} trials over {fields} by {about['sampler']}, "
        f"of at most {about['samples']:,} samples each"
    )
    if about["rungs"]:
        said += f", compared at {len(about['rungs'])} rung{'s' * (len(about['rungs']) > 1)}"
    if about["confirm"]:
        fresh = len(about["confirm"])
        said += f"; the best with {fresh} fresh seed{'s' * (fresh > 1)}"
    return f"{said}; objective: {', '.join(map(metrics.display, data.goals))}."


def _answers(data: SearchData) -> Iterator[Text]:
    goal = data.goals[0]
    if len(data.goals) == 1 and data.best:
        trial = data.best[0]
        assert trial.values is not None
        tried = sum(t.outcome is not Outcome.REPEAT for t in data.trials)
        yield (
            strong(f"Trial {trial.number}"),
            f" was the best of {tried} on the validation split: {metrics.display(goal)} "
            f"{_number(goal, trial.values[0])}, optimistic (selected on this split)",
        )
    elif data.best:
        yield (
            strong(f"{len(data.best)} trials"),
            " are not dominated: none is at least as good in every objective",
        )
    for found in data.confirmed:
        if found.judged is not None:
            yield _verdict(found, found.judged)


def _verdict(found: Confirmed, judged: Judged) -> Text:
    told = (
        f" with fresh seeds: {metrics.display(found.metric)} {_level(found)}, "
        f"{_difference(found)} against the base: "
    )
    lead = strong(found.label[:1].upper() + found.label[1:])
    if not judged.significant:
        return (lead, told, strong("not significant"))
    better = (judged.test.estimate > 0) == metrics.higher_is_better(found.metric)
    return (lead, told, strong("better" if better else "worse"))


def _number(metric: str, value: float, *, sign: bool = False) -> str:
    shown = text.number(value * metrics.scale(metric), _DECIMALS, sign=sign)
    return f"{shown} {metrics.unit(metric)}"


def _level(found: Confirmed) -> str:
    half = found.estimate.half_width
    level = _number(found.metric, found.estimate.mean)
    if half is None:
        return f"{level} (one seed)"
    return f"{level} ± {text.number(half * metrics.scale(found.metric), _DECIMALS)}"


def _difference(found: Confirmed) -> str:
    if found.judged is None:
        return text.DASH
    test = found.judged.test
    shown = _number(found.metric, test.estimate, sign=True)
    if test.interval is None:
        return shown
    factor = metrics.scale(found.metric)
    ends = [text.number(end * factor, _DECIMALS, sign=True) for end in test.interval]
    return f"{shown} [{', '.join(ends)}]"


# --------------------------------------------------------------------------- tables


def _point(data: SearchData) -> Table:
    shown = data.best[:_MOST_BEST]
    best = [f"trial {trial.number}" for trial in shown]
    return plain_table(
        ["name", "field", "searched", "base", *best],
        [
            [
                axis.name,
                axis.path,
                _range(data, axis.path),
                text.plain(data.about["start"][axis.path]),
                *(_short(trial.point[axis.path]) for trial in shown),
            ]
            for axis in data.axes
        ],
        coded=["field"],
    )


def _range(data: SearchData, path: str) -> str:
    space = data.about["space"][path]
    if "options" in space:
        return ", ".join(text.plain(option) for option in space["options"])
    return f"{space['low']:g} to {space['high']:g}{', log' if space['log'] else ''}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text.plain(value)


def _confirmed(data: SearchData, records: Sequence[Record]) -> Table:
    order = list(dict.fromkeys(found.metric for found in data.confirmed))
    rows = sorted(data.confirmed, key=lambda found: order.index(found.metric))
    runs = {(record.run.label, record.seed): record.key for record in records}
    return plain_table(
        ["metric", "point", "value", "difference to the base", "seeds"],
        [
            [
                metrics.display(found.metric),
                found.label,
                _level(found),
                _difference(found),
                len(found.values),
            ]
            for found in rows
        ],
        numeric=["seeds"],
        keys=[
            [runs[place] for seed in found.values if (place := (found.label, seed)) in runs]
            for found in rows
        ],
    )


def _trials(data: SearchData, known: Collection[str]) -> Table:
    numbers = [axis.name for axis in data.axes if axis.options is None]
    goals = [metrics.display(goal) for goal in data.goals]
    best = {trial.number for trial in data.best}
    return plain_table(
        ["trial", *(axis.name for axis in data.axes), "outcome", "samples", *goals],
        [
            [
                trial.number,
                *(_short(trial.point[axis.path]) for axis in data.axes),
                _outcome(trial, is_best=trial.number in best),
                f"{trial.samples_seen:,}",
                *(
                    text.DASH if value is None else _number(goal, value)
                    for goal, value in zip(
                        data.goals, trial.values or [None] * len(data.goals), strict=True
                    )
                ),
            ]
            for trial in data.trials
        ],
        numeric=["trial", *numbers, "samples", *goals],
        keys=[
            [trial.key] if trial.key in known and trial.outcome is not Outcome.REPEAT else []
            for trial in data.trials
        ],
        anchored=True,
    )


def _outcome(trial: Trial, *, is_best: bool) -> str:
    told = trial.outcome.value
    if trial.origin is Origin.FREE:
        told += ", free"
    if is_best:
        told += ", best"
    if trial.why is not None:
        told += f" ({trial.failure + ': ' if trial.failure else ''}{trial.why})"
    return told


# --------------------------------------------------------------------------- what was done


def _protocol(data: SearchData) -> Iterator[str]:
    about = data.about
    counts = Counter(trial.outcome.value for trial in data.trials)
    yield (
        f"{len(data.trials)} trials with seed {about['seed']}, "
        f"{', '.join(f'{n} {outcome}' for outcome, n in counts.items())}; {free(data.trials)} "
        "cost nothing (runs finished before)"
    )
    selected = f"selected by {', '.join(about['objectives'])}"
    if about["confirm"]:
        seeds = ", ".join(map(str, about["confirm"]))
        selected += (
            "; the reported split was not looked at before the confirmation with seeds " + seeds
        )
    yield selected
    yield f"points by {about['sampler']}, each asked for as soon as a slot was free"
    if about["rungs"]:
        rungs = ", ".join(f"{rung:,}" for rung in about["rungs"])
        yield (
            f"rungs at {rungs} of {about['samples']:,} samples, evaluated within the schedule of "
            "the full budget (learning rate and soft labels as at that place of it), which is not "
            "the result of a run with so small a budget; trials are compared at the same rung alone"
        )
    yield _hours(data)


def _hours(data: SearchData) -> str:
    seconds = sum(trial.seconds for trial in data.trials)
    done = [t.seconds for t in data.trials if t.outcome is Outcome.COMPLETE and t.seconds]
    told = f"{seconds / 3600:.2f} hours of training"
    if done and seconds:
        counted = [trial for trial in data.trials if trial.counts]
        whole = len(counted) * sum(done) / len(done)
        told += f", {seconds / whole:.0%} of what all of them would have taken to the end"
    return told


def _footer(data: SearchData, records: Sequence[Record]) -> Iterator[str]:
    source = next((r.run.source for r in records if r.run.source is not None), None)
    yield f"Search {data.name}" + (f", file of SHA-256 {source.sha256}" if source else "")
    codes = _codes(records)
    if codes:
        yield f"Code {', '.join(codes)}"
    yield (
        "manifest.json lists every file read with its SHA-256, and each file written; the same "
        "records give the same bytes"
    )
