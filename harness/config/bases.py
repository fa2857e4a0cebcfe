"""Base configurations: the built-in one and the public recipes at the field's scale.

A sweep file names one of them; `--base` swaps it, so that one ablation runs at any scale.
"""

from __future__ import annotations

from harness.config import (
    Data,
    ImageTower,
    Model,
    Objective,
    RunConfig,
    TextTower,
    Train,
    override,
)
from harness.errors import ConfigError, unknown

#: Minutes on a laptop: drawings rendered from vectors, a small residual tower, CLIP's objective.
SMALL = RunConfig(
    model=Model(
        image=ImageTower(backbone="test_resnet", size=48),
        text=TextTower(width=96, heads=3, context_length=32, vocabulary="corpus"),
        embed_dim=128,
    ),
    data=Data(source="openmoji", resolution=64, crop_scale=(0.8, 1.0)),
    train=Train(samples=18_000, batch_size=128, lr=2e-3, warmup_samples=2_000),
)

#: On top of SMALL: a budget by which text towers of 1 to 12 layers fit the built-in training set
#: about equally well, so that a sweep of depths compares depths and not budgets.  Seed 0,
#: contrastive loss over the last tenth of the samples: 0.121 with 1 layer and 0.147 with 12; by
#: SMALL's own budget 0.83 and 1.52.
LONGER: dict[str, object] = {
    "train.samples": 36_000,
    "train.batch_size": 64,
    "train.lr": 5e-4,
    "train.warmup_samples": 6_000,
    "data.crop_scale": (1.0, 1.0),
}

_CLIP_TOWERS = Model(
    image=ImageTower(backbone="resnet18", size=224),
    text=TextTower(layers=12, width=512, heads=8, context_length=77, vocabulary="full"),
    embed_dim=512,
)

#: open_clip's CC3M recipe (README of mlfoundations/open_clip): batch 128 x 8, lr 1e-3, wd 0.1, 30
#: epochs of the 2,823,019 pairs its authors had; warm-up of 10,000 steps.  It differs from theirs
#: in three places: BatchNorm over all 1,024 pairs (theirs over the 128 of a GPU), the gradient
#: clipped at 1.0 (theirs not), beta2 0.98 (theirs 0.999 for a ResNet); CC3M_OPEN_CLIP has theirs.
CC3M = RunConfig(
    model=_CLIP_TOWERS,
    objective=Objective(),
    data=Data(source="shards", crop_scale=(0.9, 1.0)),
    train=Train(
        samples=30 * 2_823_019,
        batch_size=1_024,
        lr=1e-3,
        warmup_samples=10_000 * 1_024,
        weight_decay=0.1,
    ),
)

#: The same as open_clip trains it.
CC3M_OPEN_CLIP = override(
    CC3M, {"train.norm_batch": 128, "train.grad_clip": None, "train.beta2": 0.999}
)

#: DeCLIP benchmark's YFCC15M recipe: 15.39 M pairs, global batch 4,096, 32 epochs, lr 1e-3 after
#: 2,500 steps, wd 0.1, AdamW (0.9, 0.98, 1e-8).  BatchNorm over all 4,096 pairs and the gradient
#: clipped at 1.0 are ours.
YFCC15M = RunConfig(
    model=_CLIP_TOWERS,
    objective=Objective(),
    data=Data(source="shards", crop_scale=(0.5, 1.0)),
    train=Train(
        samples=32 * 15_390_000,
        batch_size=4_096,
        lr=1e-3,
        warmup_samples=2_500 * 4_096,
        weight_decay=0.1,
    ),
)

#: How words and patches are contrasted, and how the picture enters the masked pass, so that both
#: terms look at the picture: a handful of other pictures, and gates that start open (measured in
#: docs/measured.md).
GROUNDED: dict[str, object] = {
    "objective.token.negatives": "in_batch",
    "objective.token.negatives_per_pair": 8,
    "objective.mlm.operator": "add",
    "objective.mlm.gate_init": 1.0,
}

#: The whole method in our reading, on top of a base: a shortened text encoder and every objective.
#: Its authors' own values are not public; these are where our ablations start from.
LIGHTCLIP: dict[str, object] = {
    **GROUNDED,
    "model.text.layers": 4,
    "objective.instance.a_max": 0.1,
    "objective.token.weight": 0.5,
    "objective.mlm.weight": 0.5,
}

BASES: dict[str, RunConfig] = {
    "small": SMALL,
    "cc3m": CC3M,
    "cc3m_open_clip": CC3M_OPEN_CLIP,
    "yfcc15m": YFCC15M,
}


def base(name: str) -> RunConfig:
    """The base configuration called `name`; raises ConfigError naming the nearest."""
    if name not in BASES:
        raise ConfigError(unknown("base", name, BASES))
    return BASES[name]
