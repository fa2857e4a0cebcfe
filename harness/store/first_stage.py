"""Records of the first stage (schema 1), read as those of today are.

In them a recall without more counted any picture that owns the identical caption, and the rule of
today was called strict:

    X_recall@k            is  X_recall_shared@k
    strict/X_recall@k     is  X_recall@k
    mean_recall           is  mean_recall_shared; the mean of the strict six is taken here

Every number is on record, and nothing is evaluated again.  Torch-free; writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from harness import metrics

SCHEMA = 1
NAMES = 2
"""By which files without a schema of their own say that their metrics have the names of today."""
_STRICT = "strict/"
_SHARED_NOW = {
    metrics.mean_recall_kind(): metrics.mean_recall_kind(shared=True),
    **{
        metrics.recall_kind(way, k): metrics.recall_kind(way, k, shared=True)
        for way in metrics.WAYS
        for k in metrics.KS
    },
}
_T = TypeVar("_T")


def result(written: Mapping[str, Any]) -> dict[str, Any]:
    """A result of schema 1, or a record of an outside model, with its evaluations as of today."""
    return {
        **written,
        "evaluations": {key: entry(each) for key, each in written["evaluations"].items()},
    }


def entry(written: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation; what an edited one lacks is left for the invariants to tell."""
    protocol, found = written.get("protocol", {}), written.get("metrics", {})
    sections = protocol.get("benchmarks", {})
    holes = {n for facts in sections.values() if "hole" in facts for n in facts["metric"]}
    read = values({name: metric for name, metric in found.items() if name not in holes})
    read |= {name: found[name] for name in holes if name in found}
    _add_means(read)
    for suite, names in protocol.get("suites", {}).items():
        judged = [sections.get(name, {"hole": ""}) for name in names]
        if not any("hole" in facts for facts in judged):
            _add_suite(read, metrics.suite_mean_name(suite), [f["metric"] for f in judged])
    means = {metrics.suite_mean_name(suite) for suite in protocol.get("suites", {})}
    kinds = {name.rpartition("/")[2] for name in read.keys() - holes - means}
    now = {"metrics": dict.fromkeys(sorted(kinds), 1), "rules": metrics.rules()}
    return {
        **written,
        "metrics": {name: {**metric, **_description(name)} for name, metric in read.items()},
        "protocol": {**protocol, **now},
    }


def _description(name: str) -> dict[str, Any]:
    """What a record says of a metric, of its first version."""
    found = metrics.described(name)
    return {} if found is None else {**found.plain(), "version": 1}


def progress(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of progress.jsonl, which says so if its names are those of today."""
    if "names" in line or not line.get("metrics"):
        return {name: value for name, value in line.items() if name != "names"}
    return {**line, "metrics": values(line["metrics"])}


def values(found: Mapping[str, _T]) -> dict[str, _T]:
    """What is told of each metric, by the names of today."""
    return {name_of(name): value for name, value in found.items()}


def name_of(name: str) -> str:
    """What a metric is called today; other names are as they were."""
    place, slash, kind = name.rpartition("/")
    if f"{place}/".endswith(_STRICT):
        return f"{place.removesuffix(_STRICT[:-1])}{kind}"
    return f"{place}{slash}{_SHARED_NOW.get(kind, kind)}"


def array_names(kept: Collection[str]) -> dict[str, str]:
    """Name of today -> name in the file, of per-example outcomes that lie in one .npz.

    A file of the first stage is known by the arrays that it calls strict.
    """
    if not any(f"/{_STRICT}" in name for name in kept):
        return {name: name for name in kept}
    return {name_of(name): name for name in kept}


def _add_means(found: dict[str, Any]) -> None:
    """Means of the recalls by the rule of today, where the six are there."""
    own, shared = (metrics.METRICS.get(metrics.mean_recall_kind(shared=s)) for s in (False, True))
    for place in [n.rpartition("/")[0] for n in found if n.endswith(f"/{shared.kind}")]:
        six = [found[name] for part in own.parts if (name := f"{place}/{part}") in found]
        if len(six) == len(own.parts):
            found[f"{place}/{own.kind}"] = {**found[f"{place}/{shared.kind}"], **_mean(six)}


def _add_suite(found: dict[str, Any], name: str, judged: Iterable[Collection[str]]) -> None:
    """The mean of a suite whose retrieval is judged by the rule of today."""
    means = [_mean([found[n] for n in names]) for names in judged]
    found[name] = {**found[name], **_mean(means)}


def _mean(parts: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """Value and chance; None where one of the parts has none."""
    return {
        what: None
        if any(part[what] is None for part in parts)
        else sum(part[what] for part in parts) / len(parts)
        for what in ("value", "chance")
    }
