"""The page of a sweep's report: what was found, holes, protocol, time and runs, as a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from harness.document.text import Text, code, link, strong
from harness.report import prose
from harness.report.answers import Answer, answer
from harness.report.digest import digest, warnings
from harness.report.published import Beside
from harness.results.collect import Collection
from harness.results.findings import ReportFindings
from harness.results.numerics import Numerics
from harness.results.records import Record
from harness.results.summary import Cells
from harness.store.state import State

_OPEN = 3
"""Metrics whose results are open when the page is."""


def write_content(
    collection: Collection,
    findings: ReportFindings,
    table: Table,
    figures: Sequence[Figure],
    published: Beside,
) -> Document:
    """The page of the report on `collection`."""
    notes = [*warnings(collection, findings), *_warnings(collection)]
    runs = _table_of(collection.records, "label", "seed", "run", "state", "attempts", anchored=True)
    answers = [answer(collection, findings, metric) for metric in findings.shown]
    sections = [
        Section("Answer", tuple(map(Paragraph, digest(collection, findings)))),
        Section("Results", tuple(_details(a, place < _OPEN) for place, a in enumerate(answers))),
        Section("Table", (table, Paragraph(_ABOUT_TABLE))),
        Section("Figures", tuple(figures)),
        Section("Holes and failures", tuple(_problems(collection))),
        Section(
            "Published figures", tuple(filter(None, (published.table, Paragraph(published.note))))
        ),
        Section("Protocol", tuple(_method_and_time(collection, findings.cells))),
        Section("Runs", (runs,), on_paper=False),
        Section("Reproducing this report", (BulletList(tuple(_footer(collection))),)),
    ]
    used, asked = len(_used(collection)), len(collection.records)
    return Document(
        collection.sweep.question.strip() or collection.sweep.name,
        (*map(Note, notes), *(s for s in sections if any(s.blocks))),
        f"{collection.sweep.name} \u00b7 {used:,} of {asked:,} runs",
    )


_Line = TypeVar("_Line", bound=Text)
_ABOUT_TABLE = (
    "The same as ",
    link("LaTeX", "table.tex"),
    "; every metric recorded, in full precision, as ",
    link("CSV", "table.csv"),
    ".",
)


def _details(answer: Answer, is_open: bool) -> Details:
    """One metric: what is said of it, and a line for each point."""
    said = (Paragraph(" ".join(answer.said)),) if answer.said else ()
    blocks = (*said, BulletList(answer.items))
    return Details((strong(answer.metric), f" {answer.aside}"), blocks, is_open)


def _problems(collection: Collection) -> Iterator[Block]:
    failed = [record for record in collection.records if record.failed]
    unfinished = [r for r in collection.records if r.reason is not None and not r.failed]
    if failed:
        table = _table_of(failed, "label", "seed", "failure", "error", "log", "attempts")
        yield Section("Failed runs", (table,))
    if unfinished:
        table = _table_of(unfinished, "label", "seed", "state", "samples seen", "of")
        yield Section("Not finished", (table,))
    if not failed and not unfinished:
        yield Paragraph("None: every run is finished.")


def _method_and_time(collection: Collection, cells: Cells) -> Iterator[Block]:
    yield Paragraph(_method(collection))
    yield BulletList(tuple(_protocol(collection, cells)))
    time = _time(collection)
    if time:
        yield Section("Where the time went", (time,))


def runs_with_holes(collection: Collection) -> int:
    """How many runs miss a number that is shown."""
    shown = collection.frame[collection.frame["metric"].isin(collection.shown)]
    holes = shown[shown["value"].isna()]
    return len(holes[["point", "seed"]].drop_duplicates())


def _warnings(collection: Collection) -> Iterator[str]:
    codes = _distinct(record.code for record in _used(collection))
    if len(codes) > 1:
        yield (
            f"these numbers were made by {len(codes)} versions of the code ({', '.join(codes)}); "
            "--rerun stale repeats the older ones"
        )
    yield from Numerics.of(collection.records).warnings
    holes = runs_with_holes(collection)
    if holes:
        yield (
            f"{holes} of {len(collection.records)} runs miss a number that is shown; a cell that "
            "lacks a seed is a dash with its reason, and no mean is taken over the rest"
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
    "attempts": lambda record: attempts_of(record),
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


def attempts_of(record: Record) -> int:
    """How often the run was started, as far as its files say."""
    return max(len(record.attempts), record.status.attempt)


def _last_line(error: str | None) -> str:
    lines = [line for line in (error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


# --------------------------------------------------------------------------- protocol


def _used(collection: Collection) -> list[Record]:
    return [record for record in collection.records if record.reason is None]


def _distinct(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(text.plain(value) for value in values if value is not None))


def _listing(values: Iterable[object]) -> str:
    return ", ".join(_distinct(values)) or text.DASH


def _protocols(collection: Collection) -> list[Mapping[str, Any]]:
    """Each distinct protocol once; equal ones are one object."""
    found = {
        id(record.evaluation["protocol"]): record.evaluation["protocol"]
        for record in collection.records
        if record.evaluation
    }
    return list(found.values())


def _data_names(collection: Collection, protocols: Sequence[Mapping[str, Any]]) -> str:
    names = [protocol["data"]["name"] for protocol in protocols]
    return _listing(names or [r.run.config.data.source for r in collection.records])


def _protocol(collection: Collection, cells: Cells) -> Iterator[Text]:
    used = _used(collection)
    configs = [record.run.config for record in collection.records]
    protocols = _protocols(collection)
    yield _fact("Data", _data_names(collection, protocols))
    prints = [c.data.fingerprint[:12] for c in configs if c.data.fingerprint]
    if prints:
        yield _fact("Fingerprint of the data", _listing(prints), coded=True)
    read = [record.training.get("data", {}).get("notes", ()) for record in used]
    for note in _distinct(note for notes in read for note in notes):
        yield _fact("Note on the data", note)
    for line in _each(protocols, prose.evaluated_on):
        yield _fact("Evaluated on", line)
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
    yield _fact("Training", _training_words(collection))
    bad = [len(record.training.get("bad_samples") or []) for record in used]
    if any(bad):
        yield _fact(
            "Samples left out of training", f"{_spans(bad)} a run, listed in each result.json"
        )
    yield _fact(
        "Cost measured on", _listing((r.result or {}).get("cost", {}).get("device") for r in used)
    )
    yield _fact("Code", _listing(record.code for record in used), coded=True)
    yield _fact("Commit", _listing(map(_commit, used)), coded=True)
    span = _time_span(used)
    if span:
        yield _fact("Started", " to ".join(span))


def _fact(name: str, value: str, *, coded: bool = False) -> Text:
    """A line of the protocol; hashes are set apart, one by one."""
    if not coded or value == text.DASH:
        return f"{name}: {value}"
    hashes = [piece for part in value.split(", ") for piece in (", ", code(part))][1:]
    return (f"{name}: ", *hashes)


def _training_words(collection: Collection) -> str:
    used, configs = _used(collection), [record.run.config for record in collection.records]
    return (
        f"{_spans(c.train.samples for c in configs)} samples, "
        f"batch {_listing(c.train.batch_size for c in configs)}, "
        f"precision {_listing(r.training.get('precision') for r in used)}, "
        f"device {_listing(r.training.get('device') for r in used)}, "
        f"seeds {_listing(sorted({record.seed for record in collection.records}))}"
    )


def _each(
    protocols: Sequence[Mapping[str, Any]], say: Callable[..., Iterable[_Line]]
) -> list[_Line]:
    """What `say` says of the protocols, each line once."""
    return list(dict.fromkeys(line for protocol in protocols for line in say(protocol)))


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


def _time_span(used: Iterable[Record]) -> list[str]:
    times = sorted(str(a["time"]) for r in used for a in r.attempts if a.get("time"))
    return list(dict.fromkeys([times[0], times[-1]])) if times else []


def _method(collection: Collection) -> str:
    """Data, budget, seeds and protocol as a paper's paragraph says them."""
    protocols = _protocols(collection)
    sentences = [_extent(collection), _budget(collection, protocols)]
    lines = _each(protocols, prose.evaluated_on)
    if lines:
        sentences.append(f"Evaluation is zero-shot on {'; '.join(lines)}.")
    rules = {rule for protocol in protocols for rule in protocol.get("rules", {}).items()}
    ties = [rule for name, rule in sorted(rules) if name == "ties"]
    if ties:
        sentences.append(f"Ties are scored as {ties[0]}.")
    return " ".join(sentences)


def _extent(collection: Collection) -> str:
    seeds = sorted({len(row.seeds) for row in collection.points})
    return (
        f"{len(collection.points):,} configurations were asked for, with {_spans(seeds)} "
        f"{'seed' if seeds == [1] else 'seeds'} each; {len(_used(collection)):,} of "
        f"{len(collection.records):,} runs are in this report."
    )


def _budget(collection: Collection, protocols: Sequence[Mapping[str, Any]]) -> str:
    configs = [record.run.config for record in collection.records]
    train, image, text_tower = (
        [config.train for config in configs],
        [config.model.image for config in configs],
        [config.model.text for config in configs],
    )
    return (
        f"Every run sees {_spans(t.samples for t in train)} samples of "
        f"{_data_names(collection, protocols)} in batches of "
        f"{_spans(t.batch_size for t in train)} at {_spans(i.size for i in image)} px "
        f"(image tower {_listing(i.backbone for i in image)}, text tower of "
        f"{_spans(t.layers for t in text_tower)} layers, width "
        f"{_spans(t.width for t in text_tower)}), with a peak learning rate of "
        f"{_rates(t.lr for t in train)} after {_spans(t.warmup_samples for t in train)} samples "
        f"and weight decay {_rates(t.weight_decay for t in train)}."
    )


def _rates(values: Iterable[float]) -> str:
    ends = sorted(set(values))
    return "\u2013".join(dict.fromkeys(f"{value:g}" for value in [*ends[:1], *ends[-1:]]))


def _footer(collection: Collection) -> Iterator[str]:
    used = _used(collection)
    source = collection.sweep.source
    yield f"Sweep {collection.sweep.name}" + (
        f", file of SHA-256 {source.sha256}" if source else ""
    )
    yield f"Code {_listing(record.code for record in used)}; commit {_listing(map(_commit, used))}"
    span = _time_span(used)
    if span:
        yield f"Runs started {' to '.join(span)}"
    yield (
        "manifest.json lists every run with the SHA-256 of each file read, and of each file "
        "written; the same records give the same bytes"
    )


# --------------------------------------------------------------------------- time and runs


def _time(collection: Collection) -> Table:
    rows = []
    done: dict[int, list[Record]] = {}
    for record in _used(collection):
        done.setdefault(record.point, []).append(record)
    for row in collection.points:
        training = [record.training for record in done.get(row.index, [])]
        if training:
            rows.append(
                [
                    row.label,
                    len(training),
                    _average(training, "seconds", 1, 1),
                    _average(training, "evaluation_seconds", 1, 1),
                    _average(training, "samples_per_second", 1, 0),
                    _average(training, "data_wait", 100, 1),
                ]
            )
    heads = [
        "label", "finished runs", "training (s)", "evaluation (s)", "samples/s",
        "waiting for data (%)",
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
