"""A two-tower model as open_clip's files and as ONNX."""

from __future__ import annotations

import json

import numpy as np
import onnx
import open_clip
import pytest
import torch
from PIL import Image
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from tokenizers import Tokenizer as TokenizerFile

from harness.config import Model, RunConfig, override
from harness.data.text import EOT, SOT, Tokenizer
from harness.errors import InvariantError
from harness.models import export
from harness.models.export import (
    NotForOpenClip,
    load_model,
    open_clip_config,
    with_full_table,
    write_onnx,
    write_open_clip,
)
from harness.models.names import BACKBONES
from harness.models.two_tower import TwoTower


@BACKBONES.register("branches_for_test")
def branches_for_test(size: int) -> ByobNet:
    """Two MobileOne blocks, whose branches re-parameterising folds into one."""
    block = ByoBlockCfg(type="one", d=1, c=8, s=2, br=1.0)
    return ByobNet(
        ByoModelCfg(
            blocks=(block, block),
            stem_type="one",
            stem_chs=8,
            num_features=0,
            block_kwargs={"num_conv_branches": 2},
        ),
        num_classes=0,
    )


def configuration(backbone: str, size: int = 32, **values: object) -> Model:
    paths = {
        "image.backbone": backbone,
        "image.size": size,
        "text.layers": 1,
        "text.width": 8,
        "text.heads": 2,
        "text.context_length": 8,
        "embed_dim": 4,
        **values,
    }
    return override(RunConfig(), {f"model.{path}": value for path, value in paths.items()}).model


def build(backbone: str, size: int = 32, **values: object) -> TwoTower:
    return TwoTower(configuration(backbone, size, **values), None, seed=0).eval()


def corpus_model(rows: list[int]) -> TwoTower:
    config = configuration("test_convnext", **{"text.vocabulary": "corpus"})
    return TwoTower(config, np.array(rows, dtype=np.int64), seed=0).eval()


# --------------------------------------------------------------------------- CLIP's full table


def test_a_compact_tables_rows_go_where_clips_tokenizer_looks_for_them():
    model = corpus_model([0, 5, 7, SOT, EOT])
    compact = model.text.token_embedding.weight
    full = with_full_table(model).text.token_embedding.weight
    assert full.shape == (49_408, 8)
    assert torch.equal(full[[5, 7, SOT, EOT]], compact[1:])
    others = torch.ones(49_408, dtype=torch.bool)
    others[[5, 7, SOT, EOT]] = False
    assert torch.equal(full[others], compact[0].expand(49_404, 8))


def test_the_piece_that_shares_its_full_id_with_padding_keeps_its_own_row():
    model = corpus_model([0, 0, 5, SOT, EOT])  # full id 0 is the piece "!"
    full = with_full_table(model).text.token_embedding.weight
    assert torch.equal(full[0], model.text.token_embedding.weight[1])
    assert torch.equal(full[1], model.text.token_embedding.weight[0])


def test_a_model_is_built_again_from_its_kept_weights():
    model = corpus_model([0, 5, 7, SOT, EOT])
    again = load_model(model.config, model.state_dict())
    assert not again.training
    assert again.tokenizer.rows.tolist() == [0, 5, 7, SOT, EOT]
    tokens = torch.tensor([[3, 1, 2, 4]])
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))


# --------------------------------------------------------------------------- open_clip


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet18", 32),
        ("mobilenetv2_100", 32),
        ("test_resnet", 32),
        ("test_convnext", 32),
        ("test_vit", 160),  # its native size, pooled at the class token
    ],
)
def test_open_clip_loads_the_folder_and_computes_the_same(backbone, size, tmp_path):
    model = build(backbone, size)
    write_open_clip(model, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "open_clip_config.json", "open_clip_model.safetensors",
    ]  # fmt: skip
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    pixels = torch.randn(2, 3, size, size)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a dog", "a dog " * 9])
    assert tokens.shape == (2, 8)
    with torch.no_grad():
        image, text, scale = plain.eval()(pixels, tokens)
        torch.testing.assert_close(image, model.encode_image(pixels), atol=1e-5, rtol=0)
        torch.testing.assert_close(text, model.encode_text(tokens), atol=1e-5, rtol=0)
    assert scale.item() == pytest.approx(1 / 0.07)
    picture = np.random.default_rng(0).integers(0, 256, (51, 77, 3), dtype=np.uint8)
    assert torch.equal(preprocess(Image.fromarray(picture)), model.preprocess(picture))


@pytest.mark.parametrize(
    ("backbone", "size", "values", "why"),
    [
        ("swin_nano", 32, {}, "names in timm, which lacks this one"),
        ("mobilenetv3_small_050", 32, {}, "the 288 channels of the last map.* 1024 of the head"),
        ("mobilenetv4_conv_small_035", 32, {}, "channels of the last map.* 1280 of the head"),
        ("test_vit", 32, {}, "for 160-pixel pictures alone, and this model takes 32"),
        ("test_resnet", 32, {"image.output_stride": 8}, "no setting for output_stride = 8"),
    ],
)
def test_a_tower_that_open_clip_cannot_build_is_refused_with_the_reason(
    backbone, size, values, why, tmp_path
):
    with pytest.raises(NotForOpenClip, match=rf"cannot load the image tower '{backbone}': .*{why}"):
        write_open_clip(build(backbone, size, **values), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tower_that_open_clip_builds_otherwise_is_never_written(tmp_path, monkeypatch):
    def pooled_otherwise(config: Model) -> dict:
        made = open_clip_config(config)
        made["model_cfg"]["vision_cfg"]["timm_pool"] = "max"
        return made

    monkeypatch.setattr(export, "open_clip_config", pooled_otherwise)
    with pytest.raises(NotForOpenClip, match=r"gives embeddings that differ by 0\.\d"):
        write_open_clip(build("test_resnet", 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_preprocessing_is_the_models_own(tmp_path):
    model = build("test_resnet", **{"image.mean": [0.5, 0.25, 0.125], "image.std": [1, 2, 3]})
    write_open_clip(model, tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"] == {
        "mean": [0.5, 0.25, 0.125],
        "std": [1, 2, 3],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


# --------------------------------------------------------------------------- ONNX


def operators(file, kind: str) -> int:
    return sum(node.op_type == kind for node in onnx.load(file).graph.node)


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    """A tower with branches, of a model with a compact table, as ONNX."""
    folder = tmp_path_factory.mktemp("onnx")
    model = build("branches_for_test")
    write_onnx(model, folder)
    return model, folder


def test_towers_are_written_with_their_branches_folded(branched):
    model, folder = branched
    convolutions = [m for m in model.image.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 8  # two branches in the stem, three in each of two blocks
    assert operators(folder / "image.onnx", "Conv") == 3
    assert operators(folder / "image.onnx", "BatchNormalization") == 0


def test_inputs_and_outputs_are_named_and_free_in_the_batch(branched):
    _, folder = branched
    shapes = {}
    for name in ("image", "text"):
        graph = onnx.load(folder / f"{name}.onnx").graph
        for value in [*graph.input, *graph.output]:
            dims = value.type.tensor_type.shape.dim
            shapes[name, value.name] = (
                onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
                [dim.dim_param or dim.dim_value for dim in dims],
            )
    assert shapes == {
        ("image", "pixels"): ("FLOAT", ["N", 3, 32, 32]),
        ("image", "embeddings"): ("FLOAT", ["N", 4]),
        ("text", "tokens"): ("INT64", ["N", 8]),
        ("text", "embeddings"): ("FLOAT", ["N", 4]),
    }


def test_the_tokenizers_file_gives_the_ids_of_clips_tokenizer(branched):
    _, folder = branched
    file = TokenizerFile.from_file(str(folder / "tokenizer.json"))
    texts = [
        "", "a dog", "It's  the DOG's “café”,\n12 naïve ones", "so " * 20, "x👩🏽‍🚀y", "中文 ''s 's"
    ]  # fmt: skip
    ids = Tokenizer(8)(texts)  # the longest of them fills the context
    assert [encoding.ids for encoding in file.encode_batch(texts)] == ids.tolist()


def test_a_file_that_computes_something_else_is_never_handed_out(tmp_path, monkeypatch):
    def spoil(tower: torch.nn.Module, inplace: bool) -> None:
        with torch.no_grad():
            tower.projection.weight[0] += 1

    monkeypatch.setattr(export, "reparameterize_model", spoil)
    with pytest.raises(InvariantError, match=r"image\.onnx gives embeddings that differ by"):
        write_onnx(build("branches_for_test"), tmp_path)


@pytest.mark.slow
@pytest.mark.thorough
def test_swin_nano_is_written_as_onnx(tmp_path):
    write_onnx(build("swin_nano", 32), tmp_path)  # checked with onnxruntime as it is written
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "image.onnx", "text.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert onnx.load(tmp_path / "image.onnx").opset_import[0].version == 18
