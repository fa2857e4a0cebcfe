"""What a run costs, estimated from its configuration alone: multiply-accumulates, no clock.

The plan turns these GMACs into time with the speed of finished runs, or with a nominal one.
Torch-free, and an estimate: what a trained model really costs is measured by the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import Model, RunConfig, TextTower
from harness.config.inheritance import read_teacher
from harness.errors import ConfigError, unknown

#: GMACs of one forward pass of a 224-pixel picture, counted with torch's FlopCounterMode (half of
#: its FLOPs) on headless timm 1.0.31 models.
IMAGE_GMACS_224 = {
    "test_resnet": 0.201,
    "test_vit": 0.088,
    "test_convnext": 0.061,
    "test_efficientnet": 0.112,
    "resnet10t": 1.097,
    "resnet14t": 1.675,
    "resnet18": 1.814,
    "resnet18d": 2.053,
    "resnet26": 2.340,
    "resnet34": 3.663,
    "resnet50": 4.087,
    "mobilenetv2_050": 0.096,
    "mobilenetv2_100": 0.299,
    "mobilenetv3_small_100": 0.055,
    "mobilenetv3_large_100": 0.215,
    "mobilenetv4_conv_small": 0.185,
    "mobilenetv4_conv_medium": 0.826,
    "efficientnet_b0": 0.385,
    "efficientnet_lite0": 0.384,
    "efficientvit_b0": 0.099,
    "efficientvit_m0": 0.079,
    "efficientformerv2_s0": 0.396,
    "edgenext_xx_small": 0.197,
    "mobileone_s0": 1.051,
    "mobileone_s1": 0.829,
    "mobilevit_xs": 0.772,
    "repvgg_a0": 1.511,
    "repvit_m0_9": 0.817,
    "repvit_m1_0": 1.107,
    "fastvit_t8": 0.528,
    "fastvit_t12": 1.069,
    "fastvit_mci0": 1.830,
    "regnety_002": 0.199,
    "lcnet_050": 0.043,
    "ghostnet_100": 0.140,
    "convnext_atto": 0.547,
    "convnext_tiny": 4.455,
    "tiny_vit_5m_224": 1.255,
    "tiny_vit_11m_224": 2.016,
    "vit_tiny_patch16_224": 1.253,
    "vit_small_patch16_224": 4.598,
    "vit_base_patch16_224": 17.563,
    "deit_tiny_patch16_224": 1.253,
    "swin_nano": 1.161,
    "swin_tiny_patch4_window7_224": 4.490,
}
FALLBACK_IMAGE_GMACS_224 = 1.0
"""Assumed of a backbone that is not in the table."""
CAPTION_TOKENS = 16
"""Assumed length of a batch's text: batches are cut to their longest caption."""
STEP_OVER_FORWARD = 3
"""A training step over its forward pass: the backward pass is two of them."""
NOMINAL_GMACS_PER_SECOND = 12.0
"""Training speed of one CPU core for small towers, until a finished run tells the real one.

One core of an EPYC makes 20 to 30 in the towers alone; decoding, the optimiser and a neighbour on
the memory bus take the rest.
"""

#: Peak of a GPU in dense bfloat16 GMACs/s: half the FLOPs of its maker's data sheet.
GPU_PEAK_GMACS = {
    "a10": 62_500.0,
    "rtx4090": 82_600.0,
    "a100": 156_000.0,
    "l40s": 181_000.0,
    "h100": 494_500.0,
    "h200": 494_500.0,
    "b200": 1_125_000.0,
}
GPU_UTILISATION = 0.2
"""Assumed share of that peak in training: resnet50 on an A100 with 2,600 pictures/s (as reported in
huggingface/pytorch-image-models#1491) uses 0.20 of it.  Smaller towers use less."""
DECODED_PER_SECOND = 500.0
"""Assumed JPEG pictures of ImageNet's size that a core decodes and crops in a second."""


@dataclass(frozen=True)
class Pace:
    """An assumed speed of one run, which the time until a run has finished here rests on.

    Attributes:
        gmacs: a second, in the towers.
        pictures: a second, decoded.
        gpus: of one run.
        words: what is assumed.
    """

    gmacs: float
    pictures: float
    gpus: int
    words: str

    def seconds(self, config: RunConfig, samples: int) -> float:
        """Of training on `samples` pairs: decoding goes on beside the towers, the slower counts."""
        return max(training_gmacs(config, samples) / self.gmacs, samples / self.pictures)


def gpu_pace(gpu: str, count: int, cores: int, utilisation: float = GPU_UTILISATION) -> Pace:
    """The pace of a run on `count` GPUs, for which `cores` decode; ConfigError for another GPU."""
    if gpu not in GPU_PEAK_GMACS:
        raise ConfigError(unknown("GPU", gpu, GPU_PEAK_GMACS))
    peak = GPU_PEAK_GMACS[gpu]
    words = (
        f"{count} x {gpu} at {utilisation:.0%} of the {peak:,.0f} GMACs/s of its data sheet and "
        f"{cores} cores that decode {DECODED_PER_SECOND:g} pictures/s each assumed"
    )
    return Pace(count * peak * utilisation, cores * DECODED_PER_SECOND, count, words)


def training_gmacs(config: RunConfig, samples: int) -> float:
    """GMACs (forward and backward) of training on `samples` pairs.

    Counted of the terms of the loss are the further passes through the towers that they take, and
    of live teachers their forward passes.
    """
    terms = config.objective.active.values()
    pictures = 1 + sum(term.further_views for term in terms)
    texts = 1 + sum(term.text_passes for term in terms)
    forward = pictures * _image_gmacs(config.model) + texts * _text_gmacs(config.model)
    return samples * (STEP_OVER_FORWARD * forward + _live_gmacs(config))


def _live_gmacs(config: RunConfig) -> float:
    """A pair's way through the live teachers; one that is no run of this kind counts as the run."""
    if "teacher" in config.idle() or config.teacher.views is not None:
        return 0.0
    layers = [read_teacher(text).layers for text in config.teacher.models]
    depths = [config.model.text.layers if depth is None else depth for depth in layers]
    texts = [config.model.text.model_copy(update={"layers": depth}) for depth in depths]
    return sum(
        _image_gmacs(config.model) + _text_gmacs(config.model.model_copy(update={"text": text}))
        for text in texts
    )


def decode_share(config: RunConfig, pace: Pace | None) -> float:
    """Share of the training time that a run waits for its pictures, at assumed speeds.

    Without a pace it is of one core, which decodes and computes in turns.
    """
    if pace is None:
        towers = training_gmacs(config, 1) / NOMINAL_GMACS_PER_SECOND
        pictures = 1 / DECODED_PER_SECOND
        return pictures / (pictures + towers)
    whole = pace.seconds(config, 1)
    return 1 - training_gmacs(config, 1) / pace.gmacs / whole


def is_known_backbone(config: RunConfig) -> bool:
    """Whether the image tower's cost is from the table and not the fallback."""
    return config.model.image.backbone in IMAGE_GMACS_224


def _image_gmacs(model: Model) -> float:
    at_224 = IMAGE_GMACS_224.get(model.image.backbone, FALLBACK_IMAGE_GMACS_224)
    return at_224 * (model.image.size / 224) ** 2


def _text_gmacs(model: Model) -> float:
    """Blocks of CLIP's transformer at `CAPTION_TOKENS` tokens, and the projection of one token.

    A token costs 12 width^2 in the matrices of a block (4 of attention, 8 of the MLP) and
    2 tokens width in the attention itself; looking up the embedding costs nothing.
    """
    text: TextTower = model.text
    tokens = min(CAPTION_TOKENS, text.context_length)
    block = tokens * (12 * text.width**2 + 2 * tokens * text.width)
    return (text.layers * block + text.width * model.embed_dim) / 1e9


def duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
