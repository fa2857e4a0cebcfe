import errno
import json
import os
import subprocess

import pytest

from harness.config import override
from harness.config.bases import SMALL
from harness.errors import RecordError
from harness.files import dump_json, read_json, read_jsonl, write_atomic, write_json
from harness.store import provenance, record
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State

RESULT = {
    "code": "c",
    "training": {"samples_seen": 8},
    "evaluations": {SMALL.evaluation_key: {}},
    "cost": {},
}


@pytest.fixture
def run(tmp_path):
    directory = Store(tmp_path).run_dir(SMALL.run_key)
    directory.write_intent(SMALL, {"label": "x"})
    return directory


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomic(file, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_is_strict_sorted_and_survives_odd_text(tmp_path):
    assert dump_json({"b": 1, "a": "é"}) == '{\n "a": "é",\n "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": float("nan")})
    write_json(tmp_path / "x.json", {"text": "a\u2028b \ud800 c"})
    assert read_json(tmp_path / "x.json")["text"].startswith("a\u2028b")


def test_torn_last_line_of_a_log_is_left_out_and_a_torn_middle_is_not(tmp_path):
    log = tmp_path / "m.jsonl"
    log.write_text('{"a":1}\n{"a":2}\n{"a":')
    assert [m["a"] for m in read_jsonl(log)] == [1, 2]
    log.write_text('{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(RecordError, match=r"m\.jsonl:2"):
        list(read_jsonl(log))


def test_config_is_verified_against_the_folders_name(run):
    assert run.read_config() == SMALL
    file = run.path / "config.json"
    tree = json.loads(file.read_text())
    tree["config"]["model"]["text"]["layers"] = 5
    file.write_text(json.dumps(tree))
    with pytest.raises(RecordError, match=r"was edited: its content has key \w{12}, its folder"):
        run.read_config()


def test_intent_brings_the_data_path_and_the_protocol_up_to_date(run):
    moved = override(SMALL, {"data.path": "/elsewhere", "evaluate.batch_size": 9})
    run.write_intent(moved, {"label": "y"})
    assert run.read_config() == moved


def test_another_schema_is_refused_in_one_line(run):
    file = run.path / "config.json"
    file.write_text(json.dumps({"schema": 99, "config": {}}))
    with pytest.raises(RecordError, match="schema 99; this version reads schema 1"):
        run.read_config()


def test_truncated_json_is_no_result(run):
    run.write_result(RESULT)
    run.result_file.write_bytes(run.result_file.read_bytes()[:-20])
    with pytest.raises(RecordError, match="not valid JSON"):
        run.status()


def test_a_result_of_another_run_is_refused(run):
    run.write_result(RESULT)
    tree = json.loads(run.result_file.read_text())
    run.result_file.write_text(json.dumps({**tree, "key": "0" * 12}))
    with pytest.raises(RecordError, match="is of run 000000000000"):
        run.result()


def test_state_follows_the_files(run):
    assert run.status().state is State.NEW
    with Lease(run.lease_file):
        assert run.status().state is State.RUNNING
        run.write_status(State.RUNNING, attempt=1, samples_seen=5)
        assert run.status().state is State.RUNNING
    assert run.status().state is State.INTERRUPTED  # the holder is gone and left no result
    assert run.status().samples_seen == 5
    run.write_status(State.FAILED, attempt=1, failure="diverged", error="NaN at step 3")
    assert (run.status().state, run.status().failure) == (State.FAILED, "diverged")
    run.write_result(RESULT)
    assert run.status().state is State.DONE


def test_a_result_without_the_wanted_protocol_has_work_left(run):
    run.write_result(RESULT)
    other = override(SMALL, {"evaluate.templates": ["a {c}"]})
    assert other.run_key == SMALL.run_key
    assert run.status(SMALL.evaluation_key).state is State.DONE
    assert run.status(other.evaluation_key).state is not State.DONE


def test_metrics_are_rewound_to_the_checkpoint(run):
    for seen in (10, 20, 30):
        run.append_metrics({"samples_seen": seen})
    run.rewind_logs(20)
    assert [m["samples_seen"] for m in read_jsonl(run.metrics_file)] == [10, 20]


def test_provenance_has_an_entry_an_attempt(run):
    assert [run.add_provenance({"n": n}) for n in "ab"] == [1, 2]
    assert run.attempts() == 2


def test_set_aside_loses_nothing(run):
    run.write_result(RESULT)
    moved = run.set_aside()
    assert not run.path.exists()
    assert json.loads((moved / "result.json").read_text())["training"] == {"samples_seen": 8}


# --------------------------------------------------------------------------- which run


def test_a_run_is_found_by_its_directory_its_key_or_how_that_begins(run, tmp_path):
    store = Store(tmp_path)
    for name in (str(run.path), run.key, run.key[:4]):
        assert store.find(name).path == run.path


def test_a_name_of_no_run_or_of_several_is_refused(run, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RecordError, match=r"unknown run 'x'; allowed: [0-9a-f]{12}$"):
        store.find("x")
    with pytest.raises(RecordError, match="holds no run, and so not 'x'"):
        Store(tmp_path / "elsewhere").find("x")
    other = override(SMALL, {"seed": 1})
    store.run_dir(other.run_key).write_intent(other, {"label": "x"})
    with pytest.raises(RecordError, match="'' begins the keys of 2 runs"):
        store.find("")


def test_a_run_without_a_result_says_how_far_it_came(run):
    run.write_status(State.FAILED, failure="diverged", error="loss is nan at step 3")
    with pytest.raises(
        RecordError, match=r"failed \(diverged\): loss is nan at step 3; a finished"
    ):
        run.finished()
    run.write_result(RESULT)
    assert run.finished()["code"] == "c"


def test_uncommitted_changes_in_any_encoding_are_told(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    file = tmp_path / "notes.txt"
    file.write_bytes(b"caf\xe9\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "harness")
    found = []
    for text in (b"caf\xe9\n", b"caf\xe8\n", b"caf\xea\n"):
        file.write_bytes(text)
        found.append(provenance.git_state.__wrapped__()["dirty"])

    assert found[0] is None
    assert len(set(found)) == 3
