"""ImageNet under shift of distribution: the classes and prompts of ImageNet on other pictures."""

from harness.evaluate.suites.lightclip11 import IMAGENET_NAMES
from harness.evaluate.suites.records import ACC1, Benchmark, Prompts

ROBUSTNESS = tuple(
    Benchmark(
        name=name,
        title=title,
        task="classification",
        samples=samples,
        classes=classes,
        metrics=ACC1,
        prompts=Prompts("imagenet1k"),
        classnames=IMAGENET_NAMES,
        hub=name,
        source=source,
    )
    for name, title, samples, classes, source in (
        ("imagenetv2", "ImageNet-V2", 10_000, 1_000, "Recht et al. 2019; matched-frequency"),
        ("imagenet-a", "ImageNet-A", 7_500, 200, "Hendrycks et al. 2021"),
        ("imagenet-r", "ImageNet-R", 30_000, 200, "Hendrycks et al. 2021"),
        ("imagenet_sketch", "ImageNet-Sketch", 50_889, 1_000, "Wang et al. 2019"),
    )
)
