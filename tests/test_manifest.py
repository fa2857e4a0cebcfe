"""What a sweep came to, written and read again without its file or its data."""

import json
from dataclasses import replace

import pytest

from harness.config import Runtime
from harness.config.bases import SMALL
from harness.config.sweep import Show, Sweep, expand, product
from harness.config.sweep_files import load_sweep
from harness.errors import RecordError
from harness.files import write_json
from harness.store.manifest import (
    changed_declaration,
    manifest_names,
    read_manifest,
    write_manifest,
)
from harness.store.record import Store

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
    assert plain.parents == ()
    assert child.parents
    assert child.parents[0].key == child.config.model.text.init_parent == runs[1].parents[0].key


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


def declaring(primary, margin=None):
    sweep = load_sweep("smoke")
    return replace(sweep, show=replace(sweep.show, primary=primary, margin=margin))


def put_on_file(store, sweep):
    write_manifest(store, sweep, expand(sweep), RUNTIME, [])


def finish_one(store, sweep):
    directory = store.run_dir(expand(sweep)[0].key)
    write_json(directory.result_file, {})


def test_names_of_points_keep_their_order(tmp_path):
    store, sweep = Store(tmp_path), load_sweep("ablation_token_matching")
    write_manifest(store, sweep, expand(sweep), RUNTIME, [])
    back = read_manifest(store, sweep.name).sweep.show.names
    assert list(back.items()) == list(sweep.show.names.items())
    assert list(back) != sorted(back)

    file = store.manifest_file(sweep.name)
    tree = json.loads(file.read_text())
    tree["show"]["names"] = dict(tree["show"]["names"])  # an older file, which sorts them
    write_json(file, tree)
    assert list(read_manifest(store, sweep.name).sweep.show.names) == list(sweep.show.names)


def test_what_was_declared_comes_back(tmp_path):
    store, sweep = Store(tmp_path), declaring("test/mean_recall", 2.0)
    put_on_file(store, sweep)
    assert read_manifest(store, "smoke").sweep.show.declared == sweep.show.declared


def test_a_declaration_may_change_until_a_run_has_finished(tmp_path):
    store = Store(tmp_path)
    first, second = declaring("test/image_retrieval_recall@1"), declaring("test/mean_recall", 2)
    assert changed_declaration(store, first) == ""
    put_on_file(store, first)
    put_on_file(store, second)
    finish_one(store, second)
    put_on_file(store, second)
    assert changed_declaration(store, second) == ""


def test_a_declaration_that_changes_after_a_run_has_finished_is_told(tmp_path):
    store = Store(tmp_path)
    first, second = declaring("test/image_retrieval_recall@1"), declaring("test/mean_recall", 2)
    put_on_file(store, first)
    finish_one(store, first)
    told = (
        "the primary metric was T2I R@1 and the margin was not declared when the first run "
        "finished; now mean recall and 2"
    )
    assert changed_declaration(store, second) == told  # reported without being launched
    for _ in range(2):
        put_on_file(store, second)
        assert changed_declaration(store, second) == told
    assert changed_declaration(store, read_manifest(store, "smoke").sweep) == told
    put_on_file(store, first)
    assert changed_declaration(store, first) == ""  # the first one again


def test_a_manifest_of_before_declarations_declared_nothing(tmp_path):
    store, sweep = Store(tmp_path), declaring("test/mean_recall", 2.0)
    put_on_file(store, sweep)
    file = store.manifest_file("smoke")
    tree = json.loads(file.read_text())
    del tree["declared"]
    for name in ("primary", "margin", "cost"):
        del tree["show"][name]
    file.write_text(json.dumps(tree))
    finish_one(store, sweep)
    old = read_manifest(store, "smoke").sweep
    assert (old.show.primary, changed_declaration(store, old)) == (None, "")
    put_on_file(store, sweep)
    assert changed_declaration(store, sweep) == (
        "the primary metric was not declared and the margin was not declared when the first run "
        "finished; now mean recall and 2"
    )
