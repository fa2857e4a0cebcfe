"""COCO's test pictures and captions with labels of everything that is relevant to them.

The labels of ECCV Caption (Chun et al. 2022) and of Crisscrossed Captions (Parekh et al. 2021) name
pictures and captions by COCO's numbers.  They are files of the package `eccv-caption`, or lie below
the data root in `eccv_caption/`; which caption has which number is in COCO's own
`captions_val2014.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.captions import normalise_caption
from harness.data.class_sets import SPLIT
from harness.errors import DataError, one_line
from harness.evaluate.suites.find import ANNOTATIONS, POOL, Found
from harness.evaluate.suites.open import BenchmarkSet, open_found
from harness.files import read_regular

_MOST_BYTES = 256 << 20
_FOREIGN = 0.001
"""Share of labels that may name what is not there."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RelevanceSet(BenchmarkSet):
    """Pictures and captions, and which are relevant to which.

    Attributes:
        captions: of all pictures, in their order.
        owners: place of each caption's picture.
        pool: places of the captions that are looked for.
        images_of_caption, captions_of_image: query's place -> places of what is relevant.
    """

    captions: Sequence[str]
    owners: Sequence[int]
    pool: Sequence[int]
    images_of_caption: Mapping[int, Sequence[int]]
    captions_of_image: Mapping[int, Sequence[int]]


def open_relevance(found: Found, cache: Path) -> RelevanceSet:
    """What `open.open_found` does for a benchmark of relevance; DataError likewise."""
    assert found.of is not None
    inner = open_found(found.of, cache)
    split = inner.split(SPLIT)
    captions = [text for texts in split.captions for text in texts]
    owners = [place for place, texts in enumerate(split.captions) for _ in texts]
    pictures, numbers = _numbers(split.images, split.captions, found.files[ANNOTATIONS])
    images = {number: place for place, number in enumerate(pictures)}
    texts = {number: place for place, number in enumerate(numbers)}
    of_image, of_caption = (_labels(found.files[name]) for name in found.benchmark.labels)
    pool = list(range(len(captions)))
    if POOL in found.files:
        known = {number for each in _labels(found.files[POOL]).values() for number in each}
        pool = [place for number, place in texts.items() if number in known]
    return RelevanceSet.of(
        found,
        split,
        inner.read,
        inner=inner,
        captions=captions,
        owners=owners,
        pool=sorted(pool),
        captions_of_image=_places(of_image, images, texts, found),
        images_of_caption=_places(of_caption, texts, images, found),
    )


def _places(
    labels: Mapping[int, Sequence[int]],
    queries: Mapping[int, int],
    answers: Mapping[int, int],
    found: Found,
) -> dict[int, list[int]]:
    """Labels by places, without the few that name what is not among the pictures and captions.

    ECCV Caption names two captions that are not among the package's own 25,000.

    Raises DataError for more than a few, and for a query.
    """
    every = [number for given in labels.values() for number in given]
    foreign = [number for number in labels if number not in queries]
    lost = [number for number in every if number not in answers]
    foreign += lost if len(lost) > _FOREIGN * len(every) else []
    if foreign:
        raise DataError(
            f"{found.benchmark.title}: its labels name {len(set(foreign)):,} pictures or captions, "
            f"such as {foreign[0]}, that {found.path} has not: another split of COCO"
        )
    return {
        queries[number]: [answers[each] for each in given if each in answers]
        for number, given in labels.items()
    }


def _labels(file: Path) -> dict[int, list[int]]:
    """COCO's number -> numbers of what is relevant to it."""
    tree = _json(file)
    try:
        return {int(number): [int(each) for each in given] for number, given in tree.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{file}: an object of number -> list of numbers is wanted") from None


def _numbers(
    images: Sequence[str], captions: Sequence[Sequence[str]], file: Path
) -> tuple[list[int], list[int]]:
    """COCO's number of every picture, and of every caption, by the texts of the captions."""
    known: dict[int, dict[str, list[int]]] = {}
    owners: dict[str, set[int]] = {}
    tree = _json(file)
    try:
        for row in tree["annotations"]:
            text, image = normalise_caption(row["caption"]), int(row["image_id"])
            known.setdefault(image, {}).setdefault(text, []).append(int(row["id"]))
            owners.setdefault(text, set()).add(image)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{file}: `annotations` of image_id, id and caption are wanted, as COCO has them"
        ) from None
    pictures, numbers = [], []
    for name, given in zip(images, captions, strict=True):
        texts = [normalise_caption(text) for text in given]
        fitting = set.intersection(*(owners.get(text, set()) for text in texts)) if texts else set()
        if len(fitting) != 1:
            what = "no picture" if not fitting else f"{len(fitting)} pictures"
            raise DataError(f"{file}: the captions of picture {name} are those of {what} there")
        (image,) = fitting
        pictures.append(image)
        numbers += [_next(known[image][text]) for text in texts]
    return pictures, numbers


def _next(numbers: list[int]) -> int:
    """The first of equal captions; the last one again where the data has one more."""
    return numbers.pop(0) if len(numbers) > 1 else numbers[0]


def _json(file: Path) -> Any:
    try:
        return json.loads(read_regular(file, _MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from None
