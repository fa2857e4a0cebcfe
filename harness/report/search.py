"""The report of a search: what was best, whether that holds, what mattered, what it cost.

The page is made from the records alone and the same records give the same bytes.  The comparison
with fresh seeds is an ordinary sweep with an ordinary report, to which the page points.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from harness import metrics
from harness.ledger import Outcome, Trial
from harness.record import Store, write_atomic
from harness.report import style, text
from harness.report.drawing import Drawing
from harness.report.search_data import CONFIRMED, Confirmed, SearchData, free, read_search
from harness.report.search_figures import draw_search

_DECIMALS = 2


def build_search(name: str, store: Store, out: Path) -> tuple[Path, ...]:
    """Write the report of the search `name` to the folder `out`; the files written.

    Raises RecordError when there is nothing on disk of that search.
    """
    data = read_search(name, store)
    with style.house(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # evaluators of importance that are marked experimental
        drawings = draw_search(data)
        files = {f"figures/{d.name}.svg": style.svg(d.figure) for d in drawings}
        files |= {f"figures/{d.name}.png": style.png(d.figure) for d in drawings}
    files |= {f"figures/{d.name}.csv": d.data.encode() for d in drawings}
    files["trials.csv"] = data.frame().to_csv(index=False, lineterminator="\n").encode()
    files["report.md"] = page(data, drawings).encode()
    for file, content in files.items():
        write_atomic(out / file, content)
    return tuple(out / file for file in files)


_TEMPLATE = """\
# {{ title | md }}

{% for note in notes %}
> **Note.** {{ note | md }}

{% endfor %}
## Answer

{% for line in answers %}
- {{ line }}
{% endfor %}

{{ point }}
{% if confirmed %}
## With fresh seeds

{{ confirmed }}
Mean over the seeds with its 95 % interval (Student), and the difference to the base, paired by \
seed. The whole comparison: [report](../{{ name }}{{ suffix }}/report.md).

{% endif %}
{% if drawings %}
## Figures

{% for drawing in drawings %}
![{{ drawing.name | replace("_", " ") }}](figures/{{ drawing.name }}.png)

{{ drawing.words | md }} Files: [SVG](figures/{{ drawing.name }}.svg), \
[data](figures/{{ drawing.name }}.csv).

{% endfor %}
{% endif %}
## What was done

{% for line in protocol %}
- {{ line | md }}
{% endfor %}

## Trials

{{ trials }}
In full precision, with the run of each: [CSV](trials.csv).
"""


def page(data: SearchData, drawings: Sequence[Drawing]) -> str:
    """The page in Markdown."""
    # Not HTML: every foreign word passes through text.markdown, which escapes for both.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["md"] = text.markdown
    return environment.from_string(_TEMPLATE).render(
        title=data.about["question"].strip() or data.name,
        notes=list(_notes(data)),
        answers=list(_answers(data)),
        point=_point_table(data),
        confirmed=_confirmed_table(data),
        name=data.name,
        suffix=CONFIRMED,
        drawings=drawings,
        protocol=list(_protocol(data)),
        trials=_trials_table(data),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


# --------------------------------------------------------------------------- what was found


def _notes(data: SearchData) -> Iterator[str]:
    left = [str(trial.number) for trial in data.trials if not trial.over]
    if left:
        yield f"not over: trials {', '.join(left)}; the same command goes on with them"
    if not data.best:
        yield "no trial was trained to the end, so there is no best one"
    elif not data.confirmed and data.about["confirm"]:
        yield "the best trial has not been confirmed with fresh seeds yet"
    if data.holes:
        plural = "s" if data.holes > 1 else ""
        yield (
            f"{data.holes} run{plural} of the confirmation gave no number; "
            "nothing is averaged over it"
        )


def _answers(data: SearchData) -> Iterator[str]:
    goal = data.goals[0]
    if len(data.goals) == 1 and data.best:
        trial = data.best[0]
        assert trial.values is not None
        tried = sum(t.outcome is not Outcome.REPEAT for t in data.trials)
        yield (
            f"**Trial {trial.number}** was the best of {tried} on the validation split: "
            f"{text.markdown(metrics.display(goal))} {_number(goal, trial.values[0])}, "
            "which is too high by as much as luck chose it"
        )
    elif data.best:
        yield f"{len(data.best)} trials are beaten by none in every objective"
    for found in data.confirmed:
        if found.difference is None:
            continue
        yield f"{text.markdown(found.label)}, fresh seeds: {_verdict(found)}"


def _verdict(found: Confirmed) -> str:
    name = text.markdown(metrics.display(found.metric))
    assert found.difference is not None
    level = f"{name} {_level(found)}"
    difference = f"{_difference(found)} against the base"
    if not found.difference.distinguishable:
        return f"{level}, {difference}: no telling"
    better = (found.difference.mean > 0) == metrics.higher_is_better(found.metric)
    return f"{level}, {difference}: **{'better' if better else 'worse'}**"


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
    difference = found.difference
    if difference is None:
        return text.DASH
    shown = _number(found.metric, difference.mean, sign=True)
    if difference.low is None or difference.high is None:
        return shown
    factor = metrics.scale(found.metric)
    ends = [
        text.number(end * factor, _DECIMALS, sign=True) for end in (difference.low, difference.high)
    ]
    return f"{shown} [{', '.join(ends)}]"


def _point_table(data: SearchData) -> str:
    shown = data.best[:6]
    rows = [
        [
            text.markdown(axis.name),
            text.markdown_code(axis.path),
            text.markdown(_range(data, axis.path)),
            text.markdown(text.plain(data.about["start"][axis.path])),
            *(f"**{text.markdown(_short(t.point[axis.path]))}**" for t in shown),
        ]
        for axis in data.axes
    ]
    return _table(["", "field", "searched", "base", *(f"trial {t.number}" for t in shown)], rows)


def _range(data: SearchData, path: str) -> str:
    space = data.about["space"][path]
    if "options" in space:
        return ", ".join(text.plain(option) for option in space["options"])
    return f"{space['low']:g} to {space['high']:g}{', log' if space['log'] else ''}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text.plain(value)


def _confirmed_table(data: SearchData) -> str:
    rows = [
        [
            text.markdown(metrics.display(found.metric)),
            text.markdown(found.label),
            _level(found),
            _difference(found),
            len(found.values),
        ]
        for found in sorted(data.confirmed, key=lambda f: _order(data, f))
    ]
    return _table(["metric", "point", "value", "difference to the base", "seeds"], rows)


def _order(data: SearchData, found: Confirmed) -> int:
    return list(dict.fromkeys(f.metric for f in data.confirmed)).index(found.metric)


# --------------------------------------------------------------------------- what was done


def _protocol(data: SearchData) -> Iterator[str]:
    about = data.about
    counts = Counter(trial.outcome.value for trial in data.trials)
    yield (
        f"{len(data.trials)} trials with seed {about['seed']}, "
        f"{', '.join(f'{n} {outcome}' for outcome, n in counts.items())}; {free(data.trials)} were "
        "free, as their runs were finished before"
    )
    yield (
        f"selected by {', '.join(about['objectives'])}; the reported split was not looked at "
        f"before the confirmation with seeds {', '.join(map(str, about['confirm']))}"
    )
    yield f"points by {about['sampler']}, each asked for as soon as a slot was free"
    if about["rungs"]:
        rungs = ", ".join(f"{rung:,}" for rung in about["rungs"])
        yield (
            f"rungs at {rungs} of {about['samples']:,} samples: the objective of the model in the "
            "midst of the schedule of the full budget (learning rate not yet low, labels not yet "
            "soft), which is not that of a run with so small a budget; it is compared with other "
            "trials at the same rung alone, and a trial that goes on was never stopped"
        )
    seconds = sum(trial.seconds for trial in data.trials)
    done = [t.seconds for t in data.trials if t.outcome is Outcome.COMPLETE and t.seconds]
    line = f"{seconds / 3600:.2f} hours of training"
    if done and seconds:
        counted = [t for t in data.trials if t.counts]
        whole = len(counted) * sum(done) / len(done)
        line += f", {seconds / whole:.0%} of what all of them would have taken to the end"
    yield line


def _trials_table(data: SearchData) -> str:
    return _table(
        [
            "trial",
            *(text.markdown(axis.name) for axis in data.axes),
            "outcome",
            "samples",
            *(text.markdown(metrics.display(goal)) for goal in data.goals),
        ],
        [_trial_row(data, trial) for trial in data.trials],
    )


def _trial_row(data: SearchData, trial: Trial) -> list[str]:
    best = {t.number for t in data.best}
    number = f"**{trial.number}**" if trial.number in best else str(trial.number)
    outcome = trial.outcome.value
    if trial.origin.value == "free":
        outcome += ", free"
    if trial.why is not None:
        outcome += f" ({trial.failure + ': ' if trial.failure else ''}{trial.why})"
    values = trial.values or [None] * len(data.goals)
    return [
        number,
        *(text.markdown(_short(trial.point[axis.path])) for axis in data.axes),
        text.markdown(outcome),
        f"{trial.samples_seen:,}",
        *(
            text.DASH if value is None else _number(goal, value)
            for goal, value in zip(data.goals, values, strict=True)
        ),
    ]
