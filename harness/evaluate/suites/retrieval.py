"""Image-text retrieval with five captions a picture, on Karpathy's splits.

Of COCO also with labels of all that is relevant.
"""

from functools import partial

from harness.evaluate.suites.records import RECALL_AT_1, Benchmark, Builder
from harness.metrics import WAYS
from harness.metrics.relevance import MAP_AT_R, at_k, kind_of

_captioned = partial(Benchmark, task="retrieval", metrics=RECALL_AT_1)

MSCOCO = _captioned(
    name="mscoco",
    title="MSCOCO 5K",
    samples=5_000,
    captions=25_010,
    hub="mscoco_captions",
    builder=Builder("mscoco_captions", "coco_test_karpathy.json"),
    source="Lin et al. 2014; Karpathy's test split, ten pictures of which have six captions",
)
_FLICKR30K, _FLICKR8K = (
    _captioned(
        name=f"flickr{size}k",
        title=f"Flickr{size}K",
        samples=1_000,
        captions=5_000,
        hub=f"flickr{size}k",
        builder=Builder(f"flickr{size}k", f"flickr{size}k_test_karpathy.txt"),
        source=source,
    )
    for size, source in (
        (30, "Young et al. 2014; Karpathy's test split"),
        (8, "Hodosh et al. 2013; test split"),
    )
)
RETRIEVAL = (_FLICKR30K, MSCOCO, _FLICKR8K)


def _labelled(name: str, title: str, labels: str, what: str, source: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        task="relevance",
        samples=5_000,
        captions=25_010,
        metrics=tuple(kind_of(way, what) for way in WAYS),
        source=source,
        fetched_by="{install}, and annotations/captions_val2014.json "
        "of http://images.cocodataset.org/annotations/annotations_trainval2014.zip into "
        "{root}/mscoco",
        of=MSCOCO,
        labels=(f"{labels}_image_to_caption.json", f"{labels}_caption_to_image.json"),
    )


RELEVANT = (
    _labelled(
        "eccv_caption",
        "ECCV Caption",
        "eccv",
        MAP_AT_R,
        "Chun et al. 2022; 1,261 pictures and 1,332 captions of MSCOCO 5K",
    ),
    _labelled(
        "cxc",
        "CxC",
        "cxc",
        at_k(1),
        "Parekh et al. 2021, by eccv-caption; MSCOCO 5K",
    ),
)
