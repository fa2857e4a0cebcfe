"""The deployed forms of a trained model on disk: written once, taken up where they are whole.

    <folder>/onnx/         image.onnx, text.onnx, tokenizer.json, form.json
    <folder>/onnx-int8/    image.onnx, text.onnx, form.json

`form.json` is written last: the hash of each file, of what weights they were made and how.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.config import DeployedForm, Evaluate, Runtime, content_key
from harness.data.dataset import DataSet
from harness.errors import HarnessError
from harness.evaluate.deploy.encoders import DeployedModel
from harness.evaluate.deploy.recipes import TOWERS, RecipeSearch
from harness.evaluate.deploy.sessions import open_session
from harness.evaluate.model import Identity, preprocessing, tokenizer_key
from harness.files import read_json, sha256_of, write_json
from harness.models.export import write_onnx
from harness.models.two_tower import TwoTower

FORM = "form.json"
_SCHEMA = 1
_MAKERS = ("onnx", "onnxruntime", "onnxscript", "torch")


@dataclass(frozen=True)
class BuiltForm:
    """A deployed form that is on disk.

    Attributes:
        files: tower -> {"file", "sha256", "mb"}.
        recipe: tower -> how its 8 bits were chosen; empty in fp32.
    """

    form: DeployedForm
    folder: Path
    files: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]

    def load(self, of: TwoTower, threads: int) -> DeployedModel:
        """Sessions of its files; RecordError or ConfigError when they cannot be had."""
        towers = {
            tower: open_session(self.folder / told["file"], threads, told["sha256"])
            for tower, told in self.files.items()
        }
        return DeployedModel(self.form, of, **towers)

    def identity(self, model: DeployedModel, of: TwoTower) -> Identity:
        """What numbers of it depend on: its files, in place of the weights they were made of."""
        digests = {tower: told["sha256"] for tower, told in self.files.items()}
        return Identity(
            checkpoint=content_key(digests, digits=64),
            text_tower=str(digests["text"]),
            config={**of.config.identity(), "form": self.form},
            tokenizer=tokenizer_key(model.tokenizer),
            preprocessing=preprocessing(of.config),
        )


def build(
    form: DeployedForm,
    model: TwoTower,
    checkpoint_sha256: str,
    data: DataSet,
    settings: Evaluate,
    runtime: Runtime,
    folder: Path,
) -> BuiltForm:
    """The form in `folder`, made first unless it is there whole, of the same weights.

    Raises:
        ConfigError: a tower cannot be written, or no 8-bit recipe runs.
        InvariantError: ONNX Runtime computes something else than the model.
        DataError: no samples to calibrate or choose by.
    """
    makers = {name: version(name) for name in _MAKERS}
    made_of = {"checkpoint": checkpoint_sha256, "makers": makers}
    found = _kept(form, folder / form, made_of)
    if found is not None:
        return found
    own = copy.deepcopy(model).cpu().eval()
    own_folder = folder / form
    recipe: dict[str, Any] = {}
    if form == "onnx":
        write_onnx(own, own_folder)
    else:
        plain = build("onnx", own, checkpoint_sha256, data, settings, runtime, folder)
        files = {tower: plain.folder / told["file"] for tower, told in plain.files.items()}
        trials = RecipeSearch(own, files, data, settings, runtime)
        recipe = {tower: trials.choose(tower, own_folder) for tower in TOWERS}
    files = {tower: _file(own_folder / f"{tower}.onnx") for tower in TOWERS}
    told = {"schema": _SCHEMA, "form": form, **made_of, "files": files, "recipe": recipe}
    write_json(own_folder / FORM, told)
    return BuiltForm(form, own_folder, files, recipe)


def _file(file: Path) -> dict[str, Any]:
    mb = file.stat().st_size / 1e6
    return {"file": file.name, "sha256": sha256_of(file), "mb": mb}


def _kept(form: DeployedForm, folder: Path, made_of: Mapping[str, Any]) -> BuiltForm | None:
    """The form that is there, if it is of these weights and makers and its files are as written."""
    try:
        told = read_json(folder / FORM)
    except HarnessError:
        return None
    if told is None or told.get("schema") != _SCHEMA or told.get("form") != form:
        return None
    if any(told.get(name) != value for name, value in made_of.items()):
        return None
    wanted = {tower: _file(file) for tower in TOWERS if (file := folder / f"{tower}.onnx").exists()}
    if told.get("files") != wanted or set(wanted) != set(TOWERS):
        return None
    return BuiltForm(form, folder, wanted, told.get("recipe", {}))
