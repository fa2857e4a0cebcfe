"""Our numbers beside those of CLIP_benchmark's own functions, on the same model and data.

Owns how CLIP_benchmark is given what it wants, and which definition differs when numbers do.  Its
pictures are opened as torchvision opens them and its texts are encoded at the full context.  Equal
scores (of equal captions, say) it takes in an order that is not defined: where an outcome hangs on
a tie, its number has to be one that some order gives.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from harness.config import Evaluate, Runtime
from harness.config.bases import SMALL
from harness.data.catalog import cache_dir
from harness.data.class_sets import SPLIT
from harness.data.dataset import DataSet
from harness.data.images import decode
from harness.device import Precision, resolve_precision
from harness.errors import DataError
from harness.evaluate.benchmarks import place_of
from harness.evaluate.embed import PRECISION_FIELD, embed_images
from harness.evaluate.model import Encoders, Identity, identity_of_run
from harness.evaluate.parts import Part, evaluate_part
from harness.evaluate.suites.find import Found
from harness.evaluate.suites.open import open_found
from harness.metrics import ACC1, KS, MEAN_PER_CLASS_RECALL
from harness.metrics.choice import CHOICE
from harness.metrics.relevance import RELEVANCE

_INCOMPARABLE = {
    CHOICE: "CLIP_benchmark takes the first of equal captions for its answer, and that is the "
    "right one; choices are not compared with it",
    RELEVANCE: "CLIP_benchmark knows no labels of relevance; they are not compared with it",
}
_TOLERANCE = {"fp32": 1e-6, "bf16": 1e-4, "fp16": 1e-4}
_EMBEDDING_TOLERANCE = 1e-5
_LOOKED_AT = 256
"""Pictures and texts that are compared to find out why numbers differ."""


@dataclass(frozen=True)
class Row:
    """One metric, as both have it; None where it has no value.

    Attributes:
        low, high: what ours would be if every tie were broken for the worse or for the better.
        tied: queries or examples whose outcome hangs on a tie.
    """

    name: str
    ours: float | None
    theirs: float | None
    low: float = 0.0
    high: float = 0.0
    tied: int = 0

    @property
    def gap(self) -> float:
        """Distance of theirs from ours, or from the range that ties leave; infinite to no value."""
        if self.ours is None or self.theirs is None:
            return 0.0 if self.ours == self.theirs else math.inf
        if self.tied:
            return max(self.low - self.theirs, self.theirs - self.high, 0.0)
        return abs(self.ours - self.theirs)

    def __str__(self) -> str:
        ours, theirs = ("none" if v is None else f"{v:.7f}" for v in (self.ours, self.theirs))
        line = f"{self.name:42} ours {ours:>9}   CLIP_benchmark {theirs:>9}   gap {self.gap:.1e}"
        if not self.tied:
            return line
        return f"{line} from {self.low:.7f} to {self.high:.7f}, as {self.tied} ties are broken"


@dataclass(frozen=True)
class Agreement:
    """Every metric of one benchmark; `difference` names the definition that differs, if any."""

    precision: Precision
    rows: tuple[Row, ...]
    difference: str | None


def small_model() -> tuple[str, tuple[Encoders, Identity]]:
    """Towers of the built-in size with random weights, the same each time."""
    from harness.evaluate.model import tensors_sha256
    from harness.models.two_tower import TwoTower

    text = SMALL.model.text.model_copy(update={"vocabulary": "full"})
    model = TwoTower(SMALL.model.model_copy(update={"text": text}), None, seed=0).eval()
    return "random small towers", (
        model,
        identity_of_run(model, tensors_sha256(model.state_dict().items())),
    )


def compare(
    model: Encoders, identity: Identity, found: Found, settings: Evaluate, runtime: Runtime
) -> Agreement:
    """Evaluate `found` both ways, ours anew and with nothing kept.

    Raises:
        DataError, InvariantError: as `parts.evaluate_part`.
    """
    if found.benchmark.task in _INCOMPARABLE:
        raise DataError(f"{found.benchmark.name}: {_INCOMPARABLE[found.benchmark.task]}")
    device = next(model.parameters()).device
    precision = resolve_precision(settings.precision, device, PRECISION_FIELD)
    data = open_found(found, cache_dir(runtime))
    data.prepare()
    model.eval()  # CLIP_benchmark leaves a model as it is, and norms then learn from the test set
    with tempfile.TemporaryDirectory() as folder:
        fresh = runtime.model_copy(update={"cache": str(_shared_cache(runtime, Path(folder)))})
        place = place_of(found, fresh)
        part = evaluate_part(model, identity, place, settings, fresh, Path(folder))
        rows = _rows(part, _theirs(model, data, settings, precision))
    worst = max(rows, key=lambda row: row.gap)
    difference = None
    if worst.gap > _TOLERANCE[precision]:
        difference = _why(model, data, settings, precision, worst)
    return Agreement(precision, rows, difference)


def _shared_cache(runtime: Runtime, folder: Path) -> Path:
    """A cache without kept texts, with the rendered drawings of the real one."""
    for file in cache_dir(runtime).glob("openmoji-*.zip"):
        (folder / file.name).symlink_to(file)
    return folder


def _rows(part: Part, theirs: dict[str, float]) -> tuple[Row, ...]:
    outcomes = part.arrays()
    rows = []
    for name, value in theirs.items():
        metric = f"{part.name}/{name}"
        ours = part.metrics[metric]["value"] if metric in part.metrics else None
        row = Row(metric, ours, None if math.isnan(value) else value)
        rows.append(_with_range(row, part.name, outcomes))
    return tuple(rows)


def _with_range(row: Row, place: str, outcomes: Mapping[str, np.ndarray]) -> Row:
    per_class = row.name.endswith(MEAN_PER_CLASS_RECALL)
    hits = outcomes.get(f"{place}/{ACC1}" if per_class else row.name)
    if hits is None:
        return row
    tied = int(((hits > 0) & (hits < 1)).sum())
    worst, best = (hits == 1).astype(float), (hits > 0).astype(float)
    if per_class:
        labels = outcomes[f"{place}/labels"]
        low, high = (_mean_per_class(right, labels) for right in (worst, best))
    else:
        low, high = float(worst.mean()), float(best.mean())
    return replace(row, low=low, high=high, tied=tied)


def _mean_per_class(right: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


# --------------------------------------------------------------------------- CLIP_benchmark


class _Pictures(Dataset[Any]):
    """Pictures opened as torchvision opens files, with labels or captions; has `.classes`."""

    def __init__(self, data: DataSet, model: Encoders) -> None:
        split = data.split(SPLIT)
        self._data, self._model, self._images = data, model, split.images
        self.classes: Sequence[str] = data.tasks[0].classnames if data.tasks else ()
        self._targets: Sequence[Any] = (
            data.tasks[0].labels[SPLIT] if data.tasks else [list(c) for c in split.captions]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: int) -> tuple[Tensor, Any]:
        return self.pixels(place), self._targets[place]

    def pixels(self, place: int) -> Tensor:
        with Image.open(io.BytesIO(self._data.read(self._images[place]))) as picture:
            return _as_theirs(self._model, picture.convert("RGB"))


def _as_theirs(model: Encoders, picture: Image.Image) -> Tensor:
    """The model's transform of a PIL image, without any of our decoding."""
    return model.preprocess(np.asarray(picture))


class _Bare(nn.Module):
    """A model as CLIP_benchmark calls it."""

    def __init__(self, model: Encoders) -> None:
        super().__init__()
        self._encoders = [model]

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self._encoders[0].encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self._encoders[0].encode_text(tokens)


def _full_context(model: Encoders) -> Any:
    """The tokenizer with every text filled up to the context, as open_clip's fill them."""
    length = len(model.tokenizer(["word " * 1000])[0])

    def tokenize(texts: Sequence[str]) -> Tensor:
        # An empty text beside them shows the padding.
        tokens = model.tokenizer([*texts, ""])
        return F.pad(tokens[:-1], (0, length - tokens.shape[1]), value=int(tokens[-1, -1]))

    return tokenize


def _theirs(
    model: Encoders, data: DataSet, settings: Evaluate, precision: Precision
) -> dict[str, float]:
    from clip_benchmark.datasets.builder import image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    pictures = _Pictures(data, model)
    device = next(model.parameters()).device.type
    common = {"amp": precision != "fp32"}
    with _quiet():
        if data.tasks:
            loader: DataLoader[Any] = DataLoader(pictures, batch_size=settings.batch_size)
            task = data.tasks[0]
            found = zeroshot_classification.evaluate(
                _Bare(model),
                loader,
                _full_context(model),
                list(task.classnames),
                list(task.templates),
                device,
                **common,
            )
        else:
            loader = DataLoader(
                pictures, batch_size=settings.batch_size, collate_fn=image_captions_collate_fn
            )
            found = zeroshot_retrieval.evaluate(
                _Bare(model),
                loader,
                _full_context(model),
                device,
                recall_k_list=[k for k in KS if k <= _pool(data)],
                **common,
            )
    return {name: float(value) for name, value in found.items()}


def _pool(data: DataSet) -> int:
    """Candidates of the direction that has fewer; CLIP_benchmark has no recall beyond it."""
    split = data.split(SPLIT)
    return min(len(split), sum(map(len, split.captions)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and the warnings that CLIP_benchmark is known for."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --------------------------------------------------------------------------- what differs


def _why(
    model: Encoders, data: DataSet, settings: Evaluate, precision: Precision, worst: Row
) -> str:
    """The first definition, in the order in which a number is made, that is not the same."""
    head = f"{worst.name} by {worst.gap:.1e}, more than {_TOLERANCE[precision]:g}"
    for reason in (
        _pixels_differ(model, data),
        _pictures_differ(model, data, settings),
        _texts_differ(model, data),
    ):
        if reason is not None:
            return f"{head}: {reason}"
    return f"{head}: the same pictures, texts and embeddings; the metric itself differs"


def _places(count: int) -> list[int]:
    step = max(1, count // _LOOKED_AT)
    return list(range(0, count, step))[:_LOOKED_AT]


def _pixels_differ(model: Encoders, data: DataSet) -> str | None:
    pictures, images = _Pictures(data, model), data.split(SPLIT).images
    differing = []
    places = _places(len(images))
    for place in places:
        try:
            ours = model.preprocess(decode(data.read(images[place]), max_pixels=2**31))
        except DataError as error:
            return f"picture {images[place]} is left out by ours: {error}"
        theirs = pictures.pixels(place)
        if ours.shape != theirs.shape or not torch.equal(ours, theirs):
            differing.append(images[place])
    if not differing:
        return None
    return (
        f"decoding, of {len(differing)} of {len(places)} pictures looked at, such as "
        f"{differing[0]} (ours turns by EXIF, lays transparency over white and keeps 16-bit grey)"
    )


@torch.no_grad()
def _pictures_differ(model: Encoders, data: DataSet, settings: Evaluate) -> str | None:
    images = [data.split(SPLIT).images[p] for p in _places(len(data.split(SPLIT)))]
    ours = embed_images(model, data, images, settings, Runtime(), by_batch=True).embeddings
    device = next(model.parameters()).device
    pictures = _Pictures(data, model)
    views = torch.stack([pictures.pixels(p) for p in _places(len(pictures))])
    theirs = torch.cat([model.encode_image(v.to(device)) for v in torch.split(views, 64)])
    gap = float((ours - theirs.float().cpu()).abs().max())
    if gap > _EMBEDDING_TOLERANCE:
        return f"pictures: the size of a batch or its memory format moves an embedding by {gap:.1e}"
    return None


@torch.no_grad()
def _texts_differ(model: Encoders, data: DataSet) -> str | None:
    split = data.split(SPLIT)
    if data.tasks:
        task = data.tasks[0]
        texts = [task.templates[0].replace("{c}", name) for name in task.classnames]
        formatted = [task.templates[0].format(c=name) for name in task.classnames]
        if texts != formatted:
            return "prompts: a template has braces besides {c}"
    else:
        texts = [text for captions in split.captions for text in captions]
    texts = [texts[place] for place in _places(len(texts))]
    device = next(model.parameters()).device
    short = model.encode_text(model.tokenizer(texts).to(device))
    full = model.encode_text(_full_context(model)(texts).to(device))
    gap = float((short - full).abs().max())
    if gap > _EMBEDDING_TOLERANCE:
        return f"texts: cutting to the longest text moves an embedding by {gap:.1e}"
    return None
