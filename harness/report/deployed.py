"""The section on deployed forms: what ships, what it loses, how fast it is, how 8 bits were had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import metrics
from harness.document import text
from harness.document.blocks import Block, BulletList, Details, Note, Paragraph
from harness.document.table import Table, plain_table
from harness.report.tables import build_tables
from harness.results.collect import Collection
from harness.results.comparisons import Comparison, Verdict
from harness.results.deployed import FORM, deployed, newest_with_most
from harness.results.findings import ReportFindings, find
from harness.store.deployed import LOUD, WAITED, Sitting, read_sittings
from harness.store.record import Store


@dataclass(frozen=True)
class OnDevices:
    """The deployed forms of a sweep's runs, and what was timed of them.

    Attributes:
        forms: each point in every form.
        problems: why sittings could not be read, a line each.
    """

    forms: Collection
    findings: ReportFindings
    sitting: Sitting | None
    problems: Sequence[str]

    @property
    def inputs(self) -> dict[str, str]:
        """The sitting that was read, file -> SHA-256.  Outcomes are among the inputs of runs."""
        return {} if self.sitting is None else {self.sitting.name: self.sitting.sha256}


def on_devices(collection: Collection, store: Store) -> OnDevices | None:
    """The forms of `collection`, with what was timed below `store`; None without any."""
    sittings, problems = read_sittings(store)
    sitting = newest_with_most(collection, sittings)
    forms = deployed(collection, sitting)
    if forms is None:
        return None
    findings = find(forms)
    findings.note_inputs(forms.records)
    return OnDevices(forms, findings, sitting, problems)


def device_blocks(collection: Collection, devices: OnDevices | None) -> Iterator[Block]:
    """What is said of the forms below the heading; nothing where there are none."""
    if devices is None:
        return
    said = list(_losses(devices.forms, devices.findings))
    if said:
        yield BulletList(tuple(said))
    yield build_tables(devices.forms, devices.findings).lead
    yield Paragraph(_about(devices.sitting))
    yield from (Note(f"Timings left out: {problem}") for problem in devices.problems)
    recipes = _recipes(collection)
    if recipes is not None:
        yield Details("How the 8 bits of each tower were chosen", (recipes,))


def _losses(forms: Collection, findings: ReportFindings) -> Iterator[str]:
    """What each form costs in quality, over all points; a claim holds at every one of them."""
    answered = findings.answered[0]
    metric = answered.primary or next(iter(findings.shown), None)
    if metric is None:
        return
    by_form: dict[str, list[Comparison]] = {}
    for point, comparison in findings.comparisons(metric, range(len(forms.points))).items():
        by_form.setdefault(forms.points[point].axes[FORM], []).append(comparison)
    for form, made in by_form.items():
        known = [c for c in made if c.interval is not None]
        if known:
            yield f"{form}: {_loss(forms, metric, known, answered.margin)}"


def _loss(forms: Collection, metric: str, made: Sequence[Comparison], margin: float | None) -> str:
    scale = metrics.scale(metric) * (1 if metrics.higher_is_better(metric) else -1)
    worst = min(made, key=lambda c: min(b * scale for b in _bounds(c)))
    bound = -min(b * scale for b in _bounds(worst))
    least, most = (f(c.mean * metrics.scale(metric) for c in made) for f in (min, max))
    unit = metrics.unit_of_difference(metric)
    spread = " to ".join(dict.fromkeys(text.number(v, 1, sign=True) for v in (least, most)))
    said = (
        f"{metrics.display(metric)} differs from the model as trained by {spread} {unit}; "
        f"by the 95 % intervals it loses at most {text.number(max(0.0, bound), 1)} {unit} "
        f"({forms.points[worst.point].label})"
    )
    if margin is not None:
        within = "within" if bound <= margin else "which is beyond"
        said += f", {within} the margin of {margin:g}"
    worse = [forms.points[c.point].label for c in made if c.verdict is Verdict.WORSE]
    return f"{said}. Significantly worse: {'; '.join(worse)}." if worse else f"{said}."


def _bounds(comparison: Comparison) -> tuple[float, float]:
    assert comparison.interval is not None
    return comparison.interval[:2]


def _about(sitting: Sitting | None) -> str:
    if sitting is None:
        return (
            "Latency and memory have not been measured: python -m harness.bench latency SWEEP "
            "does so, on the machine where it is called."
        )
    machine, loads = sitting.machine, sitting.machine.get("load", [])
    loud = sum(not timing.quiet for timing in sitting.timings)
    calls = min((timing.calls for timing in sitting.timings), default=0)
    said = (
        f"Latency is the least and the median of at least {calls:,} calls with one sample by ONNX "
        f"Runtime {machine.get('onnxruntime', '')} on "
        f"{machine.get('cpu', 'an unknown processor')}, "
        f"{machine.get('threads', 1)} thread(s), all rows in turns in one sitting "
        f"({sitting.when} UTC; load {' before and '.join(f'{load:g}' for load in loads)} after); "
        "memory is what loading and running a tower adds to a process. Of one seed a point."
    )
    if loud:
        said += (
            f" {loud} of {len(sitting.timings)} timings were not measured quietly (the 90th "
            f"percentile beyond {LOUD:g} times the least, or more than {WAITED:.0%} of the time "
            "without a core) and are left out."
        )
    return said


def _recipes(collection: Collection) -> Table | None:
    """Every recipe tried on a tower of the first run of each point."""
    rows = []
    for row in collection.points:
        record = next((r for r in collection.of_point(row.index) if r.evaluation), None)
        if record is None or record.evaluation is None:
            continue
        for form, entry in record.evaluation.get("deployed", {}).items():
            for tower, told in entry.get("recipe", {}).items():
                before = told["fp32"]
                head = (row.label, f"{form}, seed {record.seed}", tower)
                rows.append([*head, "fp32", *_numbers(before), ""])
                rows += [
                    [*head, each["recipe"], *_numbers(each), each["why"] or each["outcome"]]
                    for each in told["tried"]
                ]
    heads = ["point", "form", "tower", "recipe", "accuracy (%)", "ms", "MB", "outcome"]
    return plain_table(heads, rows, numeric=heads[4:7]) if rows else None


def _numbers(told: dict[str, float | None]) -> list[str]:
    numbers = ((told["accuracy"], 100, 1), (told["ms"], 1, 3), (told["mb"], 1, 2))
    return [
        text.DASH if value is None else text.number(value * scale, decimals)
        for value, scale, decimals in numbers
    ]
