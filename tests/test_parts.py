"""A run of a sweep that registers parts of its own, looked into by a process that never saw it."""

import pytest

from harness.commands import explain, export, sweep
from harness.files import read_json, write_json
from harness.models.names import BACKBONES
from harness.store.record import Store

SWEEP = '''"""Does a tower of one's own work?"""

import timm

from harness.bases import SMALL
from harness.config import override
from harness.models.names import BACKBONES
from harness.space import Show, Sweep, points


@BACKBONES.register("own_vit")
def own_vit(size):
    return timm.create_model("test_vit", num_classes=0, img_size=size)


SWEEP = Sweep(
    base=override(SMALL, {values!r}),
    points=points({{"model.image.backbone": "own_vit"}}),
    seeds=[0],
    show=Show(x="model.image.backbone", metrics=["test/mean_recall"]),
)
'''


@pytest.fixture
def own(shapes_folder, tmp_path):
    """The sweep file of a finished run, whose backbone is forgotten again."""
    values = {
        "model.image.size": 64,
        "model.text.layers": 1,
        "model.text.width": 16,
        "model.text.heads": 2,
        "model.embed_dim": 8,
        "objective.token.weight": 1.0,
        "objective.token.dim": 8,
        "data.source": "folder",
        "data.path": str(shapes_folder),
        "train.batch_size": 8,
        "train.samples": 16,
        "train.warmup_samples": 0,
    }
    file = tmp_path / "own.py"
    file.write_text(SWEEP.format(values=values))
    assert sweep.main([str(file), "--executor", "inline", "--root", str(tmp_path)]) == 0
    del BACKBONES._parts["own_vit"]
    return file


def key_of(root):
    (result,) = Store(root).runs.glob("*/result.json")
    return result.parent.name


def looked_into(root, *more):
    words = ["--index", "0", "--root", str(root), "--out", str(root / "figure"), *map(str, more)]
    return explain.main([key_of(root), *words])


def refusal(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_recorded_sweep_file_is_imported_when_a_name_is_wanting(own, tmp_path, capsys):
    capsys.readouterr()
    assert looked_into(tmp_path) == 0
    assert f"parts of {own} are in use" in capsys.readouterr().err
    assert looked_into(tmp_path) == 0
    assert "parts of" not in capsys.readouterr().err


def test_a_file_that_changed_is_refused_until_it_is_named(own, tmp_path, capsys):
    own.write_text(own.read_text() + "# another word\n")
    capsys.readouterr()
    assert looked_into(tmp_path) == 2
    line = refusal(capsys)
    assert f"wants backbone 'own_vit', which a sweep file registered: {own} has changed" in line
    assert line.endswith("--sweep PATH names it, or it as it is now")
    assert looked_into(tmp_path, "--sweep", own) == 0


def test_a_file_that_is_gone_is_asked_for(own, tmp_path, capsys):
    moved = own.rename(tmp_path / "moved.py")
    capsys.readouterr()
    assert looked_into(tmp_path) == 2
    assert "own.py cannot be read (No such file or directory); --sweep PATH" in refusal(capsys)
    assert looked_into(tmp_path, "--sweep", moved) == 0


def test_the_export_knows_the_backbone_too(own, tmp_path, capsys):
    capsys.readouterr()
    arguments = [key_of(tmp_path), "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert export.main(arguments) == 2
    assert (
        "it builds towers by their names in timm, which lacks this one" in capsys.readouterr().err
    )


def test_a_run_without_a_record_of_its_sweep_and_a_wrong_file_are_said(own, tmp_path, capsys):
    job = Store(tmp_path).run_dir(key_of(tmp_path)).path / "job.json"
    content = read_json(job)
    del content["sweep"]
    write_json(job, content)
    capsys.readouterr()
    assert looked_into(tmp_path) == 2
    assert "that is not on record; --sweep PATH names it" in refusal(capsys)
    other = tmp_path / "other.py"
    other.write_text(own.read_text().replace('"own_vit"', '"other_vit"'))
    assert looked_into(tmp_path, "--sweep", other) == 2
    assert "other.py does not register" in capsys.readouterr().err
