"""Forms that ship: what is written, how 8 bits are chosen, and that its own numbers are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from harness.config import Evaluate, Runtime
from harness.data.catalog import open_data
from harness.errors import ConfigError, RecordError, how_to_install
from harness.evaluate.deploy import forms, recipes, sessions
from harness.evaluate.deploy.quantise import quantised
from harness.evaluate.deploy.recipes import (
    COLLAPSED,
    FAILED,
    FIT,
    WORSE,
    RecipeTrial,
    chosen,
    judged,
)
from harness.evaluate.deploy.sessions import open_session, session_of
from harness.models.export import load_model
from harness.run import execute, preflight
from harness.store.record import Store
from harness.train.checkpoint import load_weights
from tests.conftest import tiny_run, with_fingerprints, write_shapes

RUNTIME = Runtime()
FORMS = ["onnx", "onnx-int8"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that learnt colours, evaluated in both forms."""
    root = tmp_path_factory.mktemp("deployed")
    config = with_fingerprints(
        tiny_run(
            write_shapes(root / "shapes"),
            **{
                "model.image.backbone": "test_convnext",
                "train.samples": 768,
                "train.lr": 3e-3,
                "train.warmup_samples": 64,
                "evaluate.deploy": FORMS,
            },
        ),
        RUNTIME,
    )
    execute(config, root, RUNTIME, label="deployed")
    return config, Store(root).run_dir(config.run_key)


def entry_of(done: Any) -> Any:
    config, run = done
    return run.result()["evaluations"][config.evaluation_key]


def model_of(done: Any) -> Any:
    config, run = done
    kept = run.result()["checkpoint"]
    return load_model(config.model, load_weights(run.path, kept))


def test_every_form_has_all_numbers_of_the_model_and_outcomes_of_its_own(done: Any) -> None:
    config, run = done
    entry = entry_of(done)
    assert list(entry["deployed"]) == FORMS
    with np.load(run.outcomes / f"{config.evaluation_key}.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for form in FORMS:
        found = entry["deployed"][form]
        assert found["metrics"].keys() == entry["metrics"].keys()
        assert found["protocol"]["precision"] == form
        with np.load(run.path / found["outcomes"]) as archive:
            assert set(archive.files) == set(arrays)
    onnx_, plain = entry["deployed"]["onnx"]["metrics"], entry["metrics"]
    assert plain["test/mean_recall"]["value"] > 0.05
    for name in plain:
        assert onnx_[name]["value"] == pytest.approx(plain[name]["value"], abs=0.02)


def test_the_int8_row_is_of_the_int8_files(done: Any) -> None:
    """Embeddings by ONNX Runtime alone, of the very files, give the recorded recall again."""
    config, run = done
    told = entry_of(done)["deployed"]["onnx-int8"]
    folder = run.path / "deploy" / "onnx-int8"
    assert {t: f["mb"] for t, f in told["files"].items()} == {
        t: (folder / f"{t}.onnx").stat().st_size / 1e6 for t in ("image", "text")
    }
    kinds = {
        n.op_type for t in ("image", "text") for n in onnx.load(folder / f"{t}.onnx").graph.node
    }
    assert kinds & {"QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear"}

    data = open_data(config.data, RUNTIME)
    split, model = data.split("test"), model_of(done)
    pixels = torch.stack(
        [model.preprocess(np.array(_picture(data.read(name)))) for name in split.images]
    )
    from open_clip import tokenize  # CLIP's own ids, by another road

    texts = [text for captions in split.captions for text in captions]
    tokens = tokenize(texts, context_length=config.model.text.context_length)
    image, text = (
        onnxruntime.InferenceSession(folder / f"{tower}.onnx").run(None, {takes: batch.numpy()})[0]
        for tower, takes, batch in (("image", "pixels", pixels), ("text", "tokens", tokens))
    )
    scores = text @ image.T
    own = np.diag(scores)[:, None]
    better, equal = (scores > own).sum(1), (scores == own).sum(1)
    expected = np.mean(np.clip((5 - better) / equal, 0, 1))
    recorded = told["metrics"]["test/image_retrieval_recall@5"]["value"]
    assert recorded == pytest.approx(expected, abs=0.03)


def _picture(data: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def test_what_was_tried_is_on_record_and_the_naive_text_tower_is_caught(done: Any) -> None:
    recipe = entry_of(done)["deployed"]["onnx-int8"]["recipe"]
    for tower in ("image", "text"):
        tried = {each["recipe"]: each for each in recipe[tower]["tried"]}
        assert list(tried) == ["static", "static products", "dynamic", "weights"]
        assert [t["recipe"] for t in tried.values() if t["outcome"] == "chosen"] == [
            recipe[tower]["chosen"]
        ]
        assert all(t["accuracy"] is not None or t["why"] for t in tried.values())
        assert recipe[tower]["split"] == "train"  # these data have no validation split
    text = {each["recipe"]: each for each in recipe["text"]["tried"]}
    assert text["static"]["outcome"] in {COLLAPSED, WORSE}
    assert recipe["text"]["chosen"] != "static"


def test_forms_that_are_there_are_taken_up_and_damaged_ones_made_anew(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    config, run = done
    folder = tmp_path / "deploy"
    shutil.copytree(run.path / "deploy", folder)
    data, model = open_data(config.data, RUNTIME), model_of(done)
    sha256 = run.result()["checkpoint"]["sha256"]

    def build() -> Any:
        return forms.build("onnx", model, sha256, data, Evaluate(), RUNTIME, folder)

    written: list[Path] = []

    def write(_: Any, out: Path) -> None:
        written.append(out)
        shutil.copytree(run.path / "deploy" / "onnx", out, dirs_exist_ok=True)

    monkeypatch.setattr(forms, "write_onnx", write)
    before = build()
    assert not written
    (folder / "onnx" / "text.onnx").write_bytes(b"torn")
    assert build().files.keys() == before.files.keys()
    assert len(written) == 1
    (folder / "onnx" / "form.json").write_text("{")
    build()
    assert len(written) == 2
    forms.build("onnx", model, "1" * 64, data, Evaluate(), RUNTIME, folder)
    assert len(written) == 3


def test_a_tower_that_cannot_be_written_is_a_hole_with_its_reason(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_fingerprints(
        tiny_run(
            shapes_folder,
            **{
                "model.image.backbone": "test_convnext",
                "train.samples": 16,
                "evaluate.deploy": ["onnx-int8"],
            },
        ),
        RUNTIME,
    )

    def refuse(*_: Any) -> None:
        raise ConfigError("torch cannot write image.onnx: aten::odd has no operator")

    monkeypatch.setattr(forms, "write_onnx", refuse)
    execute(config, tmp_path, RUNTIME, label="x")
    entry = Store(tmp_path).run_dir(config.run_key).result()["evaluations"][config.evaluation_key]
    assert entry["metrics"]["test/mean_recall"]["value"] is not None
    assert entry["deployed"] == {
        "onnx-int8": {"hole": "torch cannot write image.onnx: aten::odd has no operator"}
    }


def test_a_missing_package_is_told_before_anything_trains(
    shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model.image.backbone": "test_convnext", "evaluate.deploy": ["onnx"]}
    config = with_fingerprints(tiny_run(shapes_folder, **changes), RUNTIME)
    assert preflight([config], RUNTIME) == []
    monkeypatch.setattr(sessions, "PACKAGES", ("onnx", "no_such_runtime"))
    (line,) = preflight([config], RUNTIME)
    assert line == f"evaluate.deploy needs no_such_runtime; {how_to_install('export')} brings it"


# --------------------------------------------------------------------------- the choice


def trial(
    recipe: str, outcome: str, accuracy: float | None, ms: float, mb: float = 1.0
) -> RecipeTrial:
    return RecipeTrial(recipe, "", outcome, accuracy, ms, mb)


@pytest.mark.parametrize(
    ("tried", "wanted"),
    [
        ([trial("a", FIT, 0.5, 2.0), trial("b", FIT, 0.5, 1.0)], "b"),
        ([trial("a", COLLAPSED, 0.1, 0.1), trial("b", FIT, 0.5, 1.0)], "b"),
        ([trial("a", WORSE, 0.4, 0.1), trial("b", WORSE, 0.3, 1.0)], "a"),
        ([trial("a", FIT, 0.5, 1.00, 3.0), trial("b", FIT, 0.5, 1.04, 2.0)], "b"),
        ([trial("a", FAILED, None, 0.0)], None),
    ],
    ids=["quickest", "not a collapsed one", "else most accurate", "of equals the smaller", "none"],
)
def test_which_recipe_is_chosen(tried: list[RecipeTrial], wanted: str | None) -> None:
    assert chosen(tried) == wanted


@pytest.mark.parametrize(
    ("accuracy", "reference", "chance", "wanted"),
    [
        (0.50, 0.505, 0.02, FIT),
        (0.40, 0.50, 0.02, WORSE),
        (0.10, 0.50, 0.02, COLLAPSED),
        (0.022, 0.021, 0.026, FIT),  # the model as trained is below chance itself
        (0.021, 0.021, 0.021, FIT),
        (0.005, 0.021, 0.026, WORSE),
    ],
)
def test_nothing_collapses_that_was_at_chance(
    accuracy: float, reference: float, chance: float, wanted: str
) -> None:
    assert judged(accuracy, reference, chance) == wanted


def test_weights_alone_keep_infinite_masks_and_their_scale(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    mask = np.triu(np.full((64, 64), -np.inf, np.float32), 1)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Add", ["y", "m"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [64, 64])],
        [numpy_helper.from_array(rows, "w"), numpy_helper.from_array(mask, "m")],
    )
    file = tmp_path / "t.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file
    )
    data = quantised(file, "weights", [])
    x = np.eye(64, dtype=np.float32)
    (found,) = session_of(data, "t.onnx", 1).run(None, {"x": x})
    steps = np.abs(rows).max(1, keepdims=True) / 127
    below = np.tril_indices(64)
    assert np.isneginf(found[np.triu_indices(64, 1)]).all()
    assert (np.abs(found - rows) <= steps / 2 + 1e-6)[below].all()
    assert len(data) < 0.7 * file.stat().st_size


# --------------------------------------------------------------------------- files of others


def model_file(folder: Path, **changes: Any) -> Path:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    domain = changes.get("domain", "")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [weight],
    )
    if "location" in changes:
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=changes["location"])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)]
    file = folder / "m.onnx"
    file.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"location": "../../secret"}, "keeps weights in other files"),
        ({"location": "beside.bin"}, "keeps weights in other files"),
        ({"domain": "evil"}, "wants operators of 'evil'"),
    ],
)
def test_a_file_that_reaches_beyond_itself_is_not_opened(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    (tmp_path / "beside.bin").write_bytes(bytes(64))
    with pytest.raises(RecordError, match=words):
        open_session(model_file(tmp_path, **changes), 1)


def test_a_branch_is_looked_through_too(tmp_path: Path) -> None:
    inner = onnx.load(model_file(tmp_path, location="/etc/passwd"), load_external_data=False).graph
    del inner.input[:]
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [node],
        "outer",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
    )
    with pytest.raises(RecordError, match="keeps weights in other files"):
        session_of(helper.make_model(graph).SerializeToString(), "m.onnx", 1)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x00" * 100, json.dumps({}).encode()])
def test_what_is_no_model_is_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(data)
    with pytest.raises((RecordError, ConfigError)) as told:
        open_session(file, 1)
    assert "\n" not in str(told.value)
    with pytest.raises(RecordError, match="cannot be read"):
        open_session(tmp_path / "absent.onnx", 1)
    with pytest.raises(RecordError, match="SHA-256 differs"):
        open_session(file, 1, "0" * 64)


def test_recipes_choose_by_validation_where_there_is_one(shapes: Any) -> None:
    data, name = recipes._rows_to_choose_by(shapes)
    assert name == "train"
    object.__setattr__(shapes, "splits", {**shapes.splits, "validation": shapes.split("test")})
    data, name = recipes._rows_to_choose_by(shapes)
    assert name == "validation"
    assert set(data.splits) == {"validation"}
