"""ImageNet under shift of distribution: the classes and prompts of ImageNet on other pictures."""

from harness.evaluate.suites.lightclip11 import IMAGENET_NAMES
from harness.evaluate.suites.records import ACC1, Benchmark, Prompts

_PROMPTS = Prompts("imagenet1k")

ROBUSTNESS = (
    Benchmark(
        name="imagenetv2",
        title="ImageNet-V2",
        task="classification",
        samples=10_000,
        classes=1_000,
        metrics=ACC1,
        prompts=_PROMPTS,
        classnames=IMAGENET_NAMES,
        hub="imagenetv2",
        source="Recht et al. 2019; matched-frequency",
    ),
    Benchmark(
        name="imagenet-a",
        title="ImageNet-A",
        task="classification",
        samples=7_500,
        classes=200,
        metrics=ACC1,
        prompts=_PROMPTS,
        classnames=IMAGENET_NAMES,
        hub="imagenet-a",
        source="Hendrycks et al. 2021",
    ),
    Benchmark(
        name="imagenet-r",
        title="ImageNet-R",
        task="classification",
        samples=30_000,
        classes=200,
        metrics=ACC1,
        prompts=_PROMPTS,
        classnames=IMAGENET_NAMES,
        hub="imagenet-r",
        source="Hendrycks et al. 2021",
    ),
    Benchmark(
        name="imagenet_sketch",
        title="ImageNet-Sketch",
        task="classification",
        samples=50_889,
        classes=1_000,
        metrics=ACC1,
        prompts=_PROMPTS,
        classnames=IMAGENET_NAMES,
        hub="imagenet_sketch",
        source="Wang et al. 2019",
    ),
)
