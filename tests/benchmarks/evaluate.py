"""Evaluation next to CLIP_benchmark's own functions: CPU seconds, wall seconds and peak memory.

    python tests/benchmarks/evaluate.py zeroshot [FOLDER_OR_ZIP] [--layers 12]
    python tests/benchmarks/evaluate.py texts [--classes 1000] [--layers 12]
    python tests/benchmarks/evaluate.py retrieval [--pictures 5000] [--dim 512]
    python tests/benchmarks/evaluate.py large [--pictures 100000] [--texts 500000] [--dim 64]

Not a test.  Both sides get the same random model and data, each in a process of its own with one
thread, so that neither pays for the other's memory; numbers that differ end the run.
CLIP_benchmark runs without autocast, which on a CPU it would spend twenty times as long in, and
the import of either side is not counted.  `retrieval` has, beside both, the one product of all
texts with all pictures that no way to all ranks can do without.  `zeroshot` without a folder makes
one of `--pictures` photos.  `large` is ours alone: CLIP_benchmark would need 200 GB for its scores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from turns import Sheet, Times, in_turns, parser_of

_CAPTIONS = 5
_CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
_CLASSES += ["dog", "frog", "horse", "ship", "truck"]
_NOISE = 6.0
"""Length of what is added to a picture's embedding to make a caption's: recalls between 0 and 1."""


def measured(work: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """What `work` gives, with its CPU and wall seconds and the memory that it added at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = work()
    return {
        "numbers": numbers,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


# --------------------------------------------------------------------------- a model


def small_model(layers: int) -> Any:
    """Towers of the built-in size with random weights; the full vocabulary and context of CLIP."""
    from harness.config import override
    from harness.config.bases import SMALL
    from harness.models.two_tower import TwoTower

    changes = {
        "model.text.vocabulary": "full",
        "model.text.context_length": 77,
        "model.text.layers": layers,
        "model.text.width": 256,
        "model.text.heads": 4,
    }
    return TwoTower(override(SMALL, changes).model, None, seed=0).eval()


def whole_texts(model: Any) -> Callable[[list[str]], Tensor]:
    """The tokenizer as CLIP_benchmark's models have it: filled up to the context."""
    length = model.tokenizer.context_length
    return lambda texts: F.pad(
        tokens := model.tokenizer(texts), (0, length - tokens.shape[1]), value=0
    )


# --------------------------------------------------------------------------- zero-shot


def zeroshot(args: argparse.Namespace) -> dict[str, Any]:
    """CIFAR-10's folder with its 18 templates, from files to numbers."""
    from harness.config import ClassFolder, Evaluate, Runtime
    from harness.data.class_sets import open_class_folder
    from harness.evaluate.suites import BENCHMARKS

    prompts = BENCHMARKS["cifar10"].prompts
    assert prompts is not None
    model, templates = small_model(args.layers), list(prompts.templates)
    folder = ClassFolder(name="cifar10", path=args.data, templates=tuple(templates))
    data = open_class_folder(folder)
    classnames = list(data.tasks[0].classnames)

    def ours() -> dict[str, float]:
        from harness.device import set_up
        from harness.evaluate.scoring.job import Findings, Job
        from harness.evaluate.scoring.score import TestSet, score, with_weights

        set_up(Runtime(), torch.device("cpu"))
        job = Job(model, Evaluate(), Runtime(), Findings(), by_batch=True)
        (of,) = with_weights(job, [(data.tasks[0], tuple(templates))])
        score(job, TestSet("x", data, "test", {"x": of}))
        return {name.removeprefix("x/"): m["value"] for name, m in job.found.metrics.items()}

    def theirs() -> dict[str, float]:
        from clip_benchmark.metrics import zeroshot_classification
        from open_clip.transform import image_transform
        from PIL import Image

        size = model.config.image.size
        transform = image_transform(size, is_train=False)
        images, labels = data.split("test").images, data.tasks[0].labels["test"]

        class Pictures(torch.utils.data.Dataset[Any]):
            classes = classnames

            def __len__(self) -> int:
                return len(images)

            def __getitem__(self, place: int) -> tuple[Tensor, int]:
                with Image.open(io.BytesIO(data.read(images[place]))) as picture:
                    return transform(picture.convert("RGB")), labels[place]

        found = zeroshot_classification.evaluate(
            model,
            DataLoader(Pictures(), batch_size=64),
            whole_texts(model),
            classnames,
            templates,
            "cpu",
            amp=False,
        )
        return {name: float(value) for name, value in found.items()}

    return measured(ours if args.side == "ours" else theirs)


def write_photos(folder: Path, count: int) -> Path:
    """Photos in the layout of a class folder, CIFAR-10's classes in turns."""
    from data import photo

    for place in range(count):
        file = folder / "test" / _CLASSES[place % len(_CLASSES)] / f"{place:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(place))
    return folder


def texts(args: argparse.Namespace) -> dict[str, Any]:
    """The classifier of as many of ImageNet's classes with its 80 templates; no picture."""
    from harness.config import Evaluate, Runtime
    from harness.data.classnames import prompts
    from harness.device import set_up
    from harness.evaluate.embed import embed_texts
    from harness.evaluate.scoring.zeroshot import classifier
    from harness.evaluate.suites import BENCHMARKS

    imagenet, model = BENCHMARKS["imagenet1k"], small_model(args.layers)
    assert imagenet.prompts is not None
    assert imagenet.classnames is not None
    names = list(imagenet.classnames.names[: args.classes])
    templates = list(imagenet.prompts.templates)

    def ours() -> dict[str, float]:
        set_up(Runtime(), torch.device("cpu"))
        embedded = embed_texts(model, prompts(names, templates), Evaluate())
        return _sample(classifier(embedded, len(names)))

    def theirs() -> dict[str, float]:
        from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier

        weights = zero_shot_classifier(
            model, whole_texts(model), names, templates, "cpu", amp=False
        )
        return _sample(weights.T)

    return measured(ours if args.side == "ours" else theirs)


def _sample(weights: Tensor) -> dict[str, float]:
    """Weights along a few directions, to be compared."""
    directions = torch.randn(weights.shape[1], 3, generator=torch.Generator().manual_seed(0))
    shown = (weights.float() @ F.normalize(directions, dim=0))[:: max(1, len(weights) // 20)]
    return {f"{i}": float(value) for i, value in enumerate(shown.flatten())}


# --------------------------------------------------------------------------- retrieval


def embeddings(pictures: int, captions: int, dim: int) -> tuple[Tensor, Tensor, list[int]]:
    """Random unit-norm pictures, captions near them, and the picture of each caption."""
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(pictures, dim, generator=generator), dim=-1)
    index = torch.arange(captions) * pictures // captions
    text = torch.empty(captions, dim)
    for places in torch.split(torch.arange(captions), 2**16):
        noise = F.normalize(torch.randn(len(places), dim, generator=generator), dim=-1)
        text[places] = F.normalize(image[index[places]] + _NOISE * noise, dim=-1)
    return image, text, index.tolist()


def retrieval(args: argparse.Namespace) -> dict[str, Any]:
    """Recall@1, 5 and 10 both ways from embeddings, five captions a picture."""
    from harness.metrics import KS

    image, text, index = embeddings(args.pictures, _CAPTIONS * args.pictures, args.dim)

    def ours() -> dict[str, float]:
        return _recalls(image, text, index)

    def theirs() -> dict[str, float]:
        from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

        scores = text @ image.T
        positive = torch.zeros_like(scores, dtype=torch.bool)
        positive[torch.arange(len(text)), index] = True
        found: dict[str, float] = {}
        for k in KS:
            for way, s, p in (("t2i", scores, positive), ("i2t", scores.T, positive.T)):
                hits = batchify(recall_at_k, s, p, 64, "cpu", k=k) > 0
                found[f"{way}@{k}"] = float(hits.float().mean())
        return found

    # What is loaded lazily is loaded before the clock starts.
    _recalls(image[:10], text[:10], [0] * 10)
    if args.side != "ours":
        return measured(theirs)
    product = in_turns({"product": lambda: text @ image.T}, 3)["product"]
    return {**measured(ours), "limit": product.medians()["cpu"]}


def _recalls(image: Tensor, text: Tensor, index: list[int]) -> dict[str, float]:
    from harness.evaluate.scoring.retrieval import own_relevance, rank_both_ways
    from harness.metrics import KS

    ((down, up),) = rank_both_ways(image, text, [own_relevance(index, len(image))])
    return {
        f"{way}@{k}": float(recall.at(k).mean())
        for k in KS
        for way, recall in (("t2i", down), ("i2t", up))
    }


def large(args: argparse.Namespace) -> dict[str, Any]:
    """As `retrieval`, at a size of which no score matrix can be held."""
    image, text, index = embeddings(args.pictures, args.texts, args.dim)
    found = measured(lambda: _recalls(image, text, index))
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


# --------------------------------------------------------------------------- both sides


_WORK = {"zeroshot": zeroshot, "texts": texts, "retrieval": retrieval, "large": large}


def main() -> None:
    """Run both sides of one benchmark, compare the numbers and print the ratios."""
    parser = parser_of(__doc__)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("work", choices=_WORK)
    parser.add_argument("data", nargs="?")
    for name, value in (("layers", 12), ("classes", 1000), ("pictures", 0), ("dim", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--texts", type=int, default=500_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "clip-benchmark"))
    args = parser.parse_args()
    args.pictures = args.pictures or {"large": 100_000, "zeroshot": 200}.get(args.work, 5_000)
    args.dim = args.dim or (64 if args.work == "large" else 512)
    if args.side is not None:
        torch.set_num_threads(args.threads)
        print(json.dumps(_WORK[args.work](args)))
        return
    sides = ["ours"] if args.work == "large" else ["clip-benchmark", "ours"]
    with Sheet(args.json) as sheet, tempfile.TemporaryDirectory() as made:
        if args.work == "zeroshot" and args.data is None:
            photos = write_photos(Path(made), args.pictures)
            sys.argv.insert(sys.argv.index("zeroshot") + 1, str(photos))
        turns = [{side: _of_side(side) for side in sides} for _ in range(args.turns)]
        _told(sheet, turns)
        if args.work == "large":
            sheet.say(f"peak of the whole process {turns[0]['ours']['peak']:.2f} GB")


def _told(sheet: Sheet, turns: list[dict[str, Any]]) -> None:
    """Lines on the sides' turns, whose numbers have to be the same; SystemExit if they are not."""
    first = turns[0]
    times = {
        side: Times([t[side]["cpu"] for t in turns], [t[side]["wall"] for t in turns])
        for side in first
    }
    for side, found in first.items():
        numbers = [round(value, 4) for value in list(found["numbers"].values())[:6]]
        sheet.say(
            f"{side}: {found['megabytes']:.0f} MB added  {numbers}", megabytes=found["megabytes"]
        )
    sheet.compare(times, next(iter(first)))
    if limit := first["ours"].get("limit"):
        share = times["ours"].medians()["cpu"] / limit
        sheet.say(f"{share:.2f} x its matrix product ({limit:.3f} CPU s)", limit=limit, share=share)
    ours = first["ours"]["numbers"]
    gap = max(abs(ours[n] - value) for n, value in first[next(iter(first))]["numbers"].items())
    if gap > 1e-6:
        raise SystemExit(f"the numbers differ by {gap:g}")


def _of_side(side: str) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--side", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
