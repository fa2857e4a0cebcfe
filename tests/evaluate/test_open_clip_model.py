"""Models of open_clip as they are evaluated: loaded safely, cut exactly, told apart by content."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from harness.config import ImageTower, Model, TextTower
from harness.errors import ConfigError
from harness.evaluate.model import identity_of_run, tensors_sha256
from harness.evaluate.open_clip_model import OpenClipModel, load_checkpoint, load_export
from harness.models.export import WEIGHTS, open_clip_config, open_clip_state, write_open_clip
from harness.models.two_tower import TwoTower

CONFIG = Model(
    image=ImageTower(backbone="test_resnet", size=32),
    text=TextTower(layers=2, width=32, heads=2, context_length=16),
    embed_dim=16,
)
TEXTS = ["a cat", "a photo of a small grey cat on a very red mat", "two"]


@pytest.fixture(scope="module")
def towers() -> TwoTower:
    return TwoTower(CONFIG, None, seed=0).eval()


@pytest.fixture(scope="module")
def export(towers: TwoTower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_open_clip(towers, folder)
    return folder


@torch.no_grad()
def test_an_export_gives_the_embeddings_of_the_run(towers: TwoTower, export: Path) -> None:
    model, _ = load_export(export)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert torch.equal(model.preprocess(picture), towers.preprocess(picture))
    pixels = model.preprocess(picture)[None]
    assert torch.allclose(model.encode_image(pixels), towers.encode_image(pixels), atol=1e-6)
    ours, theirs = (m.encode_text(m.tokenizer(TEXTS)) for m in (model, towers))
    assert torch.allclose(ours, theirs, atol=1e-6)


@torch.no_grad()
def test_a_causal_tower_takes_texts_cut_to_their_longest(export: Path) -> None:
    model, _ = load_export(export)
    tokens = model.tokenizer(TEXTS[:1])
    assert model.cuts_texts
    assert torch.allclose(model.encode_text(tokens), model.encode_text(tokens[:, :5]), atol=1e-6)
    plain = F.normalize(model.clip.encode_text(tokens), dim=-1)
    assert torch.equal(model.encode_text(tokens), plain)


@pytest.mark.parametrize("custom", [True, False])
@torch.no_grad()
def test_a_tower_that_looks_ahead_is_given_whole_texts(custom: bool) -> None:
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
    if custom:
        more = {"no_causal_mask": True, "pool_type": "last"}
        clip = open_clip.CustomTextCLIP(16, vision, {**text, **more})
    else:
        clip = open_clip.CLIP(16, vision, text)
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    model = OpenClipModel(clip.eval(), tokenizer, {"size": 32})
    assert model.cuts_texts is not custom
    tokens = model.tokenizer(TEXTS[:1])
    plain = F.normalize(clip.encode_text(tokens), dim=-1)
    assert torch.allclose(model.encode_text(tokens[:, :5]), plain, atol=1e-6)


def test_truncated_texts_are_known(export: Path) -> None:
    model, _ = load_export(export)
    assert not model.tokenizer.is_truncated("word " * 14)
    assert model.tokenizer.is_truncated("word " * 15)


def test_identity_is_content(export: Path, tmp_path: Path, towers: TwoTower) -> None:
    _, first = load_export(export)
    state = safetensors.torch.load_file(export / WEIGHTS)
    config = json.loads((export / "open_clip_config.json").read_text())

    def other(name: str, **changes: object) -> tuple[str, str, object]:
        folder = tmp_path / name
        folder.mkdir()
        changed = {**state, **{k: v for k, v in changes.items() if isinstance(v, torch.Tensor)}}
        torch.save({"state_dict": changed}, folder / "weights.bin")
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        _, identity = load_export(folder)
        return identity.checkpoint, identity.text_tower, identity.preprocessing

    same = (first.checkpoint, first.text_tower, first.preprocessing)
    assert other("another-format") == same
    image = other("image", **{"visual.head.proj.weight": state["visual.head.proj.weight"] + 1})
    assert image[0] != same[0]
    assert image[1] == same[1]
    text = other("text", **{"text.ln_final.bias": state["text.ln_final.bias"] + 1})
    assert text[0] != same[0]
    assert text[1] != same[1]
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    assert other("mean")[2] != same[2]
    config["model_cfg"]["text_cfg"]["heads"] = 4
    assert other("heads")[1] != same[1]
    run = identity_of_run(towers, tensors_sha256(towers.state_dict().items()))
    assert run.tokenizer != ""


# --------------------------------------------------------------------------- refusing


def test_a_file_that_needs_code_is_refused(tmp_path: Path, export: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("ran",)

    (tmp_path / "open_clip_config.json").write_bytes(
        (export / "open_clip_config.json").read_bytes()
    )
    (tmp_path / "weights.bin").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ConfigError, match="is refused, because it needs code to load"):
        load_export(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing \(text\.ln_final\.bias\)"),
        ("unexpected", r"1 unexpected \(more\)"),
        ("shape", r"1 of another shape \(text\.ln_final\.bias: \(3,\) in the file"),
        ("damaged", "is damaged: SafetensorError"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    export: Path, tmp_path: Path, change: str, message: str
) -> None:
    state = safetensors.torch.load_file(export / WEIGHTS)
    if change == "missing":
        del state["text.ln_final.bias"]
    elif change == "unexpected":
        state["more"] = torch.zeros(1)
    elif change == "shape":
        state["text.ln_final.bias"] = torch.zeros(3)
    (tmp_path / "open_clip_config.json").write_bytes(
        (export / "open_clip_config.json").read_bytes()
    )
    safetensors.torch.save_file(state, tmp_path / WEIGHTS)
    if change == "damaged":
        (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(ConfigError, match=message):
        load_export(tmp_path)


def test_an_unknown_architecture_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="open_clip has no model 'ViT-B32'; nearest: ViT-B-32"):
        load_checkpoint("ViT-B32", tmp_path / "x.pt")


def test_a_registered_architecture_takes_its_checkpoint(
    towers: TwoTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_clip_config(CONFIG)["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-made-here", made)
    torch.save(open_clip_state(towers), tmp_path / "tiny.pt")
    model, _ = load_checkpoint("tiny-made-here", tmp_path / "tiny.pt")
    with torch.no_grad():
        ours, theirs = (m.encode_text(m.tokenizer(TEXTS)) for m in (model, towers))
    assert torch.allclose(ours, theirs, atol=1e-6)
