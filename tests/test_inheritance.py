"""A text tower that starts from blocks of a finished, deeper one: names, keys, plan, whole runs."""

import csv
import json

import pytest
import torch

from harness.commands import sweep as command
from harness.config import RunConfig, Runtime, override
from harness.config.bases import SMALL
from harness.config.inheritance import Inheritance, read_inheritance
from harness.config.sweep import Show, Sweep, expand, product
from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, InterruptedRun, RecordError, SweepError
from harness.files import read_json
from harness.finished import load_finished
from harness.models.text import TextEncoder
from harness.models.training import TrainingModel
from harness.planning.plan import Action, Rerun, make_plan
from harness.run import execute
from harness.store.record import Store
from harness.store.state import State
from tests.conftest import tiny_run, with_fingerprints

LAYERS, INIT = "model.text.layers", "model.text.init"
RUNTIME = Runtime(log_samples=16, checkpoint_seconds=1e-6)


# --------------------------------------------------------------------------- which blocks


@pytest.mark.parametrize(
    ("text", "wanted", "there", "blocks"),
    [
        ("first of 12", 4, 12, (0, 1, 2, 3)),
        ("even of 12", 4, 12, (0, 4, 7, 11)),
        ("even of 12", 2, 12, (0, 11)),
        ("even of 12", 3, 12, (0, 6, 11)),
        ("even of 12", 1, 12, (0,)),
        ("even of 3", 2, 3, (0, 2)),
        ("even of 12", 11, 12, (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)),
        ("7,0 of 8", 2, 8, (7, 0)),
        ("even of run 1a2b", 2, 5, (0, 4)),
    ],
)
def test_blocks_by_hand(text, wanted, there, blocks):
    assert read_inheritance(text).blocks(wanted, there) == blocks


def test_a_wording_is_read_whatever_its_spaces_and_written_in_one_way():
    assert read_inheritance(" 0, 4,11 of  12 ") == Inheritance((0, 4, 11), layers=12)
    assert str(Inheritance((0, 4, 11), layers=12)) == "0,4,11 of 12"
    assert str(read_inheritance("even of run 1a2b3c4d5e6f")) == "even of run 1a2b3c4d5e6f"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({INIT: "last of 12"}, "'last of 12' is not understood; allowed are 'even of 12'"),
        ({INIT: "even of 2"}, "2 layers can start from a deeper one alone, and its parent has 2"),
        ({INIT: "0,1,2 of 12"}, "names 3 blocks for a tower of 2 layers"),
        ({INIT: "0,12 of 12"}, "names block 12, which a parent of 12 layers lacks; .* 0 to 11"),
        ({INIT: 12}, r"model\.text\.init = 12: .*string"),
        ({"model.text.init_parent": "1a2b3c4d5e6f"}, "given without init"),
    ],
)
def test_what_cannot_be_is_refused(values, line):
    with pytest.raises(ConfigError, match=line):
        override(RunConfig(), {LAYERS: 2, **values})


# --------------------------------------------------------------------------- identity and plan


def sweep_of(axes, base=SMALL, seeds=(0,), **show):
    return Sweep(
        base=base,
        points=product(axes),
        seeds=seeds,
        show=Show(**{"x": LAYERS, "metrics": [], **show}),
    )


def child_of(**values):
    (run,) = expand(sweep_of({LAYERS: [2], INIT: ["even of 4"]}), overrides=values)
    return run


def test_the_parent_is_the_same_run_but_for_its_depth():
    run = child_of()
    same = override(SMALL, {LAYERS: 4})
    assert run.parents
    assert run.parents[0].config == same
    assert (run.parents[0].label, run.label) == ("layers=4", "layers=2, init=even of 4")
    assert run.config.model.text.init_parent == same.run_key
    assert run.config.model.text.init_blocks == (0, 3)


def test_the_key_covers_the_parent_and_the_blocks_and_not_the_wording():
    plain = override(SMALL, {LAYERS: 2})
    keys = {run.key for run in expand(sweep_of({LAYERS: [2], INIT: [None, "0,3 of 4"]}))}
    assert keys == {plain.run_key, child_of().key}
    assert child_of(**{"train.lr": 0.5}).key != child_of().key
    other = expand(sweep_of({LAYERS: [2], INIT: ["first of 4", "even of 5", "3,0 of 4"]}))
    assert len({run.key for run in other} | keys) == 5


def test_a_parent_that_is_a_point_is_that_point():
    shallow = expand(sweep_of({LAYERS: [2], INIT: ["first of 4"]}))
    both = expand(
        Sweep(
            base=SMALL,
            points=product({LAYERS: [2], INIT: ["first of 4"]}) + product({LAYERS: [4]}),
            seeds=[0],
            show=Show(x=LAYERS, metrics=[]),
        )
    )
    assert [run.label for run in both] == ["layers=2, init=first of 4", "layers=4"]
    assert both[0].parents[0] is both[1]
    assert both[0].key == shallow[0].key


def test_a_point_that_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"^layers=4, init=even of 4: .* has 4$"):
        expand(sweep_of({LAYERS: [2, 4], INIT: ["even of 4"]}))


def test_a_run_by_key_needs_a_store_and_a_tower_that_fits():
    named = sweep_of({LAYERS: [2], INIT: ["even of run 1a2b"]})
    with pytest.raises(SweepError, match="no store to look the run up in"):
        expand(named)
    parent = override(SMALL, {LAYERS: 6, "train.lr": 0.5})
    (run,) = expand(named, finished={"1a2b": parent}.__getitem__)
    assert run.parents == ()
    assert run.config.model.text.init_parent == parent.run_key
    assert run.config.model.text.init_blocks == (0, 5)
    wide = override(parent, {"model.text.width": 48, "data.fingerprint": "f" * 64})
    with pytest.raises(ConfigError, match=r"width = 96 here, 48 there; data\.fingerprint = None"):
        expand(named, finished={"1a2b": wide}.__getitem__)


def finish(store, run):
    directory = store.run_dir(run.key)
    directory.write_intent(run.config, {})
    directory.write_result(
        {
            "code": "",
            "training": {"samples_seen": 1, "seconds": 1.0},
            "cost": {},
            "evaluations": {run.config.evaluation_key: {}},
        }
    )


def labels(steps):
    return [(step.run.label, step.action.value, step.note, bool(step.waits_for)) for step in steps]


def test_the_plan_has_a_needed_parent_once_and_first(tmp_path):
    store = Store(tmp_path)
    runs = expand(sweep_of({LAYERS: [2], INIT: [None, "first of 4", "even of 4"]}))
    assert labels(make_plan(runs, store)) == [
        ("layers=4", "run", "parent", False),
        ("layers=2, init=None", "run", "", False),
        ("layers=2, init=first of 4", "run", "", True),
        ("layers=2, init=even of 4", "run", "", True),
    ]
    finish(store, runs[1].parents[0])
    assert labels(make_plan(runs, store))[0][:2] == ("layers=4", "skip")
    finish(store, runs[1])
    finish(store, runs[2])
    assert [step.run.label for step in make_plan(runs, store)] == [run.label for run in runs]
    again = make_plan(runs, store, Rerun.ALL)
    assert labels(again)[0][:2] == ("layers=4", "run")


def test_a_cut_off_child_has_no_need_of_its_parent(tmp_path):
    store = Store(tmp_path)
    run = child_of()
    directory = store.run_dir(run.key)
    directory.write_intent(run.config, {})
    directory.write_status(State.RUNNING, attempt=1)
    assert [s.run.label for s in make_plan([run], store)] == ["layers=4", run.label]
    directory.checkpoints.mkdir()
    (directory.checkpoints / "step-00000002-0123456789abcdef.pt").touch()
    assert labels(make_plan([run], store)) == [(run.label, "resume", "cut off", False)]


def test_the_children_of_a_parent_that_failed_for_good_are_left(tmp_path):
    store = Store(tmp_path)
    run = child_of()
    directory = store.run_dir(run.parents[0].key)
    directory.write_intent(run.parents[0].config, {})
    directory.write_status(State.FAILED, failure="diverged", error="loss is NaN")
    parent, child = make_plan([run], store)
    assert (parent.action, child.action) == (Action.LEAVE, Action.LEAVE)
    assert child.note == f"its parent {run.parents[0].key} failed (diverged)"
    again = make_plan([run], store, Rerun.FAILED)
    assert [step.action for step in again] == [Action.RETRY, Action.RUN]


def test_the_shipped_sweep_has_parents_beside_its_points(tmp_path):
    runs = expand(load_sweep("ablation_inheritance"))
    assert len(runs) == 2 * 3 * 3
    steps = make_plan(runs, Store(tmp_path))
    assert [step.run.config.model.text.layers for step in steps[:4]] == [12, 12, 12, 2]


# --------------------------------------------------------------------------- weights


@pytest.fixture
def tiny(shapes_folder):
    values = {"model.image.backbone": "test_convnext", "train.samples": 32}
    return with_fingerprints(tiny_run(shapes_folder, **values), RUNTIME)


def family(tiny, wording="2,0 of 3"):
    (run,) = expand(sweep_of({LAYERS: [2], INIT: [wording]}, base=tiny))
    assert run.parents
    return run.parents[0].config, run.config


def stop_at(step):
    asked = iter(range(step + 1))
    return lambda: next(asked, None) == step


def start_of(config, root):
    """The weights that a run begins with: it is stopped before its first step."""
    with pytest.raises(InterruptedRun):
        execute(config, root, RUNTIME, label="x", stop=stop_at(0))
    (state,) = Store(root).run_dir(config.run_key).checkpoints.glob("step-*.pt")
    return torch.load(state, weights_only=True)["model"]


def test_a_child_begins_with_the_parents_blocks_and_its_own_image_tower(tiny, tmp_path):
    parent, child = family(tiny)
    execute(parent, tmp_path, RUNTIME, label="x")
    above = load_finished(Store(tmp_path).run_dir(parent.run_key)).state_dict()
    start = start_of(child, tmp_path)
    rows = above["model.token_rows"].numpy()
    fresh = TrainingModel(child, rows).state_dict()
    assert set(start) == set(fresh)
    for name, found in start.items():
        block = {"0": "2", "1": "0"}
        prefix = "model.text.transformer.resblocks."
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            wanted = above[f"{prefix}{block[number]}.{rest}"]
        else:
            wanted = (above if name.startswith("model.text.") else fresh)[name]
        assert torch.equal(found, wanted), name
    assert not torch.equal(fresh["model.text.ln_final.bias"], start["model.text.ln_final.bias"])


def test_a_resumed_child_needs_no_parent_and_ends_as_one_that_was_not_cut_off(tiny, tmp_path):
    parent, child = family(tiny)
    execute(parent, tmp_path, RUNTIME, label="x")
    sha256 = Store(tmp_path).run_dir(parent.run_key).finished()["checkpoint"]["sha256"]
    directory = Store(tmp_path).run_dir(child.run_key)
    with pytest.raises(InterruptedRun):
        execute(child, tmp_path, RUNTIME, label="x", stop=stop_at(2))
    away = Store(tmp_path).run_dir(parent.run_key).set_aside()
    execute(child, tmp_path, RUNTIME, label="x")
    resumed = directory.finished()
    assert resumed["parent"] == {"run": parent.run_key, "checkpoint": sha256, "blocks": [2, 0]}
    directory.set_aside()
    away.rename(Store(tmp_path).run_dir(parent.run_key).path)
    execute(child, tmp_path, RUNTIME, label="x")
    assert directory.finished()["checkpoint"] == resumed["checkpoint"]
    first = read_json(directory.path / "provenance.json")["attempts"][0]
    assert first["parent"] == resumed["parent"]


def test_a_child_whose_states_are_all_torn_begins_with_its_parent_anew(tiny, tmp_path):
    parent, child = family(tiny)
    execute(parent, tmp_path, RUNTIME, label="x")
    before = start_of(child, tmp_path)
    (state,) = Store(tmp_path).run_dir(child.run_key).checkpoints.glob("step-*.pt")
    state.write_bytes(state.read_bytes()[:-1])
    after = start_of(child, tmp_path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_without_its_parent_a_child_fails_and_says_why(tiny, tmp_path):
    parent, child = family(tiny)
    with pytest.raises(RecordError, match="is missing"):
        execute(child, tmp_path, RUNTIME, label="x")
    Store(tmp_path).run_dir(parent.run_key).write_intent(parent, {})
    with pytest.raises(RecordError, match=f"run {parent.run_key} is new at 0 of 32 samples"):
        execute(child, tmp_path, RUNTIME, label="x")


def test_a_parent_that_was_never_filled_in_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"'even of 3' is without model\.text\.init_parent"):
        execute(override(tiny, {INIT: "even of 3"}), tmp_path, RUNTIME, label="x")
    assert list(tmp_path.glob("results/runs/*")) == []


def test_weights_of_another_width_never_enter(tiny):
    wide = TextEncoder(override(tiny, {"model.text.width": 32, LAYERS: 3}).model.text, 40, 8)
    own = TextEncoder(tiny.model.text, 40, 8)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    with pytest.raises(ConfigError, match="of another shape, such as positional_embedding"):
        own.inherit(wide.state_dict(), [0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


# --------------------------------------------------------------------------- whole commands

SWEEP = '''"""Do the first blocks help?"""

from harness.bases import SMALL
from harness.config import override
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {values!r}),
    points=product({{"model.text.layers": [1], "model.text.init": [None, "first of 2"]}}),
    seeds=[0],
    show=Show(x="model.text.init", metrics=["test/mean_recall"]),
)
'''


@pytest.fixture
def inline(shapes_folder, tmp_path, monkeypatch):
    """Runs the command in this process on a sweep of two points and a parent."""
    values = {
        "model.image.backbone": "test_convnext",
        "model.image.size": 32,
        "model.text.width": 16,
        "model.text.heads": 2,
        "model.embed_dim": 8,
        "data.source": "folder",
        "data.path": str(shapes_folder),
        "train.batch_size": 8,
        "train.samples": 32,
        "train.warmup_samples": 0,
    }
    file = tmp_path / "firsts.py"
    file.write_text(SWEEP.format(values=values))
    root = ["--root", str(tmp_path / "out"), "--executor", "inline"]
    return lambda *more: command.main([str(file), *root, *more])


def test_only_a_child_brings_its_parent_and_the_report_has_the_points_alone(
    inline, tmp_path, capsys
):
    assert inline("--only", "*first*") == 3
    out = capsys.readouterr().out
    assert "2 runs: 2 run" in out
    ends = [line.split(" ", 1)[1] for line in out.splitlines() if line.endswith(": done")]
    assert [line.partition(" seed")[0] for line in ends] == [
        "layers=2",
        "layers=1, init=first of 2",
    ]
    assert inline() == 0
    rows = csv.DictReader((tmp_path / "out/reports/firsts/table.csv").open())
    assert {row["label"] for row in rows} == {"layers=1, init=None", "layers=1, init=first of 2"}


def test_a_child_of_a_failed_parent_is_a_hole_that_names_it(inline, tmp_path, capsys):
    assert inline("train.lr=1e30", "train.grad_clip=null") == 3
    told = capsys.readouterr()
    assert "cannot be started: its parent" in told.out
    manifest = json.loads((tmp_path / "out/reports/firsts/manifest.json").read_text())
    reasons = {run["label"]: run["reason"] for run in manifest["runs"]}
    assert reasons["layers=1, init=first of 2"].startswith("not run: its parent ")
    assert " failed (diverged): " in reasons["layers=1, init=first of 2"]
    assert "layers=2 seed 0" in told.err
    assert inline("train.lr=1e30", "train.grad_clip=null", "--dry-run") == 0
    assert "leave: its parent" in capsys.readouterr().out
