"""Pictures and texts to embeddings, once per checkpoint and data set.

Owns decoding for evaluation, batching, precision and the check for collapse.  Knows nothing of what
is computed from the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Normalize, ToTensor

from harness.config import Evaluate, Runtime
from harness.data.account import Problem
from harness.data.dataset import DataSet
from harness.data.images import BadImage, decode, turbo_is_exact
from harness.data.transforms import EvaluationTransform
from harness.device import NARROW, autocast, resolve_precision, tf32
from harness.errors import DataError, InvariantError
from harness.evaluate.scoring.ranking import check_finite

if TYPE_CHECKING:
    from harness.evaluate.model import Encoders

PRECISION_FIELD = "evaluate.precision"

_COLLAPSED = 1e-6
"""Largest standard deviation over samples, in any dimension, of embeddings that are all equal."""
_SHOWN = 5
"""Bad pictures quoted in an error's one line."""


@dataclass(frozen=True)
class Pictures:
    """Embeddings of the pictures that could be read.

    Attributes:
        embeddings: float32 (K, D), unit-norm, on the CPU.
        kept: place of each of the K pictures in the list that was asked for.
        problems: the pictures left out, and why.
    """

    embeddings: Tensor
    kept: tuple[int, ...]
    problems: tuple[Problem, ...]


class EmbeddedBatch(NamedTuple):
    """What one batch gives.

    Attributes:
        embeddings: float32 (K, D) on the CPU; of no rows where no picture could be read.
        places, problems: see PictureBatch; of texts there are none.
    """

    embeddings: Tensor
    places: Sequence[int] = ()
    problems: Sequence[Problem] = ()


Work = Callable[[int, int], Generator[EmbeddedBatch, None, None]]
"""Embeds the batches from number `first` on, the first argument, and every so many-th after it."""

Share = Callable[[Mapping[str, Any], Work], Iterable[EmbeddedBatch]]
"""All batches of a work in their order, whoever does which; others know the work by plain values
from which `work_asked` makes it again."""


def alone(asked: Mapping[str, Any], work: Work) -> Iterable[EmbeddedBatch]:
    """The share of who has nobody to share with: everything."""
    return work(0, 1)


def work_asked(
    asked: Mapping[str, Any], model: Encoders, data: DataSet, evaluate: Evaluate, runtime: Runtime
) -> Work:
    """The work that a `Share` is asked for, here or in another process with the same model."""
    if "tokens" in asked:
        return _work_of_tokens(asked["tokens"], model, evaluate)
    batches = partial(
        batches_of_pictures, model, data, asked["images"], evaluate.batch_size, runtime,
        by_batch=asked["by_batch"],
    )  # fmt: skip

    def work(first: int, every: int) -> Generator[EmbeddedBatch, None, None]:
        with encoding(model, precision_of(model, evaluate)):
            for pixels, places, problems in batches(first=first, every=every):
                made = model.encode_image(pixels).float().cpu() if places else torch.empty(0)
                yield EmbeddedBatch(made, places, problems)

    return work


def precision_of(model: Encoders, evaluate: Evaluate) -> str:
    """What the encoders compute in: the form of a deployed model, else what is asked for."""
    own = getattr(model, "own_precision", None)
    device = next(model.parameters()).device
    return own or resolve_precision(evaluate.precision, device, PRECISION_FIELD)


@contextmanager
def encoding(model: nn.Module | Encoders, precision: str) -> Iterator[None]:
    """Evaluation mode, without gradients or TF32; all modes are as they were afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    narrow = autocast(precision if precision in NARROW else "fp32")
    try:
        with torch.inference_mode(), narrow, tf32("none"):
            yield
    finally:
        for module, training in modes:
            module.training = training


# --------------------------------------------------------------------------- pictures


class _Views(Dataset[Any]):
    """A picture's place to its evaluation view, or to what is wrong with it."""

    def __init__(
        self,
        data: DataSet,
        images: Sequence[str],
        view: Callable[[np.ndarray], Tensor],
        max_pixels: int,
    ) -> None:
        self.data, self.images, self.view, self.max_pixels = data, images, view, max_pixels
        self.turbo = turbo_is_exact()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[int, Tensor | Problem]:
        name = self.images[place]
        try:
            read = self.data.read(name)
            picture = decode(read, max_pixels=self.max_pixels, turbo=self.turbo)
            return place, self.view(picture)
        except (BadImage, OSError, KeyError, ValueError, MemoryError) as error:
            return place, Problem(name, " ".join(str(error).split()) or type(error).__name__)


class _Bytes:
    """open_clip's evaluation transform up to its conversion to float: (H, W, 3) to (S, S, 3)."""

    def __init__(self, preprocess: EvaluationTransform) -> None:
        self._preprocess = preprocess

    def __call__(self, picture: np.ndarray) -> Tensor:
        view = self._preprocess.opened(picture)
        for step in self._preprocess.steps[:-2]:
            view = step(view)
        return torch.from_numpy(np.array(view))


def _halves(
    preprocess: Callable[[np.ndarray], Tensor],
) -> tuple[Callable[[np.ndarray], Tensor], Callable[[Tensor], Tensor]]:
    """A transform as one of a picture and one of a batch, which gives the same bits.

    A batch is converted and normalised at once, and comes in the memory format in which a CPU
    convolves faster.  A transform of unknown making is left whole.
    """
    steps = preprocess.steps if isinstance(preprocess, EvaluationTransform) else ()
    if not steps or not isinstance(steps[-1], Normalize) or not isinstance(steps[-2], ToTensor):
        return preprocess, _as_it_is
    assert isinstance(preprocess, EvaluationTransform)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (steps[-1].mean, steps[-1].std))

    def finish(views: Tensor) -> Tensor:
        pixels = views.permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(mean.to(pixels.device)).div_(std.to(pixels.device))

    return _Bytes(preprocess), finish


def _as_it_is(views: Tensor) -> Tensor:
    return views


class PictureBatch(NamedTuple):
    """Pixels (K, 3, S, S) of the pictures of a batch that could be read.

    Attributes:
        places: of these pictures among those that were asked for.
        problems: of the others.
    """

    pixels: Tensor
    places: list[int]
    problems: list[Problem]


def batches_of_pictures(
    model: Encoders,
    data: DataSet,
    images: Sequence[str],
    size: int,
    runtime: Runtime,
    *,
    by_batch: bool = False,
    first: int = 0,
    every: int = 1,
) -> Iterator[PictureBatch]:
    """The pictures of `data` called `images` as `model` takes them, `size` at a time.

    Of these batches, number `first` and each `every`-th from there on.
    """
    starts = range(0, len(images), size)[first::every]
    device = next(model.parameters()).device
    view, finish = _halves(model.preprocess) if by_batch else (model.preprocess, _as_it_is)
    loader: DataLoader[Any] = DataLoader(
        _Views(data, images, view, runtime.max_pixels),
        batch_sampler=[[*range(start, min(start + size, len(images)))] for start in starts],
        num_workers=runtime.workers or 0,
        collate_fn=list,
        # A generator of its own: starting a loader must not move the run's random state.
        generator=torch.Generator(),
    )
    for rows in loader:
        views = [view for _, view in rows if isinstance(view, Tensor)]
        yield PictureBatch(
            finish(torch.stack(views).to(device)) if views else torch.empty(0),
            [place for place, view in rows if isinstance(view, Tensor)],
            [view for _, view in rows if isinstance(view, Problem)],
        )


def embed_images(
    model: Encoders,
    data: DataSet,
    images: Sequence[str],
    evaluate: Evaluate,
    runtime: Runtime,
    *,
    by_batch: bool = False,
    share: Share = alone,
) -> Pictures:
    """Embed the pictures of `data` called `images`, in their order.

    Args:
        by_batch: normalise batches and not pictures: faster, with the last bits of a convolution
            in another order.
        share: who embeds which of the batches.

    Raises:
        DataError: more than `runtime.max_bad_fraction` of them cannot be decoded, or none is left.
        InvariantError: an embedding is not finite, or all are equal.
    """
    asked = {"images": images, "by_batch": by_batch}
    batches = list(share(asked, work_asked(asked, model, data, evaluate, runtime)))
    problems = [problem for batch in batches for problem in batch.problems]
    bounded(data.name, problems, len(images), runtime.max_bad_fraction)
    kept = tuple(place for batch in batches for place in batch.places)
    if not kept:
        raise DataError(f"data set {data.name}: no picture to evaluate is left")
    embeddings = torch.cat([batch.embeddings for batch in batches if batch.places])
    _check("picture", embeddings, distinct=len(embeddings))
    return Pictures(embeddings, kept, tuple(problems))


def bounded(name: str, problems: Sequence[Problem], looked_at: int, allowed: float) -> None:
    """DataError when more pictures than `allowed`, a share, cannot be used."""
    if len(problems) <= allowed * looked_at:
        return
    shown = "; ".join(f"{p.where}: {p.reason}" for p in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DataError(
        f"data set {name}: {len(problems)} of {looked_at} pictures cannot be evaluated, more than "
        f"max_bad_fraction = {allowed:g}: {shown}{more}"
    )


# --------------------------------------------------------------------------- texts


def embed_texts(
    model: Encoders, texts: Sequence[str], evaluate: Evaluate, share: Share = alone
) -> Tensor:
    """Embed `texts`: each distinct one once, in batches of similar length.

    Returns:
        float32 (len(texts), D), unit-norm, on the CPU, in the order of `texts`.

    Raises:
        InvariantError: an embedding is not finite, or all are equal though their tokens differ.
    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    tokens = model.tokenizer(list(places))
    embedded = _embed_tokens(model, tokens, evaluate, share)
    _check("text", embedded, distinct=len(torch.unique(tokens, dim=0)))
    return embedded[torch.tensor([places[text] for text in texts])]


def embed_shortened(
    model: Encoders,
    texts: Sequence[str],
    lengths: Sequence[int],
    evaluate: Evaluate,
    share: Share = alone,
) -> dict[int, Tensor]:
    """Embed the first tokens of each text, in one pass: length -> as `embed_texts` gives.

    Every distinct row of tokens is embedded once, so that a text shorter than a length costs
    nothing there.

    Args:
        lengths: tokens kept, those of begin and end not counted.

    Raises:
        InvariantError: an embedding is not finite.
    """
    tokens = model.tokenizer(texts)
    rows = torch.cat([_shortened(tokens, length) for length in lengths])
    distinct, places = torch.unique(rows, dim=0, return_inverse=True)
    embedded = _embed_tokens(model, distinct, evaluate, share)
    check_finite("text", embedded)
    parts = torch.split(places, len(texts))
    return {length: embedded[part] for length, part in zip(lengths, parts, strict=True)}


def _shortened(tokens: Tensor, length: int) -> Tensor:
    """Rows (N, L) with up to `length` ids between the first and EOT, the highest id of a row."""
    eot, last = tokens.max(dim=1)
    end = last.clamp(max=length + 1)[:, None]
    columns = torch.arange(tokens.shape[1])
    cut = tokens.where(columns < end, 0)
    return cut.scatter(1, end, eot[:, None])


def _embed_tokens(model: Encoders, tokens: Tensor, evaluate: Evaluate, share: Share) -> Tensor:
    """Embeddings (N, D) of rows of ids (N, L), in batches of similar length."""
    work = _work_of_tokens(tokens, model, evaluate)
    embedded = [batch.embeddings for batch in share({"tokens": tokens}, work)]
    order = torch.argsort(lengths_of(tokens), stable=True)
    return torch.cat(embedded)[torch.argsort(order)]


def _work_of_tokens(tokens: Tensor, model: Encoders, evaluate: Evaluate) -> Work:
    lengths = lengths_of(tokens)
    order = torch.argsort(lengths, stable=True)
    device = next(model.parameters()).device

    def work(first: int, every: int) -> Generator[EmbeddedBatch, None, None]:
        with encoding(model, precision_of(model, evaluate)):
            for batch in torch.split(order, evaluate.batch_size)[first::every]:
                cut = tokens[batch, : int(lengths[batch].max())]
                yield EmbeddedBatch(model.encode_text(cut.to(device)).float().cpu())

    return work


def lengths_of(tokens: Tensor) -> Tensor:
    """Columns of each row (N, L) that hold its text: all but the run of equal ids at the end.

    One column of padding is kept, so that no id need be known to be the padding's.
    """
    differs = tokens != tokens[:, -1:]
    columns = torch.arange(1, tokens.shape[1] + 1)
    last = (differs * columns).amax(dim=1)
    return (last + 1).clamp(max=tokens.shape[1])


def _check(what: str, embeddings: Tensor, *, distinct: int) -> None:
    check_finite(what, embeddings)
    if distinct > 1 and float(embeddings.std(dim=0, correction=0).max()) < _COLLAPSED:
        raise InvariantError(
            f"all {len(embeddings)} {what} embeddings are equal: the {what} tower has collapsed"
        )
