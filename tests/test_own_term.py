"""A sweep file that defines a loss term with a parameter: one file is all it takes."""

import hashlib
import subprocess
import sys

import pytest

from harness.config import override
from harness.errors import ConfigError
from harness.files import read_json, read_jsonl
from harness.store.manifest import read_manifest
from harness.store.record import Store
from tests.conftest import write_shapes

SWEEP = '''"""Does it help to keep the pictures' embeddings apart?"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from harness.bases import SMALL
from harness.config import TERMS, Float, override
from harness.objectives.terms import RampedTerm
from harness.space import Show, Sweep, points


@TERMS.register("spread")
class Spread(RampedTerm):
    """Mean cosine between the batch's pictures, to a power that is learnt."""

    init_power: Annotated[Float, Field(gt=0)] = 1.0
    """Initial value of the power."""

    def module(self, config, towers, layout):
        return torch.nn.ParameterDict({{"power": torch.tensor(self.init_power)}})

    def loss(self, step, outputs, module):
        image = step.gather(step.image)
        return ((1 + image @ image.T) / 2).pow(module["power"]).mean()

    def log(self, progress, module):
        return {{"spread/power": float(module["power"].detach())}}


WEIGHT = "objective.spread.weight"
SWEEP = Sweep(
    base=override(SMALL, {values!r}),
    points=points({{WEIGHT: 0.0}}, {{WEIGHT: 0.5}}),
    seeds=[0],
    show=Show(x=WEIGHT, metrics=["test/mean_recall"]),
)
'''
VALUES = {
    "model.image.backbone": "test_convnext",
    "model.image.size": 32,
    "model.text.layers": 1,
    "model.text.width": 16,
    "model.text.heads": 2,
    "model.embed_dim": 8,
    "data.source": "folder",
    "train.batch_size": 8,
    "train.samples": 24,
    "train.warmup_samples": 0,
}
FIELD = "objective.spread.init_power"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The file of a finished sweep in its root, which another process ran by a worker."""
    root = tmp_path_factory.mktemp("own")
    file = root / "own.py"
    file.write_text(SWEEP.format(values={**VALUES, "data.path": str(write_shapes(root / "data"))}))
    done = command("harness.sweep", file, "--slots", 1, "runtime.log_samples=8", root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return file


def command(module, *words, root):
    line = [sys.executable, "-m", module, *map(str, words), "--root", str(root)]
    return subprocess.run(line, capture_output=True, text=True)


def test_it_has_a_key_a_provenance_and_lines_in_the_log_and_is_known_from_the_records(own, capsys):
    store = Store(own.parent)
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    off, on = read_manifest(store, "own").runs
    assert f"parts of {own} are in use" in capsys.readouterr().err

    # key: that of the settings that are on, and of no run without the term
    assert off.config.objective.identity() == {"instance": off.config.objective.instance.identity()}
    assert off.key == override(off.config, {FIELD: 3.0}).run_key
    assert len({off.key, on.key, override(on.config, {FIELD: 3.0}).run_key}) == 3
    with pytest.raises(ConfigError, match=r"objective\.spread\.init_power = 0: .*greater than 0"):
        override(on.config, {FIELD: 0})

    # provenance: the file that defines it
    paths = [store.run_dir(run.key).path for run in (off, on)]
    entries = [read_json(path / "provenance.json")["attempts"][0] for path in paths]
    assert "registered" not in entries[0]
    assert entries[1]["registered"] == {"loss term spread": {"path": str(own), "sha256": sha256}}

    # log: raw, weighted and what it tells of itself, moved by the training
    without, lines = (list(read_jsonl(path / "metrics.jsonl")) for path in paths)
    assert set(without[-1]["terms"]) == {"instance"}
    assert [line["samples_seen"] for line in lines] == [8, 16, 24]
    for line in lines:
        assert line["weighted"]["spread"] == pytest.approx(0.5 * line["terms"]["spread"])
        assert 0 < line["spread/power"] != 1.0


def test_a_record_that_wants_it_says_so_when_the_file_has_changed(own):
    assert command("harness.report", "own", root=own.parent).returncode == 0
    own.write_text(own.read_text() + "# another word\n")
    refused = command("harness.report", "own", root=own.parent)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    wants = "sweep own has loss term 'spread', which its file registered"
    assert line.startswith(f"error: {wants}: {own} has changed since")
    store = Store(own.parent)
    on, off = sorted(
        (store.run_dir(file.parent.name) for file in store.runs.glob("*/result.json")),
        key=lambda run: "registered" not in read_json(run.path / "provenance.json")["attempts"][0],
    )
    assert off.read_config().run_key == off.key  # a term that is off plays no part
    with pytest.raises(ConfigError, match=r"wants loss term 'spread', .* has changed since"):
        on.read_config()
