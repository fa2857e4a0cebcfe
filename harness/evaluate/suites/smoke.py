"""What is always there: the built-in drawings, so that every stage can be tried in seconds."""

from harness.evaluate.suites.records import ACC1, RECALL_AT_1, Benchmark

SMOKE = (
    Benchmark(
        name="openmoji",
        title="OpenMoji",
        task="retrieval",
        samples=417,
        captions=1_332,
        metrics=RECALL_AT_1,
        source="OpenMoji 17; held-out combinations of role, gender and skin tone",
    ),
    Benchmark(
        name="openmoji_role",
        title="OpenMoji roles",
        task="classification",
        samples=283,
        classes=87,
        metrics=ACC1,
        source="OpenMoji 17; the roles of the same pictures",
    ),
)
