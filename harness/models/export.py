"""A trained two-tower model in the forms that others load: open_clip's, and ONNX.

Owns the names of open_clip's weights, CLIP's full table of tokens, the tokenizer as a file, and the
checks that what is handed out computes what was trained.  Knows nothing of runs or their records.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import safetensors.torch
import timm
import torch
from open_clip.tokenizer import SimpleTokenizer
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Model
from harness.data.text import EOT, FULL_SIZE, OTHER, SOT
from harness.errors import ConfigError, InvariantError
from harness.files import write_atomic
from harness.models.names import BACKBONES, is_timm_model
from harness.models.two_tower import TwoTower, rows_of, take_up

#: The names that open_clip looks for in a `local-dir:` folder or a hub repository.
WEIGHTS, OPEN_CLIP_CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
IMAGE_ONNX, TEXT_ONNX, TOKENIZER = "image.onnx", "text.onnx", "tokenizer.json"
#: Version of ONNX's operators: the one torch's exporter writes natively, read by every runtime
#: since 2023.
OPSET = 18

_OPEN_CLIP_TOLERANCE = 1e-5
_ONNX_TOLERANCE = 1e-4
"""Largest difference of any number of a unit-norm embedding."""
_PROBES = 3
_NAMES = {"image.backbone.": "visual.trunk.", "image.projection.": "visual.head.proj."}


class NotForOpenClip(ConfigError):
    """An image tower that plain open_clip does not build."""


class _Probe(NamedTuple):
    """Inputs, and what the trained model makes of them.

    Attributes:
        pixels: (N, 3, S, S).
        tokens: int64 (N, context_length), ids of CLIP's full table, padded with 0.
        image, text: unit-norm embeddings (N, D).
    """

    pixels: Tensor
    tokens: Tensor
    image: Tensor
    text: Tensor


# --------------------------------------------------------------------------- the trained model


def load_model(config: Model, weights: dict[str, Tensor]) -> TwoTower:
    """The model of a run's final weights, on the CPU and in evaluation mode.

    Raises RecordError where they are another model's.
    """
    model = TwoTower(config, rows_of(weights), seed=0)
    take_up(model, weights)
    return model.eval()


def with_full_table(model: TwoTower) -> TwoTower:
    """The same model with all 49,408 rows of CLIP's table, so that CLIP's own tokenizer serves it.

    A row that the training captions lack is the one that stood for all of them, so every text has
    the embedding it had.
    """
    config = model.config.text.model_copy(update={"vocabulary": "full"})
    full = TwoTower(model.config.model_copy(update={"text": config}), None, seed=0)
    state = model.state_dict()
    rows = state.pop("token_rows", None)
    if rows is not None:
        state["text.token_embedding.weight"] = _full_rows(
            state["text.token_embedding.weight"], rows
        )
    full.load_state_dict(state)
    return full.eval()


def _full_rows(compact: Tensor, rows: Tensor) -> Tensor:
    """(V, W) to (49408, W); `rows` (V,) holds the full id of each compact id."""
    table = compact[OTHER].repeat(FULL_SIZE, 1)
    table[rows[OTHER + 1 :]] = compact[OTHER + 1 :]
    return table


@torch.no_grad()
def _probe(model: TwoTower) -> _Probe:
    """Random pictures, and random texts of every length with pieces that the corpus lacks too."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.image.size
    pixels = torch.randn(_PROBES, 3, size, size, generator=generator)
    pieces = torch.arange(SOT) if model.tokenizer.rows is None else _mixed_pieces(model)
    tokens = _random_texts(pieces, model.config.text.context_length, generator)
    return _Probe(
        pixels, tokens, model.encode_image(pixels), model.encode_text(_own_ids(model, tokens))
    )


def _mixed_pieces(model: TwoTower) -> Tensor:
    """The pieces of the corpus and as many others, as full ids."""
    own = model.token_rows[OTHER + 1 : -2]  # type: ignore[index]
    return torch.cat([own, (own + SOT // 2) % SOT])


def _random_texts(pieces: Tensor, context_length: int, generator: torch.Generator) -> Tensor:
    tokens = torch.zeros(_PROBES, context_length, dtype=torch.int64)
    for row, text in enumerate(tokens):
        words = max(1, (context_length - 2) * (row + 1) // _PROBES)
        chosen = torch.randint(len(pieces), (words,), generator=generator)
        text[: words + 2] = torch.tensor([SOT, *pieces[chosen].tolist(), EOT])
    return tokens


def _own_ids(model: TwoTower, tokens: Tensor) -> Tensor:
    """Ids of the full table as those of the model's own."""
    rows = model.token_rows
    if not isinstance(rows, Tensor):
        return tokens
    compact = torch.full((FULL_SIZE,), OTHER)
    compact[rows[OTHER + 1 :]] = torch.arange(OTHER + 1, len(rows))
    # What follows EOT is padding whatever its id; EOT itself stays the highest of its row.
    return compact[tokens]


# --------------------------------------------------------------------------- open_clip


def write_open_clip(model: TwoTower, folder: Path) -> None:
    """Write weights and configuration as plain open_clip loads them from `local-dir:<folder>`.

    Raises:
        NotForOpenClip: open_clip cannot build this image tower, or builds another one.  Nothing
            has been written then.
    """
    backbone = model.config.image.backbone
    why = _obstacle(model)
    if why is None:
        config = open_clip_config(model.config)
        state = open_clip_state(model)
        why = _difference(config["model_cfg"], state, _probe(model))
    if why is not None:
        raise NotForOpenClip(f"plain open_clip cannot load the image tower {backbone!r}: {why}")
    write_atomic(folder / WEIGHTS, safetensors.torch.save(state, {"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / OPEN_CLIP_CONFIG, text.encode())


def open_clip_config(config: Model) -> dict[str, Any]:
    """open_clip's description of the model and of the evaluation transform of its pictures."""
    image, text = config.image, config.text
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "custom_text": True,
            "vision_cfg": {
                "timm_model_name": image.backbone,
                "timm_model_pretrained": False,
                "timm_pool": "",  # the backbone's own
                "timm_proj": "linear",
                "image_size": image.size,
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": FULL_SIZE,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
        },
        "preprocess_cfg": {
            "mean": list(image.mean),
            "std": list(image.std),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def open_clip_state(model: TwoTower) -> dict[str, Tensor]:
    """The weights under the names of open_clip's CustomTextCLIP, with CLIP's full table."""
    state = with_full_table(model).state_dict()
    return {_open_clip_name(name): tensor.contiguous() for name, tensor in state.items()}


def _open_clip_name(name: str) -> str:
    for ours, theirs in _NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _obstacle(model: TwoTower) -> str | None:
    """Why open_clip cannot build the image tower, as far as can be told beforehand."""
    image, backbone = model.config.image, model.image.backbone
    name = image.backbone
    if name in BACKBONES or not is_timm_model(name):
        return "it builds towers by their names in timm, which lacks this one"
    if image.output_stride is not None:
        return f"it has no setting for output_stride = {image.output_stride}"
    native = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if native is not None and native.fixed_input_size and native.input_size[-1] != image.size:
        return (
            f"it builds this one for {native.input_size[-1]}-pixel pictures alone, "
            f"and this model takes {image.size}"
        )
    # open_clip puts its own projection on num_features.  With timm_proj "" timm's classifier takes
    # the projection's place and gives the same embeddings, but brings a bias: embed_dim parameters
    # that were never trained.  With "none" the trunk ends in its head, and nothing projects.
    if backbone.head_hidden_size != backbone.num_features:
        return (
            f"its projection stands on the {backbone.num_features} channels of the last map, "
            f"and this model's on the {backbone.head_hidden_size} of the head"
        )
    return None


@torch.no_grad()
def _difference(model_cfg: dict[str, Any], state: dict[str, Tensor], probe: _Probe) -> str | None:
    """What keeps open_clip's model from computing what the trained one does, if anything."""
    towers = {name: model_cfg[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    try:
        plain = open_clip.CustomTextCLIP(**copy.deepcopy(towers)).eval()
        plain.load_state_dict(state)
        image = plain.encode_image(probe.pixels, normalize=True)
        text = plain.encode_text(probe.tokens, normalize=True)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        return " ".join(str(error).split())
    gap = max(_gap(image, probe.image), _gap(text, probe.text))
    if not gap <= _OPEN_CLIP_TOLERANCE:
        return f"what it builds gives embeddings that differ by {gap:g}"
    return None


def _gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())


# --------------------------------------------------------------------------- ONNX


class _UnitNorm(nn.Module):
    """A tower with its output at unit norm."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, batch: Tensor) -> Tensor:
        return F.normalize(self.tower(batch).float(), dim=-1)


def write_onnx(model: TwoTower, folder: Path) -> None:
    """Write both towers as ONNX, re-parameterised where timm can, and the tokenizer's file.

    `image.onnx` takes `pixels` float32 (N, 3, S, S), `text.onnx` takes `tokens` int64
    (N, context_length) as `tokenizer.json` gives them; both give `embeddings` float32 (N, D) at
    unit norm, for any N.

    Raises:
        ConfigError: torch cannot write a tower as ONNX.
        InvariantError: onnxruntime computes something else from a file.
    """
    deployed = with_full_table(model)
    reparameterize_model(deployed.image, inplace=True)
    probe = _probe(model)
    _write_tower(deployed.image, "pixels", probe.pixels, probe.image, folder / IMAGE_ONNX)
    _write_tower(deployed.text, "tokens", probe.tokens, probe.text, folder / TEXT_ONNX)
    write_atomic(folder / TOKENIZER, _tokenizer_file(model.config.text.context_length))


def _write_tower(tower: nn.Module, takes: str, batch: Tensor, wanted: Tensor, file: Path) -> None:
    write_atomic(file, onnx_bytes(_UnitNorm(tower).eval(), takes, batch, file.name))
    _check_onnx(file, takes, batch, wanted)


def onnx_bytes(tower: nn.Module, takes: str, batch: Tensor, name: str) -> bytes:
    """`tower` as an ONNX file `name` that takes any number of what `batch` holds several of.

    Raises ConfigError when torch cannot write it.
    """
    from torch.onnx import OnnxExporterError

    with torch.no_grad(), quiet("torch.onnx", "onnxscript", "onnx_ir"):
        try:
            program = torch.onnx.export(
                tower,
                (batch,),
                input_names=[takes],
                output_names=["embeddings"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                dynamo=True,
                verbose=False,
            )
        except OnnxExporterError as error:
            words = " ".join(str(error).split())
            raise ConfigError(f"torch cannot write {name}: {words}") from error
    if program is None:
        raise ConfigError(f"torch wrote no {name}")
    proto = program.model_proto
    _strip(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _strip(proto: Any) -> None:
    """Remove torch's notes on each node: stack traces with paths of the machine that exported."""
    graph = proto.graph
    noted: Iterable[Any]
    for noted in (graph.node, graph.initializer, graph.value_info, graph.input, graph.output):
        for item in noted:
            del item.metadata_props[:]


def _check_onnx(file: Path, takes: str, batch: Tensor, wanted: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for count in (1, len(batch)):
        (found,) = session.run(["embeddings"], {takes: batch[:count].numpy()})
        gap = _gap(torch.from_numpy(found), wanted[:count])
        if not gap <= _ONNX_TOLERANCE:
            raise InvariantError(
                f"{file.name} gives embeddings that differ by {gap:g} from the model's, "
                f"more than {_ONNX_TOLERANCE:g}, in a batch of {count}"
            )


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Without the exporter's notes on its own progress."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# --------------------------------------------------------------------------- the tokenizer


def _tokenizer_file(context_length: int) -> bytes:
    """CLIP's tokenizer as a file of the `tokenizers` library: ids cut and padded to the context.

    The ids are those of CLIP's own tokenizer, which straightens curly quotes alike, and beyond that
    repairs ligatures, broken encodings and HTML entities; this file does not.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    bpe = SimpleTokenizer()
    sot, eot = bpe.decoder[SOT], bpe.decoder[EOT]
    tokenizer = Tokenizer(
        models.BPE(vocab=bpe.encoder, merges=list(bpe.bpe_ranks), end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
            normalizers.Replace(Regex("[\u201c-\u201f]"), '"'),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{sot} $A {eot}", special_tokens=[(sot, SOT), (eot, EOT)]
    )
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=0, pad_token=bpe.decoder[0], length=context_length)
    text: str = tokenizer.to_str()
    return text.encode()
