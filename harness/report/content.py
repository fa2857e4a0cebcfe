"""The page of a sweep's report: what was found, holes, protocol, time and runs, as a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from harness import metrics
from harness.document import text
from harness.document.blocks import (
    Block,
    BulletList,
    Details,
    Document,
    Figure,
    Note,
    Paragraph,
    Section,
)
from harness.document.table import Table, plain_table
from harness.document.text import Text, code, link
from harness.report import prose
from harness.report.columns import settings_by_name
from harness.report.digest import conclusions, undecided, verdicts, warnings
from harness.report.published import Beside
from harness.report.tables import Tables
from harness.report.waves import choices, looks, wave_notes
from harness.results.collect import Collection
from harness.results.findings import ReportFindings
from harness.results.numerics import Numerics
from harness.results.outcomes import DAMAGED
from harness.results.records import Record
from harness.results.run_table import PARTS_OF_A_STEP
from harness.results.summary import Cells
from harness.store.state import State

_MOST_LINES = 4
"""Verdicts, and notes, that stand before everything else; the others are behind a heading."""


@dataclass(frozen=True)
class Parts:
    """What a page is put together from."""

    tables: Tables
    figures: Sequence[Figure]
    published: Beside
    files: Sequence[str] = ()
    """Names of the files of tables beside the page."""
    deployed: Sequence[Block] = ()
    """Of the forms that ship."""


def write_content(collection: Collection, findings: ReportFindings, parts: Parts) -> Document:
    """The page of the report on `collection`: what leads it, and all else behind headings."""
    said = verdicts(collection, findings)
    notes = [*wave_notes(collection, findings), *warnings(collection, findings)]
    notes += _warnings(collection, findings)
    lead: list[Block] = [
        *map(Paragraph, said[:_MOST_LINES]),
        Paragraph(_design(collection, findings)),
        *([parts.tables.lead] if parts.tables.lead else []),
        *parts.figures[:1],
        *map(Paragraph, _joined(undecided(collection, findings))),
        *map(Note, notes[:_MOST_LINES]),
    ]
    later = [*said[_MOST_LINES:], *notes[_MOST_LINES:]]
    sections = [
        Section("Further verdicts and notes", (BulletList(tuple(later)),) if later else ()),
        Section("All metrics", tuple(_all_metrics(collection, findings, parts))),
        *(Section("Looks", tuple(looks(collection, each))) for each in findings.answered),
        Section("Nuisance parameters", tuple(choices(collection))),
        Section("Deployed forms", tuple(parts.deployed)),
        Section("Further figures", tuple(parts.figures[1:])),
        Section("Missing results", tuple(_problems(collection))),
        Section("Published figures", tuple(_published(parts.published))),
        Section("Protocol", tuple(_protocol_blocks(collection, findings.cells))),
        Section("Time", tuple(filter(None, (_time(collection),)))),
        Section("Runs", tuple(_runs(collection)), on_paper=False),
    ]
    used, asked = len(collection.used), len(collection.records)
    return Document(
        collection.sweep.question.strip() or collection.sweep.name,
        (*lead, *(s for s in sections if any(s.blocks))),
        f"{collection.sweep.name} \u00b7 {used:,} of {asked:,} runs",
    )


_Line = TypeVar("_Line", bound=Text)


def _joined(said: Sequence[str]) -> list[str]:
    """In one line where there are too many for a line each."""
    return list(said) if len(said) <= _MOST_LINES else [" ".join(said)]


def _design(collection: Collection, findings: ReportFindings) -> str:
    """`5 points x 3 seeds; 36,000 samples of openmoji a run; primary metric: mean recall`."""
    seeds = sorted({len(row.seeds) for row in collection.points})
    points = len(collection.points)
    samples = _spans(record.run.config.train.samples for record in collection.records)
    data = _data_names(collection)
    said = (
        f"Design: {points:,} {'point' if points == 1 else 'points'} x {_spans(seeds)} "
        f"{'seed' if seeds == [1] else 'seeds'}; {samples} samples of {data} a run"
    )
    for primary, margin in dict.fromkeys((a.primary, a.margin) for a in findings.answered):
        if primary is not None:
            within = "" if margin is None else f" (margin {margin:g})"
            said += f"; primary metric: {metrics.display(primary)}{within}"
    return f"{said}."


def _all_metrics(collection: Collection, findings: ReportFindings, parts: Parts) -> Iterator[Block]:
    """Sentences a metric, the table of all of them, and the files that hold the numbers."""
    yield from _list_of(conclusions(collection, findings))
    if parts.tables.every is not None:
        folded = "Every point and metric" if parts.tables.cut else "Differences, metric by metric"
        yield Details(folded, (parts.tables.every,))
    settings = settings_by_name(collection)
    if settings is not None:
        yield Details("What the names stand for", (settings,))
    if parts.tables.effects is not None:
        yield Details("Slopes, main effects and interactions", (parts.tables.effects,))
    links = [piece for name in parts.files for piece in (", ", link(name, name))]
    yield Paragraph(("Files: ", *links[1:], "."))


def _list_of(lines: Sequence[Text]) -> list[Block]:
    return [BulletList(tuple(lines))] if lines else []


def _published(published: Beside) -> Iterator[Block]:
    """Where somebody has published figures on this data, or how to add some."""
    if published.table:
        yield published.table
    yield Paragraph(published.note)


def _problems(collection: Collection) -> Iterator[Block]:
    """Tables of the runs that gave no number, if any."""
    failed = [record for record in collection.records if record.failed]
    unfinished = [r for r in collection.records if r.reason is not None and not r.failed]
    if failed:
        table = _table_of(failed, "label", "seed", "failure", "error", "log", "attempts")
        yield Section("Failed runs", (table,))
    if unfinished:
        table = _table_of(unfinished, "label", "seed", "state", "samples seen", "of")
        yield Section("Not finished", (table,))


def _protocol_blocks(collection: Collection, cells: Cells) -> Iterator[Block]:
    yield Paragraph(_method(collection))
    yield Details("Details of the protocol", (BulletList(tuple(_protocol(collection, cells))),))


def _runs(collection: Collection) -> Iterator[Block]:
    heads = ("label", "seed", "run", "state", "attempts")
    table = _table_of(collection.records, *heads, anchored=True)
    yield Details(f"{len(collection.records):,} runs", (table,))


def runs_with_holes(collection: Collection) -> int:
    """How many runs miss a number that is shown, if it is not of a loss term that is off there."""
    shown = [collection.metrics.index(name) for name in collection.shown]
    found = zip(collection.records, collection.readings, strict=True)
    lacks = {r.key for r, own in found for n in shown if own[n].reason and not own[n].off}
    return len(lacks)


def _warnings(collection: Collection, findings: ReportFindings) -> Iterator[str]:
    codes = _distinct(record.code for record in collection.used)
    if len(codes) > 1:
        yield (
            f"These numbers were made by {len(codes)} versions of the code ({', '.join(codes)}); "
            "--rerun stale repeats the older ones."
        )
    yield from Numerics.of(collection.records).warnings
    for reason, keys in findings.unread.items():
        if reason.startswith(DAMAGED):
            yield (
                f"The {reason} (runs {', '.join(keys)}; their files in outcomes/). Intervals and "
                "tests over pictures leave these runs out; --rerun all, or the file restored, "
                "brings them back."
            )
    changed = [record.key for record in collection.records if record.log_changed]
    if changed:
        yield (
            f"metrics.jsonl of runs {', '.join(changed)} is not as training left it: these runs "
            "have no curve here. The file restored brings it back."
        )
    holes = runs_with_holes(collection)
    if holes:
        yield (
            f"Results of {holes} of {len(collection.records)} runs are missing: a dash with a "
            "footnote. Means are never taken over fewer seeds."
        )


# --------------------------------------------------------------------------- what went wrong


_STATES = {State.NEW: "not started"}
#: What a table tells of a run, by heading.
_OF_RUN: Mapping[str, Callable[[Record], object]] = {
    "label": lambda record: record.run.label,
    "seed": lambda record: record.seed,
    "run": lambda record: record.key,
    "failure": lambda record: record.status.failure or "bug",
    "error": lambda record: _last_line(record.status.error),
    "log": lambda record: record.log or text.DASH,
    "attempts": lambda record: record.starts,
    "state": lambda record: _STATES.get(record.status.state, record.status.state.value),
    "samples seen": lambda record: f"{record.status.samples_seen:,}",
    "of": lambda record: f"{record.run.config.train.samples:,}",
}


def _table_of(records: Sequence[Record], *heads: str, anchored: bool = False) -> Table:
    """A row a run with what stands under these headings of `_OF_RUN`."""
    return plain_table(
        heads,
        [[_OF_RUN[head](record) for head in heads] for record in records],
        numeric={"seed", "attempts", "samples seen", "of"},
        coded={"log", "run"},
        keys=[[record.key] for record in records],
        anchored=anchored,
    )


def _last_line(error: str | None) -> str:
    lines = [line for line in (error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


# --------------------------------------------------------------------------- protocol


def _distinct(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(text.plain(value) for value in values if value is not None))


def _listing(values: Iterable[object]) -> str:
    return ", ".join(_distinct(values)) or text.DASH


def _data_names(collection: Collection) -> str:
    names = [protocol["data"]["name"] for protocol in collection.protocols]
    return _listing(names or [r.run.config.data.source for r in collection.records])


def _protocol(collection: Collection, cells: Cells) -> Iterator[Text]:
    """What the paragraph on the method does not say."""
    used = collection.used
    protocols = collection.protocols
    prints = [r.run.config.data.fingerprint for r in collection.records]
    known = [each[:12] for each in prints if each]
    if known:
        yield _fact("Fingerprint of the data", _listing(known), coded=True)
    read = [record.training.get("data", {}).get("notes", ()) for record in used]
    of_data = _distinct(note for notes in read for note in notes)
    for note in [*of_data, *_each(protocols, prose.notes)]:
        yield _fact("Note on the data", note)
    samples = {
        metrics.display(metric): _spans(
            n for row in collection.points for n in cells[(row.index, metric)].samples
        )
        for metric in collection.shown
    }
    yield _fact("Samples behind a value", ", ".join(f"{name} {n}" for name, n in samples.items()))
    yield from _each(protocols, prose.prompts)
    of_shown = partial(prose.rules, wanted=metrics.rules(collection.shown))
    for line in _each(protocols, of_shown):
        yield _fact("Scoring", line)
    yield _fact("Numerics of training", _numerics_words(collection))
    bad = [len(record.training.get("bad_samples") or []) for record in used]
    if any(bad):
        yield _fact(
            "Samples left out of training", f"{_spans(bad)} a run, listed in each result.json"
        )
    source = collection.sweep.source
    if source is not None:
        yield _fact("SHA-256 of the sweep file", source.sha256, coded=True)
    yield _fact("Code", _listing(record.code for record in used), coded=True)
    yield _fact("Commit", _listing(map(_commit, used)), coded=True)
    span = _time_span(used)
    if span:
        yield _fact("Started", " to ".join(span))
    yield (
        "manifest.json lists every run with the SHA-256 of each file read, and of each file "
        "written; the same records give the same bytes"
    )


def _fact(name: str, value: str, *, coded: bool = False) -> Text:
    """A line of the protocol; hashes are set apart, one by one."""
    if not coded or value == text.DASH:
        return f"{name}: {value}"
    hashes = [piece for part in value.split(", ") for piece in (", ", code(part))][1:]
    return (f"{name}: ", *hashes)


def _numerics_words(collection: Collection) -> str:
    used = collection.used
    return (
        f"precision {_listing(r.training.get('precision') for r in used)}, "
        f"device {_listing(r.training.get('device') for r in used)}, "
        f"seeds {_listing(sorted({record.seed for record in collection.records}))}"
    )


def _each(
    protocols: Sequence[Mapping[str, Any]], say: Callable[..., Iterable[_Line]]
) -> list[_Line]:
    """What `say` says of the protocols, each line once."""
    return list(dict.fromkeys(line for protocol in protocols for line in say(protocol)))


def _spans(values: Iterable[float], form: str = ",") -> str:
    """One number, or the least and the greatest of several."""
    known = sorted(set(values))
    ends = dict.fromkeys(f"{value:{form}}" for value in [*known[:1], *known[-1:]])
    return "\u2013".join(ends) or text.DASH


def _commit(record: Record) -> str | None:
    if not record.attempts:
        return None
    last = record.attempts[-1]
    if last.get("commit") is None:
        return "no commit known"
    dirty = f" with uncommitted changes {last['dirty']}" if last.get("dirty") else ""
    return f"{str(last['commit'])[:12]}{dirty}"


def _time_span(used: Iterable[Record]) -> list[str]:
    times = sorted(str(a["time"]) for r in used for a in r.attempts if a.get("time"))
    return list(dict.fromkeys([times[0], times[-1]])) if times else []


def _method(collection: Collection) -> str:
    """Data, budget and protocol as a paper's paragraph says them."""
    sentences = [_budget(collection)]
    lines = _each(collection.protocols, prose.evaluated_on)
    if lines:
        sentences.append(f"Evaluation is zero-shot on {'; '.join(lines)}.")
    return " ".join(sentences)


def _budget(collection: Collection) -> str:
    configs = [record.run.config for record in collection.records]
    train, image, text_tower = (
        [config.train for config in configs],
        [config.model.image for config in configs],
        [config.model.text for config in configs],
    )
    return (
        f"Every run sees {_spans(t.samples for t in train)} samples of "
        f"{_data_names(collection)} in batches of "
        f"{_spans(t.batch_size for t in train)} at {_spans(i.size for i in image)} px "
        f"(image tower {_listing(i.backbone for i in image)}, text tower of "
        f"{_spans(t.layers for t in text_tower)} layers, width "
        f"{_spans(t.width for t in text_tower)}), with a peak learning rate of "
        f"{_spans((t.lr for t in train), 'g')} after {_spans(t.warmup_samples for t in train)} "
        f"samples and weight decay {_spans((t.weight_decay for t in train), 'g')}."
    )


# --------------------------------------------------------------------------- time and runs


def _time(collection: Collection) -> Table:
    """A row a point; the parts of a step where a clock saw them."""
    rows = []
    done: dict[int, list[Record]] = {}
    for record in collection.used:
        done.setdefault(record.point, []).append(record)
    seen = {part for r in collection.used for part in r.training.get("parts") or ()}
    known = [part for part in PARTS_OF_A_STEP if part in seen]
    for row in collection.points:
        training = [record.training for record in done.get(row.index, [])]
        if training:
            of_steps = [each.get("parts") or {} for each in training]
            rows.append(
                [
                    row.label,
                    len(training),
                    _average(training, "seconds", 1, 1),
                    *(_average(of_steps, part, 1, 1) for part in known),
                    _average(training, "evaluation_seconds", 1, 1),
                    _average(training, "samples_per_second", 1, 0),
                    _average(training, "data_wait", 100, 1),
                ]
            )
    heads = [
        "label", "finished runs", "training (s)", *(f"{part} (s)" for part in known),
        "evaluation (s)", "samples/s", "waiting for data (%)",
    ]  # fmt: skip
    keys = [[r.key for r in done[row.index]] for row in collection.points if row.index in done]
    return plain_table(heads, rows, numeric=heads[1:], keys=keys)


def _average(done: Sequence[Mapping[str, Any]], name: str, scale: float, decimals: int) -> str:
    """Mean over the finished runs, whose number stands beside it."""
    values = [training.get(name) for training in done]
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values):
        return text.DASH
    return text.number(scale * sum(known) / len(known), decimals)
