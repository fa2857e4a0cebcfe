"""Which 8-bit recipe a tower takes, found by trying each on samples that no test looks at.

Per tower, the other one staying in fp32: accuracy on the split `validation` (of training samples
where a data set has none), time of a call and size of the file.  The quickest recipe wins among
those that lose at most `MOST_LOST`; what falls to less than half of the way from chance is called
collapsed.  Everything tried goes on record.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config import VALIDATION, Evaluate, Runtime
from harness.data.dataset import DataSet, Split
from harness.errors import ConfigError, DataError, InvariantError, one_line
from harness.evaluate.deploy.encoders import DeployedModel
from harness.evaluate.deploy.quantise import ABOUT, RECIPES, Batches, quantised
from harness.evaluate.deploy.sessions import open_session, refusals, session_of
from harness.evaluate.embed import batches_of_pictures
from harness.evaluate.scoring.job import Findings, Job
from harness.evaluate.scoring.score import TestSet, applies, score, with_weights
from harness.files import write_atomic
from harness.metrics.accuracy import ACC1
from harness.metrics.recall import mean_recall_kind
from harness.models.two_tower import TwoTower

#: Share of accuracy that a recipe may lose on validation data.
MOST_LOST = 0.01
_CALIBRATION, _BATCH = 128, 16
_ROWS = 1_000
_CALLS, _ABOUT_AS_QUICK = 50, 1.05
CHOSEN, FIT, WORSE, COLLAPSED, FAILED = "chosen", "fit", "worse", "collapsed", "failed"
TOWERS = ("image", "text")


@dataclass(frozen=True)
class RecipeTrial:
    """What one recipe did to one tower.

    Attributes:
        outcome: `chosen`, `fit` but not chosen, `worse` by more than may be lost, `collapsed`, or
            `failed`, with `why` in place of numbers.
        accuracy: a share; of the metric that the record names.
        ms: least time of a call with one sample, in milliseconds.
        mb: size of the file in 10^6 bytes.
    """

    recipe: str
    about: str
    outcome: str
    accuracy: float | None = None
    ms: float | None = None
    mb: float | None = None
    why: str = ""


class RecipeSearch:
    """Tries recipes on the towers of one trained model.

    Args:
        of: the trained model, on the CPU.
        fp32: tower -> its ONNX file.
        data: where calibration and choice take their samples from.
    """

    def __init__(
        self,
        of: TwoTower,
        fp32: Mapping[str, Path],
        data: DataSet,
        settings: Evaluate,
        runtime: Runtime,
    ) -> None:
        self._of, self._fp32, self._settings, self._runtime = of, fp32, settings, runtime
        self._data, self.split = _rows_to_choose_by(data)
        self._calibration = _calibration(of, data, runtime)
        self._sessions = {t: open_session(file, runtime.threads) for t, file in fp32.items()}
        self.metric, self._reference, self._chance = self._accuracy({})

    def choose(self, tower: str, folder: Path) -> dict[str, Any]:
        """Write the best 8-bit form of a tower into `folder`; returns what was tried.

        ConfigError where every recipe fails.
        """
        made: dict[str, bytes] = {}
        tried: list[RecipeTrial] = []
        for recipe in RECIPES:
            try:
                made[recipe] = quantised(self._fp32[tower], recipe, self._calibration[tower])
                with refusals(f"{tower}.onnx in 8 bits by {recipe!r} does not run"):
                    tried.append(self._tried(tower, recipe, made[recipe]))
            except (ConfigError, InvariantError) as error:
                collapsed = isinstance(error, InvariantError)
                outcome = COLLAPSED if collapsed else FAILED
                tried.append(RecipeTrial(recipe, ABOUT[recipe], outcome, why=one_line(error)))
        best = chosen(tried)
        if best is None:
            reasons = "; ".join(f"{t.recipe}: {t.why}" for t in tried)
            raise ConfigError(f"no 8-bit recipe gives a {tower} tower that runs: {reasons}")
        write_atomic(folder / f"{tower}.onnx", made[best])
        told = [replace(t, outcome=CHOSEN) if t.recipe == best else t for t in tried]
        return {
            "chosen": best,
            "metric": self.metric,
            "split": self.split,
            "fp32": {"accuracy": self._reference, "chance": self._chance, **self._size(tower)},
            "tried": [asdict(each) for each in told],
        }

    def _tried(self, tower: str, recipe: str, data: bytes) -> RecipeTrial:
        session = session_of(data, f"{tower}.onnx", self._runtime.threads)
        ms, mb = _least_ms(session, self._calibration[tower][0][:1]), len(data) / 1e6
        _, accuracy, _ = self._accuracy({tower: session})
        outcome = judged(accuracy, self._reference, self._chance)
        return RecipeTrial(recipe, ABOUT[recipe], outcome, accuracy, ms, mb)

    def _size(self, tower: str) -> dict[str, float]:
        ms = _least_ms(self._sessions[tower], self._calibration[tower][0][:1])
        return {"ms": ms, "mb": self._fp32[tower].stat().st_size / 1e6}

    def _accuracy(self, sessions: Mapping[str, Any]) -> tuple[str, float, float]:
        """Metric, value and chance with these sessions in the place of those in fp32."""
        model = DeployedModel("onnx", self._of, **{**self._sessions, **sessions})
        job = Job(model, self._settings, self._runtime, Findings())
        tasks = [task for task in self._data.tasks if applies(task, self.split)]
        weights = with_weights(job, [(task, task.templates) for task in tasks])
        places = {f"{self.split}/{each.task.name}": each for each in weights}
        score(job, TestSet(self.split, self._data, self.split, places))
        found = job.found.metrics
        recall = f"{self.split}/{mean_recall_kind()}"
        names = [recall] if recall in found else [f"{place}/{ACC1}" for place in places]
        value, chance = (float(np.mean([found[n][w] for n in names])) for w in ("value", "chance"))
        return " + ".join(names), value, chance


def judged(accuracy: float, reference: float, chance: float) -> str:
    """What a recipe's accuracy is worth; a model at chance or below has nothing that collapses."""
    if reference > chance and accuracy - chance < (reference - chance) / 2:
        return COLLAPSED
    return FIT if accuracy >= reference - MOST_LOST else WORSE


def chosen(tried: Sequence[RecipeTrial]) -> str | None:
    """The recipe to take: the quickest that fits, of those about as quick the smallest file.

    The most accurate where none fits; None where none ran.
    """
    ran = [trial for trial in tried if trial.accuracy is not None]
    fit = [trial for trial in ran if trial.outcome == FIT]
    if not fit:
        return max(ran, key=lambda trial: float(trial.accuracy or 0)).recipe if ran else None
    quickest = min(float(trial.ms or 0) for trial in fit)
    about = [trial for trial in fit if float(trial.ms or 0) <= _ABOUT_AS_QUICK * quickest]
    return min(about, key=lambda trial: float(trial.mb or 0)).recipe


def _least_ms(session: Any, sample: np.ndarray) -> float:
    (taken,) = session.get_inputs()
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        session.run(None, {taken.name: sample})
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


# --------------------------------------------------------------------------- samples


def _rows_to_choose_by(data: DataSet) -> tuple[DataSet, str]:
    """Up to 1,000 samples of `validation`, or of `train`, as a data set; and which."""
    name = VALIDATION if VALIDATION in data.splits else "train"
    split = data.split(name)
    places = _spread(len(split), _ROWS)
    tasks = tuple(
        replace(task, labels={name: tuple(task.labels[name][place] for place in places)})
        for task in data.tasks
        if name in task.labels
    )
    few = copy.copy(data)  # of whatever class, with whatever it reads from
    object.__setattr__(few, "splits", {name: _rows(split, places)})
    object.__setattr__(few, "tasks", tasks)
    if not any(few.split(name).captions) and not few.tasks:
        raise DataError(f"split {name!r} of {data.name} has nothing to choose an 8-bit recipe by")
    return few, name


def _rows(split: Split, places: Sequence[int]) -> Split:
    return replace(
        split,
        images=tuple(split.images[place] for place in places),
        captions=tuple(split.captions[place] for place in places),
    )


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` places, evenly."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()  # type: ignore[no-any-return]


def _calibration(of: TwoTower, data: DataSet, runtime: Runtime) -> dict[str, Batches]:
    """Pictures and texts of `train` that ranges of activations are recorded over."""
    split = data.split("train")
    rows = _rows(split, _spread(len(split), _CALIBRATION))
    model = DeployedModel("onnx", of, None, None)
    batches = batches_of_pictures(model, data, rows.images, _BATCH, runtime)
    pictures = [batch.pixels.numpy() for batch in batches if batch.places]
    texts = [text for captions in rows.captions for text in captions][:_CALIBRATION]
    if not pictures or not texts:
        what = "pictures" if not pictures else "captions"
        raise DataError(f"data set {data.name}: no {what} of `train` to calibrate 8 bits by")
    tokens = torch.split(model.filled(model.tokenizer(texts)), _BATCH)
    return {"image": pictures, "text": [each.numpy() for each in tokens]}
