"""What lightweight image towers cost as they would be deployed; trains and scores nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ConfigError, HarnessError, one_line

if TYPE_CHECKING:
    import torch
    from torch import nn

#: LightCLIP's three first, then one or two of each of today's mobile families.
TOWERS = (
    "resnet18",
    "mobilenetv2_100",
    "swin_nano",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "lcnet_050",
    "ghostnetv3_100",
    "fastvit_t8",
    "fastvit_mci0",
    "mobileone_s0",
    "repvit_m0_9",
    "efficientvit_b0",
    "efficientvit_m0",
    "tiny_vit_5m_224",
    "mobilevitv2_050",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "convnext_atto",
    "starnet_s1",
)
BATCHES = (1, 64)


@dataclass(frozen=True)
class TowerRow:
    """What one tower costs without a projection; a number is None where it could not be had.

    Attributes:
        parameters, gmacs: of the re-parameterised tower; GMACs of one picture.
        latency_ms_batch1, latency_ms_batch64: milliseconds of a batch in fp32, by torch.
    onnx_ms_batch1, onnx_ms_batch64: the same by ONNX Runtime on the CPU.
        patches, channels: tokens that it gives to token-level objectives, and their width.
        width: of the pooled features.
        reparameterised: whether branches or norms were merged first.
        note: why a number is missing.
    """

    backbone: str
    parameters: int | None = None
    gmacs: float | None = None
    latency_ms_batch1: float | None = None
    latency_ms_batch64: float | None = None
    onnx_ms_batch1: float | None = None
    onnx_ms_batch64: float | None = None
    patches: int | None = None
    channels: int | None = None
    width: int | None = None
    reparameterised: bool | None = None
    note: str = ""


def measure_tower(name: str, size: int, device: torch.device) -> TowerRow:
    """The costs of a randomly initialised backbone for pictures of `size` pixels.

    An architecture that cannot be built, run or re-parameterised is a row with the reason.
    """
    try:
        return _measured(name, size, device)
    except (HarnessError, RuntimeError, AssertionError, ValueError, TypeError) as error:
        return TowerRow(name, note=one_line(error))


def _measured(name: str, size: int, device: torch.device) -> TowerRow:
    from harness.evaluate.cost import (
        count_gmacs,
        count_parameters,
        latency_ms,
        noise_pictures,
        re_parameterised,
    )
    from harness.models.image import build_backbone
    from harness.models.tokens import patch_layout

    backbone = build_backbone(name, size).eval()
    picture = noise_pictures(1, size)
    deployed = re_parameterised(backbone, picture)
    gmacs = count_gmacs(deployed, picture)
    try:
        layout = patch_layout(deployed, name, size)
        patches, channels, note = layout.grid**2, layout.channels, ""
    except ConfigError as error:
        patches, channels, note = None, None, str(error)
    onnx_once, onnx_many, obstacle = _by_onnx_runtime(deployed, name, size)
    deployed.to(device)
    once, many = (latency_ms(deployed, noise_pictures(n, size).to(device)) for n in BATCHES)
    return TowerRow(
        backbone=name,
        parameters=count_parameters(deployed.parameters()),
        gmacs=gmacs,
        latency_ms_batch1=once,
        latency_ms_batch64=many,
        onnx_ms_batch1=onnx_once,
        onnx_ms_batch64=onnx_many,
        patches=patches,
        channels=channels,
        width=int(backbone.head_hidden_size),  # type: ignore[arg-type]
        reparameterised=deployed.state_dict().keys() != backbone.state_dict().keys(),
        note="; ".join(filter(None, (note, obstacle))),
    )


def _by_onnx_runtime(
    tower: nn.Module, name: str, size: int
) -> tuple[float | None, float | None, str]:
    """Milliseconds of a batch of each of `BATCHES`, or why there are none."""
    import torch

    from harness.evaluate.cost import latency_ms, noise_pictures
    from harness.evaluate.deploy.sessions import check_packages, refusals, session_of
    from harness.models.export import onnx_bytes

    try:
        check_packages("latency by ONNX Runtime")
        with refusals(f"{name} is not for ONNX Runtime"):
            data = onnx_bytes(tower, "pixels", noise_pictures(2, size), f"{name}.onnx")
            session = session_of(data, f"{name}.onnx", torch.get_num_threads())

            def run(pixels: torch.Tensor) -> torch.Tensor:
                return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])

            once, many = (latency_ms(run, noise_pictures(n, size)) for n in BATCHES)
    except ConfigError as error:
        return None, None, str(error)
    return once, many, ""
