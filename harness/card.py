"""The papers of an exported model: its card, and an example that runs the ONNX files without torch.

Owns the words; every number comes from the run's records, so the same run gives the same bytes.
Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from harness import metrics
from harness.config import RunConfig
from harness.record import dump_json
from harness.report.text import DASH, markdown, markdown_code, number, plain

#: What a card shows of an attempt's provenance entry, in this order.
_PROVENANCE = ("time", "commit", "dirty", "device", "cpu", "threads")

_CARD = """\
---
library_name: {{ "open_clip" if in_open_clip else "onnx" }}
pipeline_tag: zero-shot-image-classification
tags:
- clip
- lightclip
---

# {{ title | md }}

A two-tower CLIP model: {{ backbone | code }} for {{ size }} x {{ size }} pictures, CLIP's causal \
text transformer with {{ text.layers }} {{ "layer" if text.layers == 1 else "layers" }} of width \
{{ text.width }} and {{ text.context_length }} tokens of context, and a shared space of \
{{ embed_dim }} dimensions.
Trained and evaluated by lightclip-harness ([LightCLIP](https://arxiv.org/abs/2312.00674)), run \
{{ key | code }}.

## Use

{% if in_open_clip %}
With [open_clip](https://github.com/mlfoundations/open_clip) alone, `DIR` being this folder:

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:DIR")
tokenizer = open_clip.get_tokenizer("local-dir:DIR")
model.eval()
```

{% endif %}
{% if in_onnx %}
With onnxruntime, without torch; the files give embeddings at unit norm, for any number of inputs:

```
pip install onnxruntime tokenizers pillow numpy
python example.py PICTURE "a photo of a cat" "a photo of a dog"
```

{% endif %}
{% if why %}
{{ why | md }}; hence the ONNX files alone.

{% endif %}
## Cost

{{ cost }}
{% if compact %}
Counted with the {{ rows }} rows of the token embedding that the training captions use; the \
files hold CLIP's full table of 49,408 rows, for CLIP's own tokenizer. Where the training captions \
lack a piece, its row is the one that stood for all such pieces.

{% endif %}
## Training

{% for line in training %}
- {{ line }}
{% endfor %}

## Metrics

{% for evaluation in evaluations %}
{{ evaluation.table }}
{% for line in evaluation.protocol %}
- {{ line }}
{% endfor %}

{% endfor %}
## Provenance

{{ provenance }}
Everything that defines the run; its hash is the key.

```json
{{ config }}
```
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
SIZE = {{ size }}
MEAN = np.array({{ mean }}, dtype=np.float32)
STD = np.array({{ std }}, dtype=np.float32)
LOGIT_SCALE = {{ logit_scale }}


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
    return _render(
        _EXAMPLE,
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
    model = config.model
    return _render(
        _CARD,
        in_open_clip=in_open_clip,
        in_onnx=in_onnx,
        why=why,
        title=f"{model.image.backbone} with a {model.text.layers}-layer text tower",
        backbone=model.image.backbone,
        size=model.image.size,
        text=model.text,
        embed_dim=model.embed_dim,
        key=config.run_key,
        compact=model.text.vocabulary == "corpus",
        rows=f"{result['cost']['parameters']['text_embeddings'] // model.text.width:,}",
        cost=_cost_table(result["cost"]),
        training=list(_training(config, result)),
        evaluations=[
            {"table": _metrics_table(entry["metrics"]), "protocol": list(_protocol(entry))}
            for _, entry in sorted(result["evaluations"].items())
        ],
        provenance=_provenance_table(result, attempts),
        config=dump_json(config.identity()).decode().rstrip("\n"),
    )


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown and Python: foreign words pass through the filters
    )
    environment.filters |= {"md": markdown, "code": markdown_code}
    return environment.from_string(template).render(**values)


# --------------------------------------------------------------------------- parts of the card


def _cost_table(cost: Mapping[str, Any]) -> str:
    names = [
        "cost/parameters/inference",
        "cost/parameters/image",
        "cost/parameters/text",
        "cost/gmacs/image",
        "cost/gmacs/text",
        "cost/latency_ms/image_batch1",
        "cost/latency_ms/text_batch1",
    ]
    rows = [[markdown(metrics.display(name)), _cost(cost, name)] for name in names]
    return _table(["cost", "value"], [*rows, ["measured on", markdown(cost["device"])]])


def _cost(cost: Mapping[str, Any], name: str) -> str:
    value = metrics.cost_value(cost, name)
    return DASH if value is None else f"{value * metrics.scale(name):.3g} {metrics.unit(name)}"


def _training(config: RunConfig, result: Mapping[str, Any]) -> Iterator[str]:
    data, train, training = config.data, config.train, result["training"]
    fingerprint = markdown_code((data.fingerprint or DASH)[:12])
    yield f"Data: {markdown(data.source)}, fingerprint {fingerprint}"
    if "parent" in result:
        parent = result["parent"]
        yield (
            f"Text tower from blocks {', '.join(map(str, parent['blocks']))}, the embeddings, last "
            f"norm and projection of run {markdown_code(parent['run'])}, weights "
            f"{markdown_code(parent['checkpoint'][:12])}"
        )
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
        f"Precision {markdown(training['precision'])} on {markdown(training['device'])}, "
        f"{training['seconds']:,.1f} seconds; final loss {training['final_loss']:.4f}"
    )
    if training["bad_samples"]:
        yield f"{len(training['bad_samples'])} samples were unusable and left out"


def _metrics_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    return _table(
        ["metric", "value", "chance", "unit", "n", "record"],
        [
            [
                markdown(metrics.display(name)),
                _shown(name, entry["value"], entry["reason"]),
                _shown(name, entry["chance"], None),
                markdown(metrics.unit(name)),
                f"{entry['n']:,}",
                markdown_code(name),
            ]
            for name, entry in sorted(found.items(), key=_by_number)
        ],
    )


def _by_number(item: tuple[str, object]) -> list[tuple[str, int]]:
    """A metric's place: recall@5 before recall@10."""
    return [(words, int(k or 0)) for words, k in re.findall(r"(\D+)(\d*)", item[0])]


def _shown(name: str, value: float | None, reason: str | None) -> str:
    if value is None:
        return f"{DASH} ({markdown(reason)})" if reason else DASH
    return number(value * metrics.scale(name), 2)


def _protocol(entry: Mapping[str, Any]) -> Iterator[str]:
    protocol = entry["protocol"]
    data = protocol["data"]
    fingerprint = markdown_code(str(data["fingerprint"])[:12])
    yield f"Evaluated on {markdown(data['name'])}, fingerprint {fingerprint}"
    for name, facts in protocol["splits"].items():
        excluded = f", {len(facts['excluded'])} unreadable" if facts["excluded"] else ""
        yield (
            f"Split {markdown(name)}: {facts['images']:,} pictures, {facts['captions']:,} captions"
            f"{excluded}"
        )
    for name, facts in protocol["class_folders"].items():
        yield f"Class folder {markdown(name)}: {facts['images']:,} pictures"
    for name, task in {**protocol["tasks"], **protocol["class_folders"]}.items():
        prompts = ", ".join(map(markdown_code, task["templates"]))
        yield f"{markdown(name)}: {len(task['classnames'])} classes, prompts {prompts}"
    yield f"Pictures: {markdown(plain(protocol['preprocessing']))}"
    for name, rule in sorted(protocol["rules"].items()):
        yield f"{markdown(name.replace('_', ' '))}: {markdown(rule)}"
    yield (
        f"Encoders in {markdown(protocol['precision'])}; content "
        f"{markdown_code(entry['content_key'])}"
    )


def _provenance_table(result: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> str:
    last = attempts[-1] if attempts else {}
    facts = {
        "checkpoint, SHA-256": result["checkpoint"]["sha256"],
        "code that made the numbers": result["code"],
        "attempts": len(attempts),
        **{name: last.get(name) for name in _PROVENANCE},
        "versions": last.get("versions"),
    }
    return _table(["what", "value"], [[markdown(k), markdown(plain(v))] for k, v in facts.items()])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
