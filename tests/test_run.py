"""A whole run: killed anywhere with SIGKILL, cut short, failing, evaluated again."""

import errno
import json
import os
import signal

import pytest
import torch

from harness.config import Runtime, Train, override
from harness.data import catalog
from harness.device import numerics
from harness.errors import (
    ConfigError,
    DataError,
    DivergedError,
    InterruptedRun,
    RecordError,
    StoppedRun,
)
from harness.files import read_json
from harness.run import execute, preflight
from harness.store import record
from harness.store.checksums import changed_files, is_told
from harness.store.lease import Lease, LeaseHeld
from harness.store.record import Store
from harness.store.state import State
from harness.train.checkpoint import load_weights
from tests.conftest import tiny_run, with_fingerprints

RUNTIME = Runtime(log_samples=16, checkpoint_seconds=1e-6)


@pytest.fixture
def config(shapes_folder):
    values = {"model.image.backbone": "test_convnext", "train.samples": 64}
    return with_fingerprints(tiny_run(shapes_folder, **values), RUNTIME)


def in_child(action):
    """Run `action` in a forked process; the signal that ended it, 0 if none."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def kill_myself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(config, root, step):
    asked = iter(range(step + 1))

    def stop():
        return next(asked, None) == step and kill_myself()

    assert in_child(lambda: execute(config, root, RUNTIME, label="x", stop=stop)) == signal.SIGKILL


def kill_while_writing(config, root, name, nth=1):
    """SIGKILL in the middle of the nth write of a file whose name begins with `name`."""
    seen = iter(range(1, 1000))

    def torn(path, data):
        if path.name.startswith(name) and next(seen) == nth:
            path.parent.mkdir(exist_ok=True)
            path.with_name(f".{path.name}.torn.tmp").write_bytes(data[: len(data) // 2])
            kill_myself()
        whole(path, data)

    def run():
        from harness import files
        from harness.train import checkpoint

        for module in (files, record, checkpoint):
            module.write_atomic = torn
        execute(config, root, RUNTIME, label="x")

    whole = record.write_atomic
    assert in_child(run) == signal.SIGKILL


def outcome(config, root):
    """What must not depend on how often a run was killed."""
    directory = Store(root).run_dir(config.run_key)
    result = directory.result()
    entry = result["evaluations"][config.evaluation_key]
    return {
        "weights": result["checkpoint"]["sha256"],
        "training_modules": result.get("training_modules"),
        "metrics": entry["metrics"],
        "content": entry["content_key"],
        "outcomes": (directory.path / entry["outcomes"]).read_bytes(),
        "loss": result["training"]["final_loss"],
        "seen": result["training"]["samples_seen"],
        "log": [
            (m["samples_seen"], m["loss"], m["grad_norm"], m["lr"])
            for m in record.read_jsonl(directory.metrics_file)
        ],
    }


@pytest.fixture
def undisturbed(config, tmp_path):
    root = tmp_path / "undisturbed"
    execute(config, root, RUNTIME, label="x")
    return outcome(config, root)


def test_killed_at_steps_and_in_every_kind_of_write_it_ends_with_the_same_bits(
    config, tmp_path, undisturbed
):
    root = tmp_path / "killed"
    kill_at_step(config, root, 0)
    kill_while_writing(config, root, "step-", nth=2)
    kill_at_step(config, root, 1)
    kill_while_writing(config, root, "status.json", nth=2)
    kill_while_writing(config, root, "final-")
    kill_while_writing(config, root, "result.json")
    directory = Store(root).run_dir(config.run_key)
    assert directory.status().state is State.INTERRUPTED
    execute(config, root, RUNTIME, label="x")
    assert outcome(config, root) == undisturbed
    assert directory.attempts() == 7
    assert not list(directory.checkpoints.glob("step-*"))
    assert not list(directory.checkpoints.glob(".*"))


def test_what_trains_beside_the_towers_is_kept_apart_with_the_same_bits_however_often_killed(
    config, tmp_path
):
    config = override(
        config,
        {
            "model.image.backbone": "test_vit",
            "objective.token.weight": 0.5,
            "objective.token.dim": 4,
            "objective.mlm.weight": 0.5,
        },
    )
    once, killed = tmp_path / "once", tmp_path / "killed"
    execute(config, once, RUNTIME, label="x")
    kill_at_step(config, killed, 2)
    kill_while_writing(config, killed, "training-")
    kill_while_writing(config, killed, "result.json")
    assert Store(killed).run_dir(config.run_key).result() is None
    execute(config, killed, RUNTIME, label="x")
    assert outcome(config, killed) == outcome(config, once)
    directory = Store(killed).run_dir(config.run_key)
    assert is_told(directory.result())
    assert list(changed_files(directory.path, directory.result())) == []
    kept = directory.result()["training_modules"]
    assert kept["file"] == f"checkpoints/training-{kept['sha256'][:16]}.safetensors"
    _, beside = sorted(directory.checkpoints.iterdir())
    assert beside == directory.path / kept["file"]
    beside_names = load_weights(directory.path, kept).keys()
    assert {name.split(".")[0] for name in beside_names} == {"tokens", "masked_pass"}
    final_names = load_weights(directory.path, directory.result()["checkpoint"]).keys()
    assert {name.split(".")[0] for name in final_names} == {
        *("image", "text", "logit_scale", "token_rows"),
    }


def test_a_run_of_the_towers_alone_keeps_nothing_beside_them(config, undisturbed, tmp_path):
    assert undisturbed["training_modules"] is None
    checkpoints = Store(tmp_path / "undisturbed").run_dir(config.run_key).checkpoints
    assert [file.name.partition("-")[0] for file in checkpoints.iterdir()] == ["final"]


def test_stopped_by_a_flag_it_goes_on_to_the_same_bits(config, tmp_path, undisturbed):
    root = tmp_path / "stopped"
    asked = iter(range(100))
    with pytest.raises(InterruptedRun, match="stopped at 24 samples; state saved"):
        execute(config, root, RUNTIME, label="x", stop=lambda: next(asked) == 3)
    status = Store(root).run_dir(config.run_key).status()
    assert (status.state, status.samples_seen) == (State.INTERRUPTED, 24)
    execute(config, root, RUNTIME, label="x")
    assert outcome(config, root) == undisturbed


def test_a_finished_run_is_left_alone(config, tmp_path):
    execute(config, tmp_path, RUNTIME, label="x")
    file = Store(tmp_path).run_dir(config.run_key).result_file
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    execute(config, tmp_path, RUNTIME, label="x")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_another_protocol_evaluates_the_same_weights_again(config, tmp_path):
    execute(config, tmp_path, RUNTIME, label="x")
    directory = Store(tmp_path).run_dir(config.run_key)
    before = directory.result()
    other = override(config, {"evaluate.batch_size": 7})
    execute(other, tmp_path, RUNTIME, label="x")
    after = directory.result()
    assert after["checkpoint"] == before["checkpoint"]
    assert after["training"] == before["training"]
    assert set(after["evaluations"]) == {config.evaluation_key, other.evaluation_key}
    assert (
        after["evaluations"][config.evaluation_key] == before["evaluations"][config.evaluation_key]
    )


def test_weights_that_are_not_the_results_are_never_evaluated(config, tmp_path):
    execute(config, tmp_path, RUNTIME, label="x")
    directory = Store(tmp_path).run_dir(config.run_key)
    (weights,) = directory.checkpoints.glob("final-*")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    other = override(config, {"evaluate.batch_size": 7})
    with pytest.raises(RecordError, match="is not the checkpoint that its result names"):
        execute(other, tmp_path, RUNTIME, label="x")
    assert directory.status(config.evaluation_key).state is State.DONE


def test_a_failure_is_filed_with_its_class_and_one_line(config, tmp_path):
    bad = override(config, {"train.lr": 1e30, "train.grad_clip": None})
    with pytest.raises(DivergedError):
        execute(bad, tmp_path, RUNTIME, label="x")
    status = Store(tmp_path).run_dir(bad.run_key).status()
    assert (status.state, status.failure) == (State.FAILED, "diverged")
    assert "at step" in status.error
    assert Store(tmp_path).run_dir(bad.run_key).result() is None


def test_a_full_disk_is_filed_as_such_and_the_last_good_state_goes_on(
    config, tmp_path, undisturbed, monkeypatch
):
    def full(path, data):
        if path.name.startswith("step-00000004"):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    from harness.train import checkpoint

    whole = checkpoint.write_atomic
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            execute(config, tmp_path / "full", RUNTIME, label="x")
    status = Store(tmp_path / "full").run_dir(config.run_key).status()
    assert (status.state, status.failure) == (State.FAILED, "disk_full")
    execute(config, tmp_path / "full", RUNTIME, label="x")
    assert outcome(config, tmp_path / "full") == undisturbed


def test_a_run_that_another_process_holds_is_refused(config, tmp_path):
    directory = Store(tmp_path).run_dir(config.run_key)
    with Lease(directory.lease_file), pytest.raises(LeaseHeld):
        execute(config, tmp_path, RUNTIME, label="x")
    assert directory.attempts() == 0


@pytest.mark.parametrize("row", ["number 0", "number 71"])  # a row of train, a row of test
def test_data_that_changed_since_the_plan_is_refused(config, shapes_folder, tmp_path, row):
    text = (shapes_folder / "captions.csv").read_text()
    (shapes_folder / "captions.csv").write_text(text.replace(f"{row}\n", "changed\n"))
    catalog._open_data.cache_clear()  # as in the next process
    with pytest.raises(DataError, match="fingerprint"):
        execute(config, tmp_path, RUNTIME, label="x")


def test_provenance_names_code_versions_and_machine(config, tmp_path):
    execute(config, tmp_path, RUNTIME, label="a label")
    directory = Store(tmp_path).run_dir(config.run_key)
    (attempt,) = read_json(directory.path / "provenance.json")["attempts"]
    assert attempt["label"] == "a label"
    assert {"commit", "dirty", "code", "versions", "host", "cpu", "command"} <= set(attempt)
    assert json.loads((directory.path / "config.json").read_text())["schema"] == 1


def test_what_the_bits_depend_on_is_on_record(config, tmp_path):
    runtime = RUNTIME.model_copy(update={"micro_batch": 4})
    execute(config, tmp_path, runtime, label="x")
    directory = Store(tmp_path).run_dir(config.run_key)
    numerics = directory.finished()["numerics"]
    (attempt,) = read_json(directory.path / "provenance.json")["attempts"]
    assert attempt["numerics"] == numerics
    versions = numerics.pop("versions")
    assert numerics == {
        "device": "cpu",
        "gpu": None,
        "threads": 1,
        "precision": "fp32",
        "processes": 1,
        "parts": 2,  # a batch of 8, 4 at once
        "compile": False,
    }
    assert versions == {name: attempt["versions"][name] for name in versions}
    assert list(versions) == ["open_clip_torch", "timm", "torch"]


def test_of_a_gpu_its_model_and_libraries_are_on_record(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    runtime = Runtime(processes=2, micro_batch=16)
    found = numerics(Train(batch_size=128), runtime, torch.device("cuda"), "bf16")
    versions = found.pop("versions")
    assert found == {
        "device": "cuda",
        "gpu": "A100",
        "threads": 1,
        "precision": "bf16",
        "processes": 2,
        "parts": 4,
        "compile": False,
        "tf32": "convolutions",
        "deterministic": False,
    }
    assert {"torch", "cuda", "cudnn"} <= versions.keys()


def test_captions_of_more_words_than_patches_are_trained_on(config, tmp_path):
    values = {"model.image.size": 64, "objective.token.weight": 1.0, "objective.mlm.weight": 1.0}
    crowded = override(config, values)  # 2 x 2 patches; "a red square number 12" has more words
    execute(crowded, tmp_path, RUNTIME, label="x")
    assert Store(tmp_path).run_dir(crowded.run_key).result()["training"]["final_loss"] > 0


def test_a_last_batch_of_one_is_evaluated_as_in_any_other(config, tmp_path):
    whole = override(config, {"model.image.backbone": "test_resnet", "evaluate.batch_size": 24})
    uneven = override(whole, {"evaluate.batch_size": 23})  # of 24 test pictures
    execute(whole, tmp_path, RUNTIME, label="x")
    execute(uneven, tmp_path, RUNTIME, label="x")
    evaluations = Store(tmp_path).run_dir(whole.run_key).result()["evaluations"]
    first, second = (evaluations[c.evaluation_key]["metrics"] for c in (whole, uneven))
    assert first == second


# --------------------------------------------------------------------------- before anything starts


def test_preflight_finds_nothing_wrong_with_a_good_configuration(config):
    assert preflight([config], RUNTIME) == []


def test_preflight_names_every_problem_once(config, shapes_folder):
    for file in shapes_folder.glob("*.png"):
        file.write_bytes(b"<html>")
    catalog._open_data.cache_clear()
    bad = override(
        config,
        {"model.image.backbone": "test_vit", "model.image.size": 8, "data.fingerprint": None},
    )
    lines = preflight([bad, override(bad, {"seed": 1})], RUNTIME)
    assert len(lines) == 2
    assert any("'test_vit' cannot" in line for line in lines)
    assert any("none of 8 pictures tried can be decoded" in line for line in lines)


def test_preflight_knows_when_too_much_of_the_data_cannot_be_used(config, shapes_folder):
    for name in ("000.png", "001.png", "002.png"):
        (shapes_folder / name).unlink()
    catalog._open_data.cache_clear()
    (line,) = preflight([override(config, {"data.fingerprint": None})], RUNTIME)
    assert "more than runtime.max_bad_fraction = 0.01 allows" in line
    assert "captions.csv:4: picture is not there" in line
    assert "harness.data check" in line


def test_preflight_refuses_a_device_this_machine_lacks(config, tmp_path):
    (line,) = preflight([config], Runtime(device="cuda:77"))
    assert "cuda:77" in line
    with pytest.raises(ConfigError, match="'gpu' is not a device"):
        execute(config, tmp_path, Runtime(device="gpu"), label="x")


def test_a_stop_asked_for_in_the_directory_saves_the_state_and_the_next_intent_lifts_it(
    config, tmp_path
):
    directory = Store(tmp_path).run_dir(config.run_key)
    looks = []

    def ask_at_the_third_look():
        looks.append(None)
        if len(looks) == 3:
            directory.request_stop("pruned")
        return False

    runtime = RUNTIME.model_copy(update={"log_seconds": 1e-9})
    with pytest.raises(StoppedRun, match="pruned") as stopped:
        execute(config, tmp_path, runtime, label="x", stop=ask_at_the_third_look)
    assert stopped.value.failure == "pruned"
    status = directory.status()
    assert (status.state, status.details["stopped"]) == (State.INTERRUPTED, "pruned")
    assert 0 < status.samples_seen < config.train.samples

    attempts = directory.attempts()
    with pytest.raises(StoppedRun):
        execute(config, tmp_path, runtime, label="x")
    assert directory.attempts() == attempts

    directory.write_intent(config, {"label": "x"})
    execute(config, tmp_path, RUNTIME, label="x")
    undisturbed = tmp_path / "undisturbed"
    execute(config, undisturbed, RUNTIME, label="x")
    assert outcome(config, tmp_path) == outcome(config, undisturbed)
