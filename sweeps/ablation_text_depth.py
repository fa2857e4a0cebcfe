"""How shallow can the text encoder be before zero-shot and retrieval accuracy drop?

Depth is the only thing that changes: width, vocabulary, image tower and data order are the same for
one seed.  The budget is `LONGER`, by which all depths fit the training set about equally well: at
SMALL's own 18,000 samples deeper towers are under-trained, and depth would seem to harm.

The verdict is mean recall, over both directions and k of 1, 5 and 10: all of a caption counts
there, and the zero-shot tasks ask for parts of the same captions.  A loss of two points counts as
none: fewer layers are worth that much.
"""

from harness.bases import LONGER, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(override(SMALL, LONGER), {"evaluate.suites": ["swaps"]}),
    points=product({"model.text.layers": [1, 2, 4, 8, 12]}),
    seeds=range(3),
    show=Show(
        x="model.text.layers",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.text.layers": 12},
        labels={"model.text.layers": "text layers"},
    ),
)
