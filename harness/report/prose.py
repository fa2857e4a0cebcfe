"""What a protocol says of an evaluation, in the same words on a report and on a model's card."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from harness.document.text import Text, code

_FEW = 3
"""Templates that are all shown; of more, as many stand for the rest."""


def evaluated_on(protocol: Mapping[str, Any]) -> Iterator[str]:
    """A line a split and a class folder: its pictures, captions and labels."""
    for split, facts in protocol["splits"].items():
        parts = [f"{facts['images']:,} images", f"{facts['captions']:,} captions"]
        parts += [f"{n:,} labelled with {task}" for task, n in facts["labelled"].items()]
        if facts.get("excluded"):
            parts.append(f"{len(facts['excluded']):,} images left out as unusable")
        yield f"split {split}: {', '.join(parts)}"
    for folder, facts in protocol["class_folders"].items():
        yield f"class folder {folder}: {facts['images']:,} images"


def notes(protocol: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of each class folder, a line each: its task, names, oddities."""
    for folder, facts in protocol["class_folders"].items():
        yield from (f"{folder}: {note}" for note in facts.get("notes", ()))


def prompts(protocol: Mapping[str, Any]) -> Iterator[Text]:
    """A line a zero-shot task: its classes and the templates of its prompts."""
    for name, task in {**protocol.get("tasks", {}), **protocol["class_folders"]}.items():
        if "templates" in task and "classnames" in task:
            shown = task["templates"][:_FEW]
            listed = [piece for each in shown for piece in (", ", code(each))][1:]
            more = len(task["templates"]) - len(shown)
            rest = (f" and {more} more",) if more else ()
            yield (f"{name}: {len(task['classnames'])} classes, prompts ", *listed, *rest)


def rules(protocol: Mapping[str, Any], wanted: Container[str] | None = None) -> Iterator[str]:
    """A line a rule of scoring, of those `wanted` or of all."""
    for name, rule in sorted(protocol.get("rules", {}).items()):
        if wanted is None or name in wanted:
            yield f"{name.replace('_', ' ')}: {rule}"
