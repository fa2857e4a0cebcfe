"""Do runs that are disturbed end with the bits of runs that are not?

Twelve tiny runs over pictures whose reading can be slowed down from outside, so that a test finds
a run at work when it wants to do something to it.  How is said in files of the folder `control`
beside the data, which change no bit of a run:

    pace.<n>    seconds that every picture of run n takes
    hold.<n>    pictures after which a process at run n waits until this file is gone
    eat.<n>     megabytes that run n takes on top

In the folder `trace` every process that reads pictures in a job leaves a file with the time of its
first reading, and touches it at every other one.  A run is known to its data by `data.resolution`,
which changes nothing about pictures that are no drawings: run n has 8 + n.
"""

import os
import time
from dataclasses import fields
from pathlib import Path

from harness.config import RunConfig, override
from harness.config.sweep import Show, Sweep, zipped
from harness.data.catalog import SOURCES
from harness.data.sources.folder import PictureFolder, open_folder

RUNS = 12
FIRST = 8
_eaten: list[bytearray] = []
_read: list[str] = []


class PacedFolder(PictureFolder):
    """A folder that is read as fast as it is told to be."""

    def read(self, image: str) -> bytes:
        if "SLURM_JOB_ID" in os.environ:
            self._leave_trace()
            self._eat()
            time.sleep(self._told("pace") or 0.0)
            _read.append(image)
            while (most := self._told("hold")) is not None and len(_read) > most:
                time.sleep(0.1)
                self._leave_trace()
        return super().read(image)

    @property
    def number(self) -> int:
        return int(self.name.rpartition("-")[2])

    @property
    def _place(self) -> Path:
        return self.files.root.parent

    def _told(self, what: str) -> float | None:
        try:
            return float((self._place / "control" / f"{what}.{self.number}").read_text())
        except FileNotFoundError:
            return None

    def _leave_trace(self) -> None:
        job, restarts = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")
        file = self._place / "trace" / f"{self.number}.{job}.{restarts}.{os.getpid()}"
        if file.exists():
            os.utime(file)
        else:
            file.write_text(str(time.time()))

    def _eat(self) -> None:
        megabytes = self._told("eat")
        if megabytes is not None and not _eaten:
            _eaten.append(bytearray(int(megabytes) << 20))
            _eaten[0][::4096] = b"x" * len(range(0, len(_eaten[0]), 4096))


@SOURCES.register("paced")
def paced(data, cache):
    """The folder `data.path`, for the run that `data.resolution` stands for."""
    found = open_folder(data.path)
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    return PacedFolder(**{**values, "name": f"paced-{data.resolution - FIRST}"})


SWEEP = Sweep(
    base=override(
        RunConfig(),
        {
            "model.image.backbone": "test_convnext",
            "model.image.size": 32,
            "model.text.layers": 1,
            "model.text.width": 16,
            "model.text.heads": 2,
            "model.text.context_length": 16,
            "model.text.vocabulary": "corpus",
            "model.embed_dim": 8,
            "data.source": "paced",
            "train.samples": 240,
            "train.batch_size": 8,
        },
    ),
    points=zipped(
        {
            "data.resolution": range(FIRST, FIRST + RUNS),
            "train.lr": [1e-3 * (1 + n) for n in range(RUNS)],
        }
    ),
    seeds=[0],
    show=Show(
        x="train.lr",
        metrics=["test/mean_recall"],
        baseline={"data.resolution": FIRST},
    ),
)
