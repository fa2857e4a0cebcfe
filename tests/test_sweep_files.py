"""Sweep files: found, read, and modules like any other, here and in a spawned process."""

import pickle
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import harness
from harness.config.sweep import compared_with_nothing, expand
from harness.config.sweep_files import (
    find_sweep,
    load_sweep,
    module_name,
    question_of,
    shipped_sweeps,
)
from harness.data.tools.jobs import shared_out
from harness.errors import HarnessError, SweepError
from harness.launch.slurm.freeze import freeze
from harness.store.record import Store

_NO_CACHE = shutil.ignore_patterns("__pycache__")
FILE = '''"""Is it so?"""

from __future__ import annotations

from dataclasses import dataclass

from harness.bases import SMALL
from harness.space import Show, Sweep, points
{imports}

@dataclass(frozen=True)
class Factor:
    by: int


def times(factor: Factor, value: int) -> int:
    return factor.by * value


SWEEP = Sweep(
    base=SMALL, points=points({{"train.lr": {lr}}}), show=Show(x="train.lr", metrics=["*/acc1"])
)
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a sweep file below tmp_path; what importing it leaves behind is undone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def to(place, *, lr=0.1, imports=""):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILE.format(lr=lr, imports=imports))
        return file

    yield to
    for name in set(sys.modules) - before:
        if name.startswith("harness.config.sweep_files.") or name == "beside_mine":
            del sys.modules[name]


def loaded(file):
    """The module of a sweep file that is loaded."""
    load_sweep(str(file))
    return sys.modules[module_name(file)]


def test_unknown_sweep_names_the_nearest():
    with pytest.raises(SweepError, match="unknown sweep 'ablation_textdepth'; nearest: ablation_t"):
        find_sweep("ablation_textdepth")
    assert "smoke" in shipped_sweeps()


def test_shipped_sweeps_are_at_hand_in_any_folder(tmp_path, monkeypatch):
    here = set(shipped_sweeps())
    monkeypatch.chdir(tmp_path)
    assert set(shipped_sweeps()) == here
    assert find_sweep("smoke").is_file()


def test_an_installed_package_looks_for_its_sweeps_where_its_wheel_has_them(tmp_path, monkeypatch):
    root = Path(harness.__file__).parents[1]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    laid = tmp_path / wheel["targets"]["wheel"]["force-include"]["sweeps"] / "mine.py"
    laid.parent.mkdir(parents=True)
    laid.write_text('"""Is it so?"""')
    shutil.copytree(root / "harness", tmp_path / "harness", dirs_exist_ok=True, ignore=_NO_CACHE)
    told = "from harness.config.sweep_files import find_sweep; print(find_sweep('mine'))"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(laid)


@pytest.mark.parametrize("name", ["ablation_text_depth", "ablation_backbone", "smoke"])
def test_shipped_sweeps_load_and_expand(name):
    loaded = load_sweep(name)
    assert loaded.name == name
    assert loaded.question.endswith(("?", "minute."))
    assert expand(loaded)


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_every_point_of_a_shipped_sweep_is_compared_with_another(name):
    loaded = load_sweep(name)
    if loaded.points:  # of a search there are none yet
        assert compared_with_nothing(expand(loaded), loaded.show.baseline) is None


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_shipped_sweeps_say_what_their_verdict_is_and_why(name):
    show = load_sweep(name).show
    assert show.primary is not None
    assert show.margin is not None
    assert "verdict" in find_sweep(name).read_text().split('"""')[1]


def test_questions_are_read_without_running_the_file(tmp_path):
    file = tmp_path / "x.py"
    file.write_text('"""Is it so?\n\nMore."""\nraise SystemExit\n')
    assert question_of(file) == "Is it so?"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import nosuchmodule", r"x\.py:1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("\n\nSWEEP = 3/'a'", r"x\.py:3: TypeError"),
        ("SWEEP = 3", r"defines no SWEEP"),
        ("def (", r"SyntaxError"),
        ("\n{}['a']", r"x\.py:2: KeyError: 'a'"),
        (
            "from harness.space import Show\nShow('seed', [], primary='a', margin=-1)",
            r"x\.py:2: margin = -1: a number from 0 on is wanted",
        ),
    ],
)
def test_a_broken_sweep_file_is_one_line_with_its_place(tmp_path, text, line):
    file = tmp_path / "x.py"
    file.write_text(text)
    with pytest.raises(SweepError, match=line):
        load_sweep(str(file))


@pytest.mark.parametrize(
    ("axis", "line"),
    [
        ('product({"model.text.layers": [1, 0]})', r"x\.py:5: layers=0: model\.text\.layers = 0: "),
        (
            'product({"train.lr": [1],\n"model.text.layer": [1]})',
            r"x\.py:6: lr=1, layer=1: unknown",
        ),
        ('product({"model.text.heads": [5]})', r"x\.py:5: heads=5: model\.text\.width 96 is not"),
        ('product({"model.text.layers": 4})', r"x\.py:5: model\.text\.layers = 4: a list of"),
        ('points({"train.lr": {1}})', r"x\.py:5: train\.lr = \{1\} is no value that a run can"),
        ('points({"runtime.workers": 1})', r"x\.py:5: workers=1: runtime\.workers is where a run"),
        ('points({"learning_rate": 1})', r"x\.py:5: .*unknown field .*; here it is train\.lr: "),
    ],
)
def test_what_is_wrong_with_an_axis_is_told_with_axis_and_line(tmp_path, axis, line):
    file = tmp_path / "x.py"
    file.write_text(
        "from harness.bases import SMALL\n"
        "from harness.space import Show, Sweep, points, product\n"
        "show = Show(x='train.lr', metrics=[])\n"
        "SWEEP = Sweep(base=SMALL, show=show, points=\n"
        f"{axis})\n"
    )
    with pytest.raises(HarnessError, match=line) as error:
        expand(load_sweep(str(file)))
    assert "\n" not in str(error.value)


# ---- a file is a module


def test_a_sweep_file_may_postpone_annotations_and_define_a_dataclass(write):
    assert loaded(write("mine.py")).Factor(3).by == 3


@pytest.mark.parametrize("name", ["mine.py", "mine-2.b.py", "json.py"])
def test_what_a_sweep_file_defines_can_be_sent_to_spawned_processes(write, name):
    module = loaded(write(name))
    with shared_out(module.times, module.Factor(3), [1, 2], workers=2) as results:
        assert sorted(results) == [(1, 3), (2, 6)]


def test_a_module_beside_a_sweep_file_is_found_from_any_folder(write, tmp_path, monkeypatch):
    file = write("far/mine.py", imports="from beside_mine import VALUE, triple")
    (file.parent / "beside_mine.py").write_text(
        "VALUE = 3\n\ndef triple(_, value):\n    return 3 * value\n"
    )
    monkeypatch.chdir(tmp_path)
    module = loaded(file)
    assert module.VALUE == 3
    with shared_out(module.triple, None, [1, 2], workers=2) as results:
        assert sorted(results) == [(1, 3), (2, 6)]
    frozen = freeze(Store(tmp_path), file)
    assert (frozen.path / "beside" / "beside_mine.py").is_file()
    assert not (frozen.path / "beside" / "harness").exists()


def test_two_sweep_files_of_one_stem_are_two_modules(write):
    first, second = write("a/mine.py", lr=0.1), write("b/mine.py", lr=0.2)
    rates = [load_sweep(str(file)).points[0]["train.lr"] for file in (first, second, first)]
    assert rates == [0.1, 0.2, 0.1]
    modules = [sys.modules[module_name(file)] for file in (first, second)]
    copies = [pickle.loads(pickle.dumps(m.Factor(1))) for m in modules]  # noqa: S301
    assert [type(copy) for copy in copies] == [module.Factor for module in modules]
    assert modules[0].Factor is not modules[1].Factor


def test_a_sweep_file_that_breaks_leaves_no_half_module(write):
    file = write("mine.py")
    whole = loaded(file)
    file.write_text("import nosuchmodule")
    with pytest.raises(SweepError, match="nosuchmodule"):
        load_sweep(str(file))
    assert sys.modules[module_name(file)] is whole
