"""The customary eleven zero-shot sets of YFCC15M work (SLIP, DeCLIP and those after them).

Metrics are those of the CLIP paper (appendix A) and of DataComp's task list: mean per-class recall
where classes differ much in size.
"""

from __future__ import annotations

from typing import Any

from harness.evaluate.suites.records import (
    ACC1,
    PER_CLASS,
    Benchmark,
    Builder,
    ClassNames,
    Prompts,
)

IMAGENET_NAMES = ClassNames("imagenet1k", "imagenet_synsets.txt")


def _set(
    name: str,
    title: str,
    samples: int,
    classes: int,
    hub: str,
    source: str,
    *,
    inside: str | None = None,
    prompts: str | None = None,
    metrics: tuple[str, ...] = ACC1,
    **more: Any,
) -> Benchmark:
    """One of the sets: its prompts, and its builder that finds it `inside`, by its own name."""
    return Benchmark(
        name=name,
        title=title,
        task="classification",
        samples=samples,
        classes=classes,
        metrics=metrics,
        prompts=Prompts(prompts or name),
        hub=hub,
        builder=None if inside is None else Builder(name, inside),
        source=source,
        **more,
    )


# fmt: off
LIGHTCLIP11 = (
    _set("cifar10", "CIFAR-10", 10_000, 10, "vtab-cifar10",
         "Krizhevsky 2009; test split", inside="cifar-10-batches-py"),
    _set("cifar100", "CIFAR-100", 10_000, 100, "vtab-cifar100",
         "Krizhevsky 2009; test split, fine labels", inside="cifar-100-python"),
    _set("food101", "Food-101", 25_250, 101, "food101",
         "Bossard et al. 2014; test split", inside="food-101"),
    _set("pets", "Oxford-IIIT Pets", 3_669, 37, "vtab-pets",
         "Parkhi et al. 2012; test split", inside="oxford-iiit-pet", metrics=PER_CLASS),
    _set("flowers102", "Oxford Flowers-102", 6_149, 102, "vtab-flowers",
         "Nilsback and Zisserman 2008; test split", inside="flowers-102", metrics=PER_CLASS,
         prompts="flowers", classnames=ClassNames("flowers")),
    _set("sun397", "SUN397", 108_754, 397, "sun397",
         "Xiao et al. 2010; all pictures, as DataComp and CLIP_benchmark",
         inside="SUN397", split="all"),
    _set("cars", "Stanford Cars", 8_041, 196, "cars",
         "Krause et al. 2013; test split", inside="stanford_cars"),
    _set("dtd", "DTD", 1_880, 47, "vtab-dtd",
         "Cimpoi et al. 2014; test split 1", inside="dtd"),
    _set("caltech101", "Caltech-101", 6_085, 102, "vtab-caltech101",
         "Fei-Fei et al. 2004; VTAB's test split of 102 classes, the background among them",
         metrics=PER_CLASS),
    _set("fgvc_aircraft", "FGVC Aircraft", 3_333, 100, "fgvc_aircraft",
         "Maji et al. 2013; test split, 100 variants", inside="fgvc-aircraft-2013b",
         metrics=PER_CLASS),
    _set("imagenet1k", "ImageNet", 50_000, 1_000, "imagenet1k",
         "Russakovsky et al. 2015; validation split", inside="ILSVRC2012_devkit_t12.tar.gz",
         classnames=IMAGENET_NAMES),
)
# fmt: on
