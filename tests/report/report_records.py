"""Run directories of every kind, written with the real writer and no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import Data, RunConfig, Train
from harness.config.sweep import Run, Show, Sweep, SweepFile, expand, product
from harness.metrics import KS, WAYS, mean_recall_kind, recall_kind
from harness.results.collect import Collection
from harness.store.lease import Lease
from harness.store.record import RunDir, Store, write_result_file
from harness.store.state import State

IMAGES = 200
CHANCE = {1: 0.005, 5: 0.025, 10: 0.05}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
T2I, I2T, ROLE = (
    "test/image_retrieval_recall@1",
    "test/text_retrieval_recall@1",
    "test/role/acc1",
)


def sweep_of(axes: Mapping[str, list[Any]], **show: Any) -> Sweep:
    """A sweep over the product of `axes`, three seeds, on made-up data."""
    first = next(iter(axes))
    shown = {"x": first, "metrics": [T2I, I2T], **show}
    return Sweep(
        base=RunConfig(
            data=Data(fingerprint="f00dfeed" * 8), train=Train(samples=10_000, batch_size=100)
        ),
        points=product(axes),
        seeds=range(3),
        show=Show(**shown),
        name="made_up",
        question="How shallow can it be?",
        source=SweepFile("a_sweep.py", "ab" * 32),
    )


def depth_sweep(**show: Any) -> Sweep:
    show = {"baseline": {"model.text.layers": 12}, **show}
    return sweep_of({"model.text.layers": [1, 2, 4, 8, 12]}, **show)


class Records:
    """Writes what a run leaves behind, in any state."""

    def __init__(self, root: Path, held: ExitStack) -> None:
        self.store = Store(root)
        self._held = held

    def done(
        self,
        run: Run,
        *,
        t2i: float,
        i2t: float | None = None,
        role: float | None = 0.5,
        code: str = "c0dec0dec0de",
        parameters: int = 1_000_000,
        metrics: Mapping[str, Mapping[str, Any]] | None = None,
        protocol: Mapping[str, Any] | None = None,
        points: int = 10,
    ) -> RunDir:
        """A finished run with these R@1; R@5 and R@10 follow from them."""
        directory = self._start(run)
        self.curve(directory, run, 10_000, every=10_000 // points)
        found = evaluation(t2i, t2i if i2t is None else i2t, role) | dict(metrics or {})
        directory.write_status(State.DONE, attempt=1, samples_seen=10_000)
        directory.write_result(
            {
                "code": code,
                "training": {
                    "samples_seen": 10_000,
                    "samples_asked": 10_000,
                    "steps": 100,
                    "epochs": 2.5,
                    "seconds": 20.0,
                    "evaluation_seconds": 2.0,
                    "final_loss": 1.5,
                    "samples_per_second": 500.0,
                    "data_wait": 0.125,
                    "device": "cpu",
                    "precision": "fp32",
                    "threads": 1,
                    "attempts": 1,
                    "bad_samples": [],
                },
                "checkpoint": {"file": "checkpoints/final.pt", "sha256": "00" * 32},
                "cost": {
                    "parameters": {
                        "total": parameters + 600_000,
                        "inference": parameters + 500_000,
                        "inference_without_embeddings": parameters,
                        "image": 400_000,
                        "text": parameters + 100_000,
                        "text_embeddings": 500_000,
                    },
                    "gmacs": {"image": 0.01, "text": 0.02},
                    "latency_ms": {"image_batch1": 1.5, "text_batch1": 2.5},
                    "device": "cpu of a test",
                },
                "evaluations": {
                    run.config.evaluation_key: {
                        "content_key": "e" * 12,
                        "protocol": protocol or PROTOCOL,
                        "metrics": found,
                        "outcomes": f"outcomes/{run.config.evaluation_key}.npz",
                    }
                },
            }
        )
        return directory

    def deployed(self, run: Run, forms: Mapping[str, float | str]) -> None:
        """Give a finished run deployed forms: a R@1 each, or why there is none."""
        directory, key = self.store.run_dir(run.key), run.config.evaluation_key
        result = directory.result()
        assert result is not None
        entry = result["evaluations"][key]
        entry["deployed"] = {
            form: {"hole": t2i}
            if isinstance(t2i, str)
            else {
                "content_key": "d" * 12,
                "protocol": {**entry["protocol"], "precision": form},
                "metrics": evaluation(t2i, t2i, 0.5),
                "outcomes": f"outcomes/{key}-{form}.npz",
                "files": {
                    tower: {"file": f"{tower}.onnx", "sha256": f"{run.key}{form}{tower}", "mb": mb}
                    for tower, mb in (("image", 1.5), ("text", 9.5))
                },
                "recipe": {},
            }
            for form, t2i in forms.items()
        }
        directory.write_result(result)

    def outcomes(self, run: Run, arrays: Mapping[str, np.ndarray]) -> None:
        """The per-example outcomes of a finished run."""
        folder = self.store.run_dir(run.key).outcomes
        folder.mkdir(exist_ok=True)
        np.savez_compressed(folder / f"{run.config.evaluation_key}.npz", **arrays)

    def failed(
        self, run: Run, *, failure: str = "diverged", error: str = "loss is NaN at step 41"
    ) -> RunDir:
        directory = self._start(run)
        self.curve(directory, run, 4_000)
        directory.write_status(
            State.FAILED,
            attempt=2,
            samples_seen=4_100,
            failure=failure,
            error=error,
            log=str(directory.log_file(2)),
        )
        return directory

    def interrupted(self, run: Run) -> RunDir:
        directory = self._start(run)
        self.curve(directory, run, 6_000)
        directory.write_status(State.RUNNING, attempt=1, samples_seen=6_000)
        return directory

    def running(self, run: Run) -> RunDir:
        """Held by this very process until the test ends."""
        directory = self.interrupted(run)
        self._held.enter_context(Lease(directory.lease_file))
        return directory

    def curve(self, directory: RunDir, run: Run, samples: int, every: int = 1_000) -> None:
        for seen in range(every, samples + 1, every):
            slope = int(run.key[:2], 16) / 256
            loss = 4.6 / (1 + seen / 4_000) + 0.1 * run.seed + 0.3 * slope
            directory.append_metrics(
                {"samples_seen": seen, "step": seen // 100, "loss": loss, "lr": 1e-3}
            )

    def _start(self, run: Run) -> RunDir:
        directory = self.store.run_dir(run.key)
        directory.write_intent(run.config, {"label": run.label})
        directory.add_provenance(
            {
                "time": "2026-01-02T03:04:05Z",
                "commit": COMMIT,
                "dirty": None,
                "code": "c0dec0dec0de",
            }
        )
        return directory


PROTOCOL: dict[str, Any] = {
    "metrics": {},
    "rules": {"ties": "expected hit over random order"},
    "data": {"name": "openmoji", "fingerprint": "f00dfeed" * 8},
    "precision": "fp32",
    "splits": {
        "test": {
            "images": IMAGES,
            "captioned": IMAGES,
            "captions": IMAGES,
            "excluded": [],
            "labelled": {"role": 150},
        }
    },
    "tasks": {"role": {"classnames": ["cook", "judge", "pilot"], "templates": ["a {c}"]}},
    "class_folders": {},
}


def evaluation(t2i: float, i2t: float, role: float | None) -> dict[str, dict[str, Any]]:
    """Every metric that the protocol above asks for."""
    found: dict[str, dict[str, Any]] = {}
    for shared in (False, True):
        six = []
        for way, first in zip(WAYS, (t2i, i2t), strict=True):
            for k in KS:
                six.append(min(1.0, first * {1: 1.0, 5: 1.5, 10: 2.0}[k]))
                name = f"test/{recall_kind(way, k, shared=shared)}"
                found[name] = metric(six[-1], IMAGES, CHANCE[k])
        mean = f"test/{mean_recall_kind(shared=shared)}"
        found[mean] = metric(sum(six) / 6, 2 * IMAGES, 0.03)
    found["test/role/acc1"] = metric(role, 150, 1 / 3, None if role is not None else "no labels")
    found["test/role/mean_per_class_recall"] = metric(role, 150, 1 / 3, "no labels")
    found["test/role/acc5"] = metric(None, 150, None, "3 classes are fewer than 5")
    return found


def metric(
    value: float | None, n: int, chance: float | None, reason: str | None = None
) -> dict[str, Any]:
    return {"value": value, "n": n, "chance": chance, "reason": reason}


PROTOCOL["metrics"] |= {name.rpartition("/")[2]: 1 for name in evaluation(0.1, 0.1, 0.1)}

#: depth -> R@1 of seeds 0, 1, 2: 4 layers are truly worse than 12, 8 are not distinguishable.
DEPTHS: dict[int, list[float]] = {
    1: [0.300, 0.306, 0.303],
    2: [0.352, 0.360, 0.353],
    4: [0.380, 0.386, 0.383],
    8: [0.402, 0.404, 0.390],
    12: [0.400, 0.405, 0.401],
}


def fill(records: Records, runs: list[Run], skip: tuple[tuple[int, int], ...] = ()) -> None:
    """Finish every run of the depth sweep but the (layers, seed) in `skip`."""
    for run in runs:
        layers = run.config.model.text.layers
        if (layers, run.seed) not in skip:
            value = DEPTHS[layers][run.seed]
            records.done(run, t2i=value, i2t=value + 0.01, parameters=300_000 + 200_000 * layers)


def runs_by(sweep: Sweep) -> tuple[list[Run], Callable[[Any, int], Run]]:
    """The runs, and a look-up by (value of the shown axis, seed)."""
    runs = expand(sweep)
    index = {(run.point[sweep.show.x], run.seed): run for run in runs}
    return runs, lambda value, seed: index[(value, seed)]


def frame_of(collection: Collection) -> pd.DataFrame:
    """What every record says of every metric, a row each."""
    rows = [
        {
            "point": record.point,
            "label": record.run.label,
            "seed": record.seed,
            **collection.points[record.point].axes,
            "metric": name,
            **reading._asdict(),
            "key": record.key,
            "state": record.status.state.value,
        }
        for record, own in zip(collection.records, collection.readings, strict=True)
        for name, reading in zip(collection.metrics, own, strict=True)
    ]
    return pd.DataFrame(rows)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads(file.read_text())
    change(tree)
    if file.name == "result.json":
        write_result_file(file, tree)
    else:
        file.write_text(json.dumps(tree))
