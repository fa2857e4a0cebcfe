"""What the terms of the loss learnt, seen through the modules that train beside the towers.

Every caption of a split meets its own picture and another one of the split; what a term makes of
both is `Contrasted`, from which its metrics are computed.  Which other picture, and which words a
term hides, is drawn once for all runs, so that two of them are compared on the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.config import RunConfig
from harness.data.account import Problem
from harness.data.dataset import DataSet, Split
from harness.evaluate.embed import batches_of_pictures, bounded, encoding
from harness.evaluate.scoring.job import Job
from harness.evaluate.scoring.score import facts_of
from harness.metrics import ITEMS_OF_TERMS, Contrasted, metrics_for, splits_of_terms
from harness.models.training import Pass, TrainingModel
from harness.objectives.terms import BatchPlace
from harness.seeding import derive_seed

_SEED = 0
"""Of the draws: the same for every run."""
_NO_MODULES = "what trained beside the towers is not at hand"
_NOTHING = "the term gives nothing to compare (its `probe`)"
_NO_OTHER = "one captioned picture, and another is needed to compare with"


class _Captions(NamedTuple):
    """What the terms make of a batch of captions.

    Attributes:
        images: place of each caption's picture in the split, (N,).
        texts: place of each among the captions of that picture, (N,).
        values: name of a term -> (2, N), with the own picture and with another; (3, N) of a term
            that puts words on patches, the last what of them is on the own picture beside another.
    """

    images: list[int]
    texts: list[int]
    values: dict[str, Tensor]


def measure_terms(
    job: Job, data: DataSet, config: RunConfig, training: TrainingModel | None
) -> dict[str, Any]:
    """Compute every metric of the terms that are on; returns their section of the protocol.

    Raises:
        DataError: too many pictures cannot be read.
    """
    measured = [name for name in config.objective.active if any(metrics_for(name))]
    splits = splits_of_terms(data.splits, job.settings) if measured else []
    if not measured:
        return {}
    data.prepare()
    return {"terms": {name: _split(job, data, name, measured, training) for name in splits}}


def _split(
    job: Job, data: DataSet, name: str, measured: Sequence[str], training: TrainingModel | None
) -> dict[str, Any]:
    split, problems = data.split(name), list[Problem]()
    batches: list[_Captions] = []
    if training is not None:
        with encoding(training, job.precision):
            batches = list(_Looks(job, data, split, training).batches(problems))
        bounded(data.name, problems, len(split), job.runtime.max_bad_fraction)
    facts = {**facts_of(split, problems), "measured": list(measured)}
    if batches:
        _record(job, name, split, batches, facts["excluded"])
    for term in measured:
        if not batches or term not in batches[0].values:
            reason = _NOTHING if batches else _NO_MODULES if training is None else _NO_OTHER
            job.found.leave_out(name, term, facts, reason)
    return facts


def _record(
    job: Job, name: str, split: Split, batches: Sequence[_Captions], excluded: Sequence[Any]
) -> None:
    """The metrics, with captions in the order of the split's pictures."""
    images = np.array([place for batch in batches for place in batch.images])
    texts = np.array([place for batch in batches for place in batch.texts])
    order = np.lexsort((texts, images))
    for term in batches[0].values:
        pairs = torch.cat([batch.values[term] for batch in batches], dim=1).double().numpy()
        job.found.compute(name, term, Contrasted(*pairs[:, order]))
    left_out = {problem["where"] for problem in excluded}
    kept = [place for place, image in enumerate(split.images) if image not in left_out]
    job.found.note_images(name, (split.images[place] for place in kept))
    job.found.outcomes[f"{name}/{ITEMS_OF_TERMS}"] = np.searchsorted(kept, images[order]).astype(
        np.int32
    )


# --------------------------------------------------------------------------- captions and pictures


@dataclass(frozen=True)
class _Looks:
    """What the terms that `training` has look at in a split."""

    job: Job
    data: DataSet
    split: Split
    training: TrainingModel

    def batches(self, problems: list[Problem]) -> Iterator[_Captions]:
        """The captioned pictures in a drawn order, each caption also with the next picture in it.

        The last of a batch takes its first one, or if it is alone the last one before it.
        """
        split, model = self.split, self.training.model
        captioned = [place for place, captions in enumerate(split.captions) if captions]
        draw = torch.Generator().manual_seed(derive_seed(_SEED, "pictures of terms"))
        order = [captioned[i] for i in torch.randperm(len(captioned), generator=draw).tolist()]
        names = [split.images[place] for place in order]
        each = max(1, round(sum(map(len, split.captions)) / len(captioned)))
        size = max(2, self.job.settings.batch_size // each)
        last, held, places = None, list[Tensor](), list[int]()
        batches = batches_of_pictures(model, self.data, names, size, self.job.runtime)
        for number, batch in enumerate(batches):
            problems += batch.problems
            held += [batch.pixels] if batch.places else []
            places += [order[place] for place in batch.places]
            if len(places) > 1:
                pixels = torch.cat(held)
                yield self.seen(places, pixels, number)
                last, held, places = pixels[-1:], [], []
        if places and last is not None:
            yield self.seen(places, torch.cat([*held, last]), -1)

    def seen(self, places: Sequence[int], pixels: Tensor, number: int) -> _Captions:
        """The captions of some pictures, with what each term makes of them."""
        captions, tokenizer = self.split.captions, self.training.model.tokenizer
        owners = [(i, k) for i, place in enumerate(places) for k in range(len(captions[place]))]
        tokens = tokenizer([captions[places[i]][k] for i, k in owners])
        tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]  # EOT is the highest id
        own = torch.tensor([i for i, _ in owners], device=pixels.device)
        pass_of_both = self.training.look(pixels, tokens.to(pixels.device))
        values = self.values(pass_of_both, tokens, own, number)
        located = _located(self.training, pixels, tokens.to(pixels.device), own)
        values |= {name: torch.stack([*values[name], share]) for name, share in located.items()}
        return _Captions([places[i] for i, _ in owners], [k for _, k in owners], values)

    def values(self, seen: Pass, tokens: Tensor, own: Tensor, number: int) -> dict[str, Tensor]:
        """Name of a term -> (2, N): of each text with its own picture, and with the next."""
        draws = BatchPlace(
            _SEED,
            number,
            first=0,
            size=len(tokens),
            context_length=self.training.model.config.text.context_length,
            vocab_size=self.training.model.tokenizer.vocab_size,
        )
        modules: Mapping[str, Any] = self.training.term_modules()
        other = (own + 1) % len(seen.image)
        values = {}
        for name, term in self.training.terms.items():
            if not any(metrics_for(name)):
                continue
            inputs = term.inputs(tokens, draws)
            inputs = None if inputs is None else inputs.to(own.device)
            pair = [
                term.probe(seen.with_pictures(places), modules[name], inputs)
                for places in (own, other)
            ]
            found = [each.float().cpu() for each in pair if each is not None]
            if found:
                values[name] = torch.stack(found)
        return values


def _located(
    training: TrainingModel, pixels: Tensor, tokens: Tensor, own: Tensor
) -> dict[str, Tensor]:
    """Share (N,) of each text's words on the own picture, by the terms that put them on patches.

    The middle half of each picture of `pixels` stands beside that of the next one, on the left of
    every other canvas.  A patch on the border counts half; of a text without words, half is right.
    """
    layout, quarter = training.layout, pixels.shape[-1] // 4
    if layout is None:
        return {}
    middle = pixels[..., quarter : pixels.shape[-1] - quarter]
    left = torch.arange(len(pixels), device=pixels.device) % 2 == 0
    one, two = middle, middle.roll(-1, dims=0)
    of_left = left[:, None, None, None]
    canvases = torch.cat([one.where(of_left, two), two.where(of_left, one)], dim=-1)
    seen = training.look(canvases, tokens).with_pictures(own)
    columns = torch.arange(layout.grid, device=pixels.device).repeat(layout.grid)
    on_left = (layout.grid / 2 - columns).clamp(0, 1)
    on_own = on_left.where(left[own, None], 1 - on_left)
    shares = {}
    for name, module in training.term_modules().items():
        put = training.terms[name].locate(seen, module)
        if put is not None:
            words = put.float().sum((1, 2))
            hits = (put.float().sum(1) * on_own).sum(1)
            shares[name] = torch.where(words > 0, hits / words.clamp(min=1e-6), 0.5).cpu()
    return shares
