"""A model's folder is data: nothing that lies in it or that it names is run or fetched."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import PYTHON, nasty

from harness.commands import evaluate
from harness.config import ImageTower, Model, TextTower
from harness.config.inheritance import TeacherName, read_teacher
from harness.data import taught
from harness.data.taught import Stored
from harness.data.verified import keep_json
from harness.errors import ConfigError
from harness.evaluate.open_clip_config import read_model_config
from harness.evaluate.open_clip_model import load_export
from harness.models.export import write_open_clip
from harness.models.teachers import content_of
from harness.models.two_tower import TwoTower
from harness.train.teacher import load_teacher

CONFIG = Model(
    image=ImageTower(backbone="test_resnet", size=32),
    text=TextTower(layers=1, width=16, heads=2, context_length=8),
    embed_dim=8,
)
PLANTED = {
    "tokenizer_config.json": json.dumps(
        {
            "tokenizer_class": "Planted",
            "auto_map": {"AutoTokenizer": ["planted.Planted", "planted.Planted"]},
        }
    ),
    "config.json": json.dumps(
        {"model_type": "planted", "auto_map": {"AutoConfig": "planted.Planted"}}
    ),
    "planted.py": PYTHON + "from transformers import PreTrainedTokenizer as Planted\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    write_open_clip(TwoTower(CONFIG, None, seed=0).eval(), made)
    for name, text in PLANTED.items():
        (made / name).write_text(text)
    return made


def change(folder: Path, path: str, value: object) -> None:
    file = folder / "open_clip_config.json"
    tree = json.loads(file.read_text())
    *parents, last = path.split(".")
    section: Any = tree
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    file.write_text(json.dumps(tree))


CODE = {
    "model_cfg.text_cfg.hf_tokenizer_name": "planted",
    "model_cfg.text_cfg.hf_model_name": "./export",
    "model_cfg.text_cfg.tokenizer_mode": "clips",
    "model_cfg.text_cfg.tokenizer_kwargs": {"trust_remote_code": True},
    "model_cfg.text_cfg.tokenizer_kwargs.bpe_path": "/etc/passwd",
    "model_cfg.vision_cfg.timm_model_name": "hf-hub:someone/model",
}


@pytest.mark.parametrize("path", CODE)
def test_what_may_run_code_is_refused_and_the_option_is_named(folder: Path, path: str) -> None:
    change(folder, "model_cfg.text_cfg.tokenizer_kwargs", {})
    change(folder, path, CODE[path])
    if path.endswith("name"):
        change(folder, "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    with pytest.raises(ConfigError, match=r"is refused: .*--trust-code takes it"):
        load_export(folder)


def test_the_command_refuses_it_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, "model_cfg.text_cfg.hf_tokenizer_name", "planted")
    change(folder, "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    assert evaluate.main([str(folder), "--suite", "smoke"]) != 0
    said = capsys.readouterr()
    assert "text_cfg.tokenizer_kwargs.trust_remote_code" in said.out + said.err
    assert "Traceback" not in said.err


def test_our_own_export_needs_no_option(folder: Path) -> None:
    model, _ = load_export(folder)
    assert model.tokenizer.context_length == 8


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model_cfg.text_cfg.hf_model", r"unknown field of text_cfg 'hf_model'; nearest: hf_model"),
        ("model_cfg.extra", "unknown field of model_cfg 'extra'"),
        ("preprocess_cfg.crop", "unknown field of preprocess_cfg 'crop'"),
    ],
)
def test_a_field_nobody_knows_is_refused(folder: Path, path: str, message: str) -> None:
    change(folder, path, 1)
    with pytest.raises(ConfigError, match=message):
        load_export(folder)


VALUES: list[object] = [None, [], {}, [[[]]], True, -1, 0, 1e300, 10**18, "x", {"a": 1}, ["a"]]


@pytest.mark.parametrize("section", ["model_cfg", "preprocess_cfg", ""])
def test_any_value_is_taken_or_refused_in_a_line(folder: Path, section: str) -> None:
    file = folder / "open_clip_config.json"
    whole = file.read_text()
    tree = json.loads(whole)
    names = list(tree[section] if section else tree)
    for name in names:
        for value in [*VALUES, *nasty(20)]:
            file.write_text(whole)
            change(folder, f"{section}.{name}".strip("."), value)
            with suppress(ConfigError):
                read_model_config(folder, trusted=False)


# --------------------------------------------------------------------------- as a teacher


@pytest.mark.parametrize("value", nasty(60))
def test_a_teachers_folder_is_data_too(folder: Path, value: str) -> None:
    change(folder, "model_cfg.embed_dim", value)
    with pytest.raises(ConfigError, match="tells no embed_dim"):
        content_of(TeacherName(path=str(folder)))
    with suppress(ConfigError):
        content_of(TeacherName(path=f"{folder}/{value}"))
    with suppress(ConfigError):
        content_of(TeacherName(path=str(folder), architecture=value))
    with suppress(ConfigError):
        read_teacher(value)


def test_a_teachers_folder_that_wants_code_is_refused(folder: Path) -> None:
    change(folder, "model_cfg.text_cfg.hf_model_name", "planted")
    name = TeacherName(path=str(folder))
    with pytest.raises(ConfigError, match="is refused"):
        load_teacher(name, content_of(name)[0], folder)


_WANTED = Stored("run 1a2b", "d" * 64, 0, (0.5, 1.0), False, "full")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (["samples"], [-1, 0, 10**15, 1e300, "5", None, [5]]),
        (["views"], [0, 10**15, True, {}]),
        (["width"], [0, -4, 10**12, "x"]),
        (["scale"], ["nan", 1e999, -1, 0, None]),
        (["missing"], [[10**9], [-1], "ab", [None]]),
        (["record"], [None, 3, [], "x"]),
        (["files"], [{}, {"../../x": "0"}, {"/etc/passwd": "0"}, ["x"], {"views.json": "0"}]),
        (["version"], [2, None, []]),
    ],
)
def test_a_strangers_store_of_embeddings_is_a_line(
    tmp_path: Path, path: list[str], values: list[object]
) -> None:
    folder = _WANTED.folder(tmp_path)
    taught.begin_store(folder)
    taught.write_part(folder, 0, 0, np.ones((5, 2, 4), np.float16), {})
    about = {"samples": 5, "views": 1, "scale": 3.0, "record": {}, "missing": []}
    taught.finish_store(folder, _WANTED, about)
    whole = json.loads((folder / taught.ABOUT).read_text())
    del whole["sha256"]
    assert taught.open_store(_WANTED, 1, tmp_path, "").samples == 5
    for value in values:
        with suppress(ValueError):
            keep_json(folder / taught.ABOUT, {**whole, path[0]: value})
            if path == ["samples"] and value == "5":
                continue
            with pytest.raises(ConfigError):
                taught.open_store(_WANTED, 2 if value is True else 1, tmp_path, "")
