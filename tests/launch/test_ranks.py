"""Processes that help a run, started for real: the run survives their death."""

import subprocess
import sys

import pytest

from harness.config import Runtime
from harness.errors import RankLost
from harness.files import read_jsonl
from harness.finished import load_finished
from harness.launch.ranks import Spawned
from harness.models.training import TrainingModel
from harness.run import execute
from harness.store.record import Store
from harness.store.state import State
from tests.conftest import tiny_run, with_fingerprints

TOGETHER = Runtime(processes=2, log_samples=16, checkpoint_seconds=1e-6)


@pytest.fixture
def config(shapes_folder):
    values = {"model.image.backbone": "test_resnet", "train.samples": 64, "train.eps": 1e-3}
    return with_fingerprints(tiny_run(shapes_folder, **values), TOGETHER)


@pytest.fixture
def others(monkeypatch):
    monkeypatch.setattr("harness.launch.ranks.GRACE_SECONDS", 250.0)  # or it ends these tests
    made = Spawned(None)
    yield made
    made.dismiss()


def test_a_killed_process_ends_the_run_on_record_and_a_second_call_finishes_it(
    tmp_path, config, others
):
    directory = Store(tmp_path).run_dir(config.run_key)
    log = directory.log_file(1)
    asked = []

    def kill_at_the_third_step():
        asked.append(None)
        if len(asked) == 4:
            others._children[0].kill()
            others._children[0].wait()
        return False

    company = others.of(config, TOGETHER, log)
    with pytest.raises(RankLost):
        execute(config, tmp_path, TOGETHER, label="x", stop=kill_at_the_third_step, company=company)
    status = directory.status(config.evaluation_key)
    assert (status.state, status.failure) == (State.FAILED, "killed")
    assert not directory.lease_file.exists()

    company = others.of(config, TOGETHER, log)
    execute(config, tmp_path, TOGETHER, label="x", company=company)
    assert directory.status(config.evaluation_key).state is State.DONE
    seen = [line["samples_seen"] for line in read_jsonl(directory.metrics_file)]
    assert seen == [16, 32, 48, 64]
    training = directory.result()["training"]
    assert (training["processes"], training["attempts"]) == (2, 2)

    alone = Runtime(log_samples=16)
    execute(config, tmp_path / "alone", alone, label="x")
    expected = load_finished(Store(tmp_path / "alone").run_dir(config.run_key)).state_dict()
    start = TrainingModel(config, expected["model.token_rows"].numpy()).state_dict()
    found = load_finished(directory).state_dict()
    for name in ("model.image.projection.weight", "model.text.text_projection"):
        travelled = (expected[name] - start[name]).norm()
        assert (found[name] - expected[name]).norm() < 0.02 * travelled, name


def test_a_process_that_cannot_start_ends_the_run_at_once(tmp_path, config):
    others = Spawned(tmp_path / "nowhere.py")
    company = others.of(config, TOGETHER, tmp_path / "log.txt")
    with pytest.raises(RankLost, match=r"rank 1 ended: exit code 1"):
        execute(config, tmp_path, TOGETHER, label="x", company=company)
    status = Store(tmp_path).run_dir(config.run_key).status(config.evaluation_key)
    assert status.failure == "killed"


def test_a_run_by_itself_asks_for_nobody_and_waits_for_no_torch():
    code = """
import sys
from pathlib import Path
from harness.config import RunConfig, Runtime
from harness.launch.ranks import Spawned
others = Spawned(None)
others.of(RunConfig(), Runtime(), Path("log.txt"))
print("torch" in sys.modules, others._children)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False []\n"
