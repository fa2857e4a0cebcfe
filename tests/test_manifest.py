"""What a sweep came to, written and read again without its file or its data."""

import json
from dataclasses import replace

import pytest

from harness.bases import SMALL
from harness.config import Runtime
from harness.errors import RecordError
from harness.manifest import manifest_names, read_manifest, write_manifest
from harness.record import Store
from harness.space import Show, Sweep, expand, load_sweep, product

RUNTIME = Runtime(threads=2)


@pytest.mark.parametrize("name", ["ablation_text_depth", "ablation_components", "ablation_fusion"])
def test_runs_come_back_as_they_were(tmp_path, name):
    store, sweep = Store(tmp_path), load_sweep(name)
    runs = expand(sweep, overrides={"train.lr": 5e-4}, seeds=[3, 4])
    write_manifest(store, sweep, runs, RUNTIME, ["-m", "harness.sweep", name])
    back = read_manifest(store, name)
    assert [run.key for run in back.runs] == [run.key for run in runs]
    assert [run.config for run in back.runs] == [run.config for run in runs]
    assert [(r.label, r.seed) for r in back.runs] == [(r.label, r.seed) for r in runs]
    assert (back.sweep.question, back.sweep.seeds) == (sweep.question, (3, 4))
    assert back.sweep.show.x == sweep.show.x
    assert back.sweep.axes == sweep.axes
    assert (back.runtime, back.command[-1]) == (RUNTIME, name)


def test_a_parent_that_is_no_run_of_the_sweep_comes_back_with_its_children(tmp_path):
    store = Store(tmp_path)
    sweep = Sweep(
        base=SMALL,
        points=product({"model.text.layers": [2], "model.text.init": [None, "first of 12"]}),
        seeds=[0],
        show=Show(x="model.text.layers", metrics=["*/acc1"]),
        name="x",
    )
    runs = expand(sweep)
    write_manifest(store, sweep, runs, RUNTIME, [])
    plain, child = read_manifest(store, "x").runs
    assert plain.parent is None
    assert child.parent is not None
    assert child.parent.key == child.config.model.text.init_parent == runs[1].parent.key


def test_the_latest_command_of_a_name_is_on_file_and_the_same_one_gives_the_same_bytes(tmp_path):
    store, sweep = Store(tmp_path), load_sweep("smoke")
    assert manifest_names(store) == []
    texts = []
    for seeds in ([0, 1], [0], [0]):
        write_manifest(store, sweep, expand(sweep, seeds=seeds), RUNTIME, [])
        texts.append(store.manifest_file("smoke").read_bytes())
    assert manifest_names(store) == ["smoke"]
    assert texts[0] != texts[1] == texts[2]


def test_an_edited_or_absent_manifest_is_refused(tmp_path):
    store, sweep = Store(tmp_path), load_sweep("smoke")
    write_manifest(store, sweep, expand(sweep), RUNTIME, [])
    with pytest.raises(RecordError, match="unknown sweep 'smok'; nearest: smoke"):
        read_manifest(store, "smok")
    file = store.manifest_file("smoke")
    tree = json.loads(file.read_text())
    tree["base"]["train"]["lr"] = 1.0
    file.write_text(json.dumps(tree))
    with pytest.raises(RecordError, match=r"smoke\.json: .* edited, or written by another version"):
        read_manifest(store, "smoke")


def test_labels_and_points_of_any_text_survive(tmp_path):
    store, sweep = Store(tmp_path), replace(load_sweep("smoke"), question="Is “a\u2028b” <b>?")
    runs = [replace(run, label="x\n=1+1,\u202e") for run in expand(sweep)]
    write_manifest(store, sweep, runs, RUNTIME, ["é"])
    back = read_manifest(store, "smoke")
    assert back.sweep.question == "Is “a\u2028b” <b>?"
    assert {run.label for run in back.runs} == {"x\n=1+1,\u202e"}
