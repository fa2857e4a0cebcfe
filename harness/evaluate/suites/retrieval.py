"""Image-text retrieval with five captions a picture, on Karpathy's splits."""

from harness.evaluate.suites.records import RECALL_AT_1, Benchmark, Builder

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
    Benchmark(
        name="mscoco",
        title="MSCOCO 5K",
        task="retrieval",
        samples=5_000,
        captions=25_010,
        metrics=RECALL_AT_1,
        hub="mscoco_captions",
        builder=Builder("mscoco_captions", "coco_test_karpathy.json"),
        source="Lin et al. 2014; Karpathy's test split, ten pictures of which have six captions",
    ),
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
