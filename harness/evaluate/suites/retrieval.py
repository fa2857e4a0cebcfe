"""Image-text retrieval with five captions a picture, on Karpathy's splits.

Of COCO also with labels of all that is relevant.
"""

from harness.evaluate.suites.records import RECALL_AT_1, Benchmark, Builder
from harness.metrics import WAYS
from harness.metrics.relevance import MAP_AT_R, at_k, kind_of

MSCOCO = Benchmark(
    name="mscoco",
    title="MSCOCO 5K",
    task="retrieval",
    samples=5_000,
    captions=25_010,
    metrics=RECALL_AT_1,
    hub="mscoco_captions",
    builder=Builder("mscoco_captions", "coco_test_karpathy.json"),
    source="Lin et al. 2014; Karpathy's test split, ten pictures of which have six captions",
)

RETRIEVAL = (
    Benchmark(
        name="flickr30k",
        title="Flickr30K",
        task="retrieval",
        samples=1_000,
        captions=5_000,
        metrics=RECALL_AT_1,
        hub="flickr30k",
        builder=Builder("flickr30k", "flickr30k_test_karpathy.txt"),
        source="Young et al. 2014; Karpathy's test split",
    ),
    MSCOCO,
    Benchmark(
        name="flickr8k",
        title="Flickr8K",
        task="retrieval",
        samples=1_000,
        captions=5_000,
        metrics=RECALL_AT_1,
        hub="flickr8k",
        builder=Builder("flickr8k", "flickr8k_test_karpathy.txt"),
        source="Hodosh et al. 2013; test split",
    ),
)


def _labelled(name: str, title: str, labels: str, what: str, source: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        task="relevance",
        samples=5_000,
        captions=25_010,
        metrics=tuple(kind_of(way, what) for way in WAYS),
        source=source,
        fetched_by="pip install 'lightclip-harness[eccv]', and annotations/captions_val2014.json "
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
