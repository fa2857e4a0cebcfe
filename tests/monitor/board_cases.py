"""Four runs on file, and a board that shows them on a socket of this machine."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import RunConfig, override
from harness.config.sweep import Run, Show, Sweep, product
from harness.store.lease import Lease
from harness.store.record import RunDir, Store
from harness.store.state import State

LAYERS = "model.text.layers"
EVIL = "<img src=x onerror=\"document.title='taken'\">"
QUESTION = "How deep? <script>document.title='taken'</script>"
ERROR = "KeyError: '<b>bold</b>'"
LOG = "first line\n\x1b[31mred\x1b[0m <script>document.title='taken'</script>\n"

SWEEP = Sweep(
    base=override(RunConfig(), {"train.samples": 1000}),
    points=product({LAYERS: [1, 2, 3, 4]}),
    seeds=[0],
    show=Show(x=LAYERS, metrics=["test/mean_recall"], names={EVIL: {LAYERS: 1}}),
    name="depth",
    question=QUESTION,
)


@dataclass
class Root:
    """The root and its runs."""

    path: Path
    runs: list[Run]

    @property
    def store(self) -> Store:
        return Store(self.path)

    @property
    def done(self) -> Run:
        return self.runs[0]

    @property
    def going_on(self) -> Run:
        return self.runs[1]

    @property
    def failed(self) -> Run:
        return self.runs[2]

    def directory(self, run: Run) -> RunDir:
        return self.store.run_dir(run.key)

    def lease(self, run: Run) -> Lease:
        self.directory(run).path.mkdir(parents=True)
        return Lease(self.directory(run).lease_file)

    def fill(self) -> None:
        for run in self.runs[:3]:
            self.directory(run).write_intent(run.config, {"label": run.label})
            self.directory(run).add_provenance({"host": "n3", "device": "cpu", "threads": 2})
        for samples in range(100, 600, 100):
            self.grow(samples)
        self.print(LOG)
        self.directory(self.failed).write_status(
            State.FAILED, failure="bug", error=ERROR, attempt=1, trace="Traceback\n" + ERROR
        )
        metrics = {
            "test/mean_recall": {"value": 0.25, "n": 40, "chance": 0.01},
            "test/colour/acc5": {"value": None, "n": 40, "chance": None, "reason": "3 classes"},
        }
        self.directory(self.done).write_result(
            {
                "code": "",
                "training": {"samples_seen": 1000, "seconds": 36.0, "threads": 2, "device": "cpu"},
                "cost": {"parameters": {"inference": 1000}},
                "checkpoint": {"sha256": "0" * 64},
                "evaluations": {self.done.config.evaluation_key: {"metrics": metrics}},
            }
        )

    def grow(self, samples: int) -> None:
        """Another line in the training log of the run that goes on, and its state."""
        directory, loss = self.directory(self.going_on), 2.0 - samples / 1000
        line = {"samples_seen": samples, "step": samples // 10, "loss": loss, "lr": 0.1}
        line |= {"terms": {"instance": loss / 2, "mlm": None}, "device": "cpu"}
        with directory.metrics_file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        told = {"samples_seen": samples, "samples_per_second": 50.0, "eta_seconds": 10.0}
        directory.write_status(State.RUNNING, attempt=1, phase="train", loss=loss, **told)

    def print(self, text: str) -> None:
        """More that the run that goes on prints."""
        file = self.directory(self.going_on).log_file(1)
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as log:
            log.write(text)

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file with its length and the time of its last change."""
        found = [file for file in self.path.rglob("*") if file.is_file()]
        stats = {str(file): file.stat() for file in found}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A board at work."""

    port: int
    pid: int
    token: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> str:
        """The address of a page for a browser that was not there before."""
        return f"{self.address}{path}?token={self.token}"

    def ask(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path just as it is written here, as a browser that was let in."""
        headers.setdefault("cookie", f"harness-board-{self.port}={self.token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        host = headers.pop("host", f"127.0.0.1:{self.port}")
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            found = connection.getresponse()
            told = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, told, found.read())
        finally:
            connection.close()


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """`python -m harness.board` on a port that was free, until the end of the context."""
    words = [sys.executable, "-m", "harness.board", "--root", str(root)]
    words += ["--port", "0", *(["--yes"] if os.geteuid() == 0 else [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as board:
        try:
            assert board.stdout is not None
            line = board.stdout.readline()
            address = line.partition("http://127.0.0.1:")[2]
            assert address, f"the board did not begin: {line!r}"
            port, _, token = address.split()[0].partition("/?token=")
            yield Served(int(port), board.pid, token)
        finally:
            board.terminate()
