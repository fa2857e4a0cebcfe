"""The papers of an exported model: its card, and an example that runs the ONNX files without torch.

Owns the words; every number comes from the run's records, so the same run gives the same bytes.
Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

from harness import metrics
from harness.config import RunConfig
from harness.document.blocks import Block, BulletList, Code, Document, Paragraph, Section
from harness.document.markdown import to_markdown
from harness.document.table import Table, plain_table
from harness.document.text import DASH, Text, code, link, number, plain
from harness.files import dump_json
from harness.report import prose

#: What a card shows of an attempt's provenance entry, in this order.
_PROVENANCE = ("time", "commit", "dirty", "device", "cpu", "threads")

_WITH_OPEN_CLIP = """\
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:DIR")
tokenizer = open_clip.get_tokenizer("local-dir:DIR")
model.eval()
"""
_WITH_ONNX = """\
pip install onnxruntime tokenizers pillow numpy
python example.py PICTURE "a photo of a cat" "a photo of a dog"
"""

_EXAMPLE = '''\
"""Which text fits a picture?  python example.py PICTURE TEXT [TEXT ...]

Needs onnxruntime, tokenizers, pillow and numpy; no torch.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).parent
SIZE = $size
MEAN = np.array($mean, dtype=np.float32)
STD = np.array($std, dtype=np.float32)
LOGIT_SCALE = $logit_scale


def preprocess(picture):
    """Shortest side to SIZE, centre crop, normalise: float32 (3, SIZE, SIZE)."""
    picture = picture.convert("RGB")
    width, height = picture.size
    short = min(width, height)
    picture = picture.resize(
        (int(SIZE * width / short), int(SIZE * height / short)), Image.Resampling.BICUBIC
    )
    left, top = (round((side - SIZE) / 2) for side in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)), dtype=np.float32)
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)


def run(name, **inputs):
    session = onnxruntime.InferenceSession(HERE / name, providers=["CPUExecutionProvider"])
    return session.run(["embeddings"], inputs)[0]


def embed_images(pictures):
    """Pictures to unit-norm embeddings, float32 (N, D)."""
    return run("image.onnx", pixels=np.stack([preprocess(picture) for picture in pictures]))


def embed_texts(texts):
    """Texts to unit-norm embeddings, float32 (N, D)."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return run("text.onnx", tokens=np.array(ids, dtype=np.int64))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with Image.open(sys.argv[1]) as picture:
        image = embed_images([picture])
    logits = LOGIT_SCALE * (image @ embed_texts(sys.argv[2:]).T)[0]
    shares = np.exp(logits - logits.max())
    for text, share in zip(sys.argv[2:], shares / shares.sum()):
        print(f"{share:6.1%}  {text}")
'''


def example(config: RunConfig, logit_scale: float) -> str:
    """`example.py`: the ONNX files with onnxruntime, tokenizers, pillow and numpy."""
    image = config.model.image
    return Template(_EXAMPLE).substitute(
        size=image.size,
        mean=list(image.mean),
        std=list(image.std),
        logit_scale=repr(logit_scale),
    )


def card(
    config: RunConfig,
    result: Mapping[str, Any],
    attempts: Sequence[Mapping[str, Any]],
    *,
    in_open_clip: bool,
    in_onnx: bool,
    why: str,
) -> str:
    """`README.md`: use, cost, recipe, metrics with their protocol, provenance.

    Args:
        result: of the run directory.
        attempts: entries of its provenance, oldest first.
        in_open_clip, in_onnx: the forms that the export holds.
        why: what keeps the model from being in open_clip's form; empty if it is or was not asked.
    """
    evaluations = [entry for _, entry in sorted(result["evaluations"].items())]
    page = Document(
        f"{config.model.image.backbone} with a {config.model.text.layers}-layer text tower",
        (
            Paragraph(_intro(config)),
            Section("Use", tuple(_use(in_open_clip, in_onnx, why))),
            Section("Cost", tuple(_cost(config, result["cost"]))),
            Section("Training", (BulletList(tuple(_training(config, result))),)),
            Section(
                "Metrics",
                tuple(
                    block
                    for entry in evaluations
                    for block in (
                        _metrics_table(entry["metrics"]),
                        BulletList(tuple(_protocol(entry))),
                    )
                ),
            ),
            Section(
                "Provenance",
                (
                    _provenance_table(result, attempts),
                    Paragraph("Everything that defines the run; its hash is the key."),
                    Code(dump_json(config.identity()).decode(), "json"),
                ),
            ),
        ),
    )
    library = "open_clip" if in_open_clip else "onnx"
    return _FRONT_MATTER.format(library) + to_markdown(page)


def _intro(config: RunConfig) -> Text:
    model, text = config.model, config.model.text
    layers = "1 layer" if text.layers == 1 else f"{text.layers} layers"
    return (
        "A two-tower CLIP model: ",
        code(model.image.backbone),
        f" for {model.image.size} x {model.image.size} pictures, CLIP's causal text transformer "
        f"with {layers} of width {text.width} and {text.context_length} tokens of context, and a "
        f"shared space of {model.embed_dim} dimensions. Trained and evaluated by "
        "lightclip-harness (",
        link("LightCLIP", "https://arxiv.org/abs/2312.00674"),
        "), run ",
        code(config.run_key),
        ".",
    )


_FRONT_MATTER = """\
---
library_name: {}
pipeline_tag: zero-shot-image-classification
tags:
- clip
- lightclip
---

"""


# --------------------------------------------------------------------------- parts of the card


def _use(in_open_clip: bool, in_onnx: bool, why: str) -> Iterator[Block]:
    if in_open_clip:
        open_clip = link("open_clip", "https://github.com/mlfoundations/open_clip")
        yield Paragraph(("With ", open_clip, " alone, ", code("DIR"), " being this folder:"))
        yield Code(_WITH_OPEN_CLIP, "python")
    if in_onnx:
        yield Paragraph(
            "With onnxruntime, without torch; the files give embeddings at unit norm, for any "
            "number of inputs:"
        )
        yield Code(_WITH_ONNX)
    if why:
        yield Paragraph(f"{why}; hence the ONNX files alone.")


def _cost(config: RunConfig, cost: Mapping[str, Any]) -> Iterator[Block]:
    names = [
        "cost/parameters/inference",
        "cost/parameters/image",
        "cost/parameters/text",
        "cost/gmacs/image",
        "cost/gmacs/text",
    ]
    numbers = [[metrics.display(name), _cost_text(cost, name)] for name in names]
    yield plain_table(["cost", "value"], numbers)
    if config.model.text.vocabulary == "corpus":
        rows = cost["parameters"]["text_embeddings"] // config.model.text.width
        yield Paragraph(
            f"Counted with the {rows:,} rows of the token embedding that the training captions "
            "use; the files hold CLIP's full table of 49,408 rows, for CLIP's own tokenizer. Where "
            "the training captions lack a piece, its row is the one that stood for all such pieces."
        )


def _cost_text(cost: Mapping[str, Any], name: str) -> str:
    value = metrics.cost_value(cost, name)
    return DASH if value is None else f"{value * metrics.scale(name):.3g} {metrics.unit(name)}"


def _training(config: RunConfig, result: Mapping[str, Any]) -> Iterator[Text]:
    data, train, training = config.data, config.train, result["training"]
    yield (f"Data: {data.source}, fingerprint ", code((data.fingerprint or DASH)[:12]))
    if "parent" in result:
        parent = result["parent"]
        yield (
            f"Text tower from blocks {', '.join(map(str, parent['blocks']))}, the embeddings, last "
            "norm and projection of run ",
            code(parent["run"]),
            ", weights ",
            code(parent["checkpoint"][:12]),
        )
    for teacher in result.get("teachers", ()):
        known = [f"run {teacher['run']}, weights"] if "run" in teacher else []
        what = str(teacher.get("checkpoint", teacher.get("content")))
        yield (f"Imitates {' '.join([*known, ''])}", code(what[:40]))
    active = config.objective.active
    terms = [f"{name} with weight {term.weight:g}" for name, term in active.items()]
    yield f"Terms of the loss, whose settings are below: {', '.join(terms)}"
    yield (
        f"{training['samples_seen']:,} of {train.samples:,} samples in {training['steps']:,} steps "
        f"of {train.batch_size:,}, seed {config.seed}"
    )
    clip = "no clipping" if train.grad_clip is None else f"gradients clipped at {train.grad_clip:g}"
    yield (
        f"AdamW ({train.beta1:g}, {train.beta2:g}, {train.eps:g}), learning rate {train.lr:g} "
        f"after {train.warmup_samples:,} samples of warm-up, then cosine; weight decay "
        f"{train.weight_decay:g}, {clip}"
    )
    yield (
        f"Precision {training['precision']} on {training['device']}, "
        f"{training['seconds']:,.1f} seconds; final loss {training['final_loss']:.4f}"
    )
    if training["bad_samples"]:
        yield f"{len(training['bad_samples'])} samples were unusable and left out"


def _metrics_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    return plain_table(
        ["metric", "value", "chance", "unit", "n", "record"],
        [
            [
                metrics.display(name),
                _shown(name, entry["value"], entry["reason"]),
                _shown(name, entry["chance"], None),
                metrics.unit(name),
                f"{entry['n']:,}",
                name,
            ]
            for name, entry in sorted(found.items(), key=_by_number)
        ],
        coded=["record"],
    )


def _by_number(item: tuple[str, object]) -> list[tuple[str, int]]:
    """A metric's place: recall@5 before recall@10."""
    return [(words, int(k or 0)) for words, k in re.findall(r"(\D+)(\d*)", item[0])]


def _shown(name: str, value: float | None, reason: str | None) -> str:
    if value is None:
        return f"{DASH} ({reason})" if reason else DASH
    return number(value * metrics.scale(name), 2)


def _protocol(entry: Mapping[str, Any]) -> Iterator[Text]:
    protocol = entry["protocol"]
    data = protocol["data"]
    yield (f"Evaluated on {data['name']}, fingerprint ", code(str(data["fingerprint"])[:12]))
    yield from prose.evaluated_on(protocol)
    yield from prose.prompts(protocol)
    yield f"preprocessing: {plain(protocol['preprocessing'])}"
    yield from prose.rules(protocol)
    yield (
        f"Encoders in {protocol['precision']}; content ",
        code(entry["content_key"]),
    )


def _provenance_table(result: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> Table:
    last = attempts[-1] if attempts else {}
    facts = {
        "checkpoint, SHA-256": result["checkpoint"]["sha256"],
        "code that made the numbers": result["code"],
        "attempts": len(attempts),
        **{name: last.get(name) for name in _PROVENANCE},
        "versions": last.get("versions"),
    }
    return plain_table(["what", "value"], [[name, plain(value)] for name, value in facts.items()])
