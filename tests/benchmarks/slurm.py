"""What submitting, looking and waiting cost on a cluster; wants a SLURM (SLURM_CONF) to ask.

    python tests/benchmarks/slurm.py [--runs 1000] [--memory 2G]

Prints the sbatch calls and the driver's CPU seconds of a submission, the seconds of a look at its
status, how often a waiting command asks the scheduler, and the seconds from the submission of one
run to its first step, beside those of a bare sbatch of a script that trains the same run.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from turns import Sheet, parser_of

from harness.launch.slurm.scheduler import POLL_SECONDS

SWEEP = '''"""Does it matter?"""

from harness.bases import SMALL
from harness.config import override
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {"model.image.size": 32, "train.samples": 2_560, "train.batch_size": 64}),
    points=product({"train.lr": [0.001 + i * 1e-6 for i in range(COUNT)]}),
    seeds=[0],
    show=Show(x="train.lr", metrics=["test/mean_recall"]),
)
'''
COUNTING = '#!/bin/sh\necho x >> "{log}"\nexec "{sbatch}" "$@"\n'


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--memory", default="2G", help="of a job")
    args = parser.parse_args()
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        sys.exit("no sbatch on the PATH; start a cluster first (tests/slurm/)")
    written = args.json and args.json.absolute()
    with tempfile.TemporaryDirectory(prefix="slurm-bench-", dir=Path.home()) as folder:
        os.chdir(folder)
        log = Path("sbatch-calls")
        shim = Path("bin/sbatch")
        shim.parent.mkdir()
        shim.write_text(COUNTING.format(log=log.absolute(), sbatch=sbatch))
        shim.chmod(0o755)
        os.environ["PATH"] = f"{shim.parent.absolute()}{os.pathsep}{os.environ['PATH']}"
        Path("pyproject.toml").write_text(
            f'[tool.harness.profiles.default]\nmemory = "{args.memory}"\ntime = 30\n'
        )
        with Sheet(written) as sheet:
            submission(args.runs, log, sheet)
            to_first_step(sheet)


def submission(count: int, log: Path, sheet: Sheet) -> None:
    """A sweep of `count` runs: submitted, looked at, submitted again, called off."""
    Path("wide.py").write_text(SWEEP.replace("COUNT", str(count)))
    seconds, cpu = timed("harness.sweep", "wide.py", "--executor", "slurm")
    calls = len(log.read_text().split())
    told = f"submit {count} runs: {calls} sbatch calls, {cpu:.2f} CPU s, {seconds:.2f} s wall"
    sheet.say(told, calls=calls, cpu=cpu, wall=seconds)
    seconds, cpu = timed("harness.status", "wide")
    told = f"status of {count} runs: {cpu:.2f} CPU s, {seconds:.2f} s wall"
    sheet.say(told, cpu=cpu, wall=seconds)
    seconds, cpu = timed("harness.sweep", "wide.py", "--executor", "slurm")
    again = len(log.read_text().split()) - calls
    told = f"the same command again: {again} sbatch calls, {cpu:.2f} CPU s, {seconds:.2f} s wall"
    sheet.say(told, calls=again, cpu=cpu, wall=seconds)
    seconds, cpu = timed("harness.status", "wide", "--cancel", "--all")
    told = f"call {count} runs off: {cpu:.2f} CPU s, {seconds:.2f} s wall"
    sheet.say(told, cpu=cpu, wall=seconds)
    sheet.say(f"a waiting command asks the scheduler every {POLL_SECONDS:.0f} s")


def timed(module: str, *words: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command and of what it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{module} {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def to_first_step(sheet: Sheet) -> None:
    """One run, submitted by the harness and by hand, one after the other, three times."""
    Path("one.py").write_text(SWEEP.replace("COUNT", "1"))
    ours, bare = [], []
    for number in range(3):
        ours.append(by_harness(Path(f"ours-{number}")))
        bare.append(by_hand(Path(f"bare-{number}")))
    sheet.say(
        f"submission to first step: {sorted(ours)[1]:.1f} s, bare sbatch {sorted(bare)[1]:.1f} s "
        f"(all: {', '.join(f'{t:.1f}' for t in ours)}; {', '.join(f'{t:.1f}' for t in bare)})"
    )


def by_harness(root: Path) -> float:
    began = time.monotonic()
    command = ["-m", "harness.sweep", "one.py", "--executor", "slurm", "--root", str(root)]
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    return first_step(root, began)


def by_hand(root: Path) -> float:
    command = f"{sys.executable} -m harness.sweep one.py --executor inline --root {root}"
    began = time.monotonic()
    words = ["sbatch", "--mem=2G", "--time=30", f"--wrap={command}"]
    subprocess.run(words, capture_output=True, check=True)
    return first_step(root, began)


def first_step(root: Path, began: float) -> float:
    """Seconds until the run trains; then waits for the run's end, so that the next has room."""
    first = None
    while True:
        for file in root.glob("results/runs/*/status.json"):
            status = json.loads(file.read_text())
            if first is None and status.get("samples_seen"):
                first = time.monotonic() - began
            if status["state"] != "running":
                return first if first is not None else time.monotonic() - began
        if time.monotonic() - began > 600:
            logs = "".join(f.read_text() for f in root.glob("results/sweeps/*/*/logs/*.out"))
            sys.exit(f"{root}: no step in ten minutes\n{re.sub('^', '  ', logs)}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
