"""What the scripts of this folder share: works that take turns, and lines that are JSON as well."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass
class Times:
    """Seconds of a work, a number a turn."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Of both, as they go into JSON."""
        return {"cpu": statistics.median(self.cpu), "wall": statistics.median(self.wall)}

    def __str__(self) -> str:
        cpu, wall = self.medians().values()
        return f"{cpu:.3f} CPU s, {wall:.3f} s wall (median of {len(self.cpu)})"

    def ratios(self, of: Times) -> dict[str, float]:
        """How many times as long `of` took, the median over the turns."""
        return {
            what: statistics.median(a / max(b, 1e-9) for a, b in zip(theirs, own, strict=True))
            for what, theirs, own in (("cpu", of.cpu, self.cpu), ("wall", of.wall, self.wall))
        }


def in_turns(
    works: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1
) -> dict[str, Times]:
    """Each work once in each turn, one after the other; the first `warm_up` turns do not count."""
    times = {name: Times() for name in works}
    for turn in range(warm_up + turns):
        for name, work in works.items():
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            if turn >= warm_up:
                times[name].cpu.append(time.process_time() - cpu)
                times[name].wall.append(time.perf_counter() - wall)
    return times


class Sheet:
    """Lines that are printed as they are found, and written as JSON at the end if so asked."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rows: list[dict[str, Any]] = []

    def say(self, line: str, **numbers: Any) -> None:
        """Print a line; what it holds goes into JSON by name."""
        print(line, flush=True)
        self._rows.append({"line": " ".join(line.split()), **numbers})

    def compare(self, times: Mapping[str, Times], peer: str) -> None:
        """A line a work, and how many times as long the peer took as each other one."""
        for name, found in times.items():
            ratios = {} if name == peer else found.ratios(times[peer])
            told = "".join(f"; {peer} / {name} {r:.2f} in {what}" for what, r in ratios.items())
            self.say(f"{name:>12}: {found}{told}", name=name, **found.medians(), ratios=ratios)

    def __enter__(self) -> Sheet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self._rows, indent=1) + "\n", encoding="utf-8")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser that takes `--json FILE`, described by a script's first line."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="the lines as JSON too")
    return parser
