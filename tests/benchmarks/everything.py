"""All benchmarks of this folder that want nothing but this machine, in one table.

    python tests/benchmarks/everything.py [--out FILE.md] [--json FILE] [--only WORD ...]

Each takes its turns in a process of its own, one after the other; the table has what it printed,
its CPU and wall seconds, the machine, the versions and the date.  Under 15 minutes on two free
cores; one that fails, or takes longer than its limit, is a row that says so beside what it had
printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.store.provenance import versions

HERE = Path(__file__).parent
FAST = ("--fused", "--unpadded")
STEPS_OF = ("objectives.py", "--batch", "32", "--only")


class Benchmark(NamedTuple):
    """A script of this folder with its arguments."""

    what: str
    words: tuple[str, ...]


BENCHMARKS = (
    Benchmark("step, fp32", ("train_step.py", "--steps", "5")),
    Benchmark("step, fp32, fast", ("train_step.py", "--steps", "5", *FAST)),
    Benchmark("step, bf16, fast", ("train_step.py", "--steps", "5", "--precision", "bf16", *FAST)),
    Benchmark(
        "step, 12 layers, 64 px",
        ("train_step.py", "--steps", "3", "--layers", "12", "--size", "64", *FAST),
    ),
    Benchmark("objectives", (*STEPS_OF, "token", "token, 8 pictures", "mlm", "lightclip")),
    Benchmark("rivals", (*STEPS_OF, "sigmoid", "grouped", "late", "nearest", "views, one more")),
    Benchmark("teachers", (*STEPS_OF, "taught, live", "taught, stored")),
    Benchmark("pictures", ("data.py", "--photos", "192", "--turns", "2")),
    Benchmark("retrieval", ("evaluate.py", "retrieval")),
    Benchmark("zero-shot", ("evaluate.py", "zeroshot", "--turns", "3")),
    Benchmark("class prompts", ("evaluate.py", "texts", "--classes", "25")),
    Benchmark("matching", ("matching.py", "--pairs", "256")),
    Benchmark("report", ("report.py", "--runs", "100", "1000")),
    Benchmark("search", ("search.py", "overhead", "--trials", "200")),
    Benchmark("verdicts", ("statistics.py", "--sweeps", "50", "--jobs", "1", "--only", "a hole")),
)
"""SLURM, a GPU, whole studies and data sets from elsewhere want scripts of their own."""


class Row(NamedTuple):
    """What a benchmark gave."""

    what: str
    command: str
    lines: list[str]
    cpu_seconds: float
    wall_seconds: float
    failed: bool


def measured(benchmark: Benchmark, limit: float) -> Row:
    """The benchmark in a process of its own, with one thread, for at most `limit` seconds."""
    words = [sys.executable, str(HERE / benchmark.words[0]), *benchmark.words[1:]]
    paths = [str(HERE.parents[1]), str(HERE.parent / "search")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    before, began = _cpu(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        with out.open("wb") as to, errors.open("wb") as err:
            child = subprocess.Popen(words, stdout=to, stderr=err, env=env, start_new_session=True)
            failure = _failure(child, limit)
        shown = [" ".join(line.split()) for line in out.read_text().splitlines() if line.strip()]
        if failure:
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            shown.append(": ".join(["failed", failure, *last]))
    return Row(
        benchmark.what,
        shlex.join(benchmark.words),
        shown,
        _cpu() - before,
        time.monotonic() - began,
        bool(failure),
    )


def _failure(child: subprocess.Popen[bytes], limit: float) -> str:
    """How a process failed, "" if it did not; one that takes too long ends with all it started."""
    try:
        code = child.wait(limit)
        return f"exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        return f"took longer than {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine() -> str:
    """Processor, cores and load: what else the machine had to do."""
    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        named = [line for line in about.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def table(rows: list[Row], head: str) -> str:
    """Markdown: the head, and a row a benchmark."""
    body = [
        f"| {row.what} | {'<br>'.join(row.lines).replace('|', '/')} | "
        f"{row.cpu_seconds:.0f}, {row.wall_seconds:.0f} s | `{row.command}` |"
        for row in rows
    ]
    titles = ["| what | figures | CPU, wall | script |", "|---|---|---|---|"]
    return "\n".join([head, "", *titles, *body, ""])


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="where the table goes as well")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of one of them")
    parser.add_argument("--only", nargs="+", default=[""], help="names that hold one of the words")
    given = parser.parse_args()
    chosen = [b for b in BENCHMARKS if any(word in b.what for word in given.only)]
    if not chosen:
        parser.error(f"none of {', '.join(b.what for b in BENCHMARKS)} holds {given.only}")
    here = {name: version for name, version in versions().items() if version != "absent"}
    about = {"machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    rows = []
    for benchmark in chosen:
        print(f"{benchmark.what} ...", file=sys.stderr, flush=True)
        rows.append(measured(benchmark, given.limit))
    head = "; ".join([*about.values(), ", ".join(f"{k} {v}" for k, v in here.items())])
    text = table(rows, head)
    print(text)
    if given.out is not None:
        given.out.write_text(text)
    if given.json is not None:
        found = {**about, "versions": here, "benchmarks": [row._asdict() for row in rows]}
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
