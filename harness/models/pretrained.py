"""An image tower that starts from weights in a local file, and what those weights are.

Owns the file: its content is part of a run's identity (its path is not), it is read as tensors
alone and never as code, and it must fit the backbone exactly, the classifier aside.  Knows nothing
of training.  The fingerprint needs no torch, so that a login node can give it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import ImageTower
from harness.errors import ConfigError, few, one_line
from harness.files import sha256_once
from harness.models.names import BACKBONES, backbone_names

if TYPE_CHECKING:
    from torch import Tensor, nn

_FIELD = "model.image.pretrained"
_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts (open_clip, timm) keep the weights beside other state."""
_DATA_PARALLEL, _TRUNK = "module.", "visual.trunk."
_GLOBAL = re.compile(r"GLOBAL (\S+) was not an allowed global")

#: Names of efficientnet-pytorch (lukemelas) -> timm's; its blocks without expansion count their
#: norms from 1.
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **_SQUEEZE,
}
_PLAIN = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **_SQUEEZE,
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")
_TENSORFLOW_EPS = 1e-3


def weights_sha256(path: str, expected: str | None = None) -> str:
    """SHA-256 of the file at `path`; it is read once a process while nobody touches it.

    Raises ConfigError when it cannot be read, or is not what was `expected`.
    """
    try:
        found = sha256_once(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_content(path, found, expected)
    return found


def load_pretrained(backbone: nn.Module, image: ImageTower) -> None:
    """Put the weights and statistics of `image.pretrained` into `backbone`; nothing if it is null.

    Names may be those of timm, of a wrapped or a whole open_clip model (`module.`,
    `visual.trunk.`), or of efficientnet-pytorch.  What is left aside, a classifier or the rest of a
    CLIP model, is said on standard error.

    Raises:
        ConfigError: the file is absent, not the one that `image.pretrained_sha256` stands for,
            not tensors alone, or does not fit the backbone; the misfits are listed.
    """
    if image.pretrained is None:
        if image.pretrained_sha256 is not None:
            raise ConfigError(f"{_FIELD}_sha256 is given without {_FIELD}, the file itself")
        return
    data = _checked_bytes(image.pretrained, image)
    tensors, outside = _of_trunk(read_tensors(f"{_FIELD} = {image.pretrained!r}", data))
    if "_conv_stem.weight" in tensors:
        tensors = _from_efficientnet_pytorch(tensors, backbone, image)
    classifier = sorted(_classifier_names(backbone, image.backbone) & tensors.keys())
    for name in classifier:
        del tensors[name]
    _check_fit(tensors, backbone.state_dict(), image)
    # Not strict, because torch takes files from before BatchNorm counted its batches.
    backbone.load_state_dict(tensors, strict=False)
    aside = [f"classifier ({few(classifier)})"] if classifier else []
    aside += [f"{outside} tensors outside {_TRUNK.rstrip('.')}"] if outside else []
    print(
        f"{image.backbone} starts from {len(tensors)} tensors of {image.pretrained}"
        f"{'; left aside: ' + ', '.join(aside) if aside else ''}",
        file=sys.stderr,
        flush=True,
    )


# --------------------------------------------------------------------------- the file


def _checked_bytes(path: str, image: ImageTower) -> bytes:
    """The file's bytes; hashed as they are read, so that what is checked is what is loaded."""
    if image.pretrained_sha256 is None:
        raise ConfigError(
            f"{_FIELD} = {path!r} is without {_FIELD}_sha256, which is its part in the identity of "
            "a run; a sweep fills it in, and so does harness.models.pretrained.weights_sha256"
        )
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_content(path, hashlib.sha256(data).hexdigest(), image.pretrained_sha256)
    return data


def _check_content(path: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ConfigError(
            f"{_FIELD} = {path!r} has SHA-256 {found[:12]}, but the configuration was made for "
            f"{expected[:12]}: its content has changed since"
        )


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"{_FIELD} = {path!r} cannot be read: {error.strerror or error}")


def read_tensors(what: str, data: bytes) -> dict[str, Tensor]:
    """Name -> tensor, of safetensors or of a state dict; the format is told by the content.

    What wraps a state dict, and what DistributedDataParallel puts before every name, is taken off.

    Raises ConfigError, which begins with `what`, for anything else.
    """
    import safetensors.torch
    import torch

    plain = data[8:9] == b"{"
    if not plain and not data.startswith((b"PK", b"\x80")):
        raise ConfigError(f"{what} is neither a safetensors file nor one of torch.save")
    try:
        found: Any = safetensors.torch.load(data) if plain else _load_stored(data)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        raise _refused(what, f" ({wanted[1]})" if wanted else "") from error
    except (
        safetensors.SafetensorError, RuntimeError, EOFError, LookupError, ValueError
    ) as error:  # fmt: skip
        if "TorchScript" in str(error):
            raise _refused(what, " (a TorchScript archive)") from error
        raise ConfigError(f"{what} is damaged: {one_line(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    why = _no_state_dict(found, torch.Tensor)
    if why is not None:
        raise ConfigError(f"{what} holds no state dict: {why}")
    bare = _DATA_PARALLEL if all(name.startswith(_DATA_PARALLEL) for name in found) else ""
    return {name.removeprefix(bare): tensor for name, tensor in found.items()}


def _load_stored(data: bytes) -> Any:
    """What torch.save wrote; ValueError where a zip unpacks to more than it is."""
    import torch

    if zipfile.is_zipfile(io.BytesIO(data)):
        try:
            members = zipfile.ZipFile(io.BytesIO(data)).infolist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(str(error)) from None
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("it declares more bytes than it has: torch.save compresses nothing")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _refused(what: str, why: str) -> ConfigError:
    return ConfigError(
        f"{what} is refused, because it needs code to load{why}; a safetensors file or "
        "torch.save(model.state_dict(), ...) holds tensors alone"
    )


def _no_state_dict(found: object, tensor: type[Tensor]) -> str | None:
    """Why `found` is no mapping of names to tensors; None if it is one."""
    if not isinstance(found, Mapping):
        return f"it is of type {type(found).__name__}"
    for name, value in found.items():
        if not isinstance(name, str):
            return f"the name {name!r} is no text"
        if not isinstance(value, tensor):
            return f"{name!r} is of type {type(value).__name__}"
    return None if found else "it is empty"


# --------------------------------------------------------------------------- names


def _of_trunk(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The image trunk of an open_clip model, if that is what this is, and the number of others."""
    trunk = {n.removeprefix(_TRUNK): t for n, t in tensors.items() if n.startswith(_TRUNK)}
    return (trunk, len(tensors) - len(trunk)) if trunk else (tensors, 0)


def _from_efficientnet_pytorch(
    tensors: Mapping[str, Tensor], backbone: nn.Module, image: ImageTower
) -> dict[str, Tensor]:
    """timm's names for those of efficientnet-pytorch, which numbers blocks without stages.

    Its weights were trained with TensorFlow's padding and norm; timm's models of that arithmetic
    are named `tf_`, and those without have the same shapes and give other features.
    """
    if not _has_tensorflow_arithmetic(backbone):
        twin = f"tf_{image.backbone}"
        hint = f"; backbone {twin!r} has" if twin in backbone_names() else ""
        raise ConfigError(
            f"{_FIELD} = {image.pretrained!r} is in the layout of efficientnet-pytorch, made for "
            "TensorFlow's padding and norms of eps 0.001, which backbone "
            f"{image.backbone!r} has not{hint}"
        )
    stages: Any = backbone.blocks
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(stage))]
    return {_timm_name(name, tensors, places): tensor for name, tensor in tensors.items()}


def _has_tensorflow_arithmetic(backbone: nn.Module) -> bool:
    from timm.layers.conv2d_same import Conv2dSame
    from timm.models.efficientnet import EfficientNet

    return (
        isinstance(backbone, EfficientNet)
        and isinstance(backbone.conv_stem, Conv2dSame)
        and backbone.bn1.eps == _TENSORFLOW_EPS
    )


def _timm_name(name: str, tensors: Mapping[str, Tensor], places: list[str]) -> str:
    """A name that has no counterpart is kept, and then does not fit."""
    inside = _BLOCK.fullmatch(name)
    if inside is None:
        module, _, rest = name.partition(".")
        return f"{_OUTSIDE.get(module, module)}.{rest}"
    number, module, rest = int(inside[1]), inside[2], inside[3]
    names = _EXPANDED if f"_blocks.{number}._expand_conv.weight" in tensors else _PLAIN
    if number >= len(places) or module not in names:
        return name
    return f"{places[number]}.{names[module]}.{rest}"


def _classifier_names(backbone: nn.Module, name: str) -> set[str]:
    """What the same architecture with a classifier has and the headless `backbone` has not."""
    import torch
    from timm.models import create_model

    own = backbone.state_dict().keys()
    if name not in BACKBONES:
        with torch.device("meta"):
            return set(create_model(name, pretrained=False).state_dict().keys() - own)
    head: Any = backbone.get_classifier()  # type: ignore[operator]
    modules = [path for path, module in backbone.named_modules() if module is head]
    return {f"{path}.{kind}" for path in modules for kind in ("weight", "bias")} - own


# --------------------------------------------------------------------------- fit


def _check_fit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], image: ImageTower) -> None:
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    if found := misfits(tensors, own, counters):
        raise ConfigError(
            f"{_FIELD} = {image.pretrained!r} does not fit backbone {image.backbone!r} at "
            f"{image.size} pixels: {found}"
        )


def misfits(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], optional: Container[str] = ()
) -> str:
    """What of a file does not fit a model with tensors `own`, in words; empty if all does.

    Args:
        optional: names that the file may lack.
    """
    kinds = {
        "missing": [name for name in own if name not in given and name not in optional],
        "unexpected": sorted(name for name in given if name not in own),
        "of another shape": [
            f"{name}: {tuple(given[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ],
    }
    return ", ".join(
        f"{len(names)} {kind} ({few(names)})" for kind, names in kinds.items() if names
    )
