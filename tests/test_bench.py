"""The table of image towers: numbers known beforehand, and what becomes of a tower that fails."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.commands import bench
from harness.commands.bench import main
from harness.evaluate import cost, towers
from harness.evaluate.cost import count_parameters, re_parameterised
from harness.evaluate.towers import TOWERS, measure_tower
from harness.models.image import build_backbone
from harness.models.names import BACKBONES, backbone_names

CPU = torch.device("cpu")


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A latency is the size of its batch."""
    monkeypatch.setattr(cost, "latency_ms", lambda tower, pixels: float(len(pixels)))
    monkeypatch.setattr(cost, "device_name", lambda device: "a processor, 1 thread")


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers are not written as ONNX, which takes seconds each."""
    monkeypatch.setattr(towers, "_by_onnx_runtime", lambda *_: (1.0, 64.0, ""))


class Broken(nn.Module):
    num_features = head_hidden_size = 8
    forward_features = forward_head = nn.Module.forward

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, pixels: Tensor) -> Tensor:
        raise RuntimeError(f"cannot take {self.size}\nat all")


# --------------------------------------------------------------------------- numbers


def test_the_table_holds_what_can_be_counted_by_hand(no_clock, tmp_path, capsys):
    assert main(["towers", "--only", "resnet18", "--size", "64", "--out", str(tmp_path)]) == 0
    # torchvision's ResNet-18 has 11,689,512 parameters and 1,814,073,344 MACs at 224 pixels, of
    # which its classifier has 513,000 and 512,000; convolutions go with the area.
    parameters, gmacs = 11_689_512 - 513_000, (1_814_073_344 - 512_000) * 64**2 // 224**2 / 1e9
    assert (tmp_path / "towers.csv").read_text() == (
        "backbone,parameters,gmacs,latency_ms_batch1,latency_ms_batch64,onnx_ms_batch1,"
        "onnx_ms_batch64,patches,channels,width,"
        "reparameterised,note,size,device\n"
        f"resnet18,{parameters},{gmacs},1.0,64.0,1.0,64.0,4,512,512,false,,64,"
        '"a processor, 1 thread"\n'
    )
    assert (
        "| resnet18 | 11.18 | 0.148 | 1.0 | 64 | 1.00 | 64 | 4 | 512 | 512 | no |"
        in (tmp_path / "towers.md").read_text().splitlines()
    )
    assert "resnet18           11.18  0.148          1.0            64" in capsys.readouterr().out


def test_the_table_can_be_read_back(no_clock, no_onnx, tmp_path):
    main(["towers", "--only", "lcnet*", "--size", "64", "--out", str(tmp_path)])
    [row] = csv.DictReader(io.StringIO((tmp_path / "towers.csv").read_text()))
    assert row["backbone"] == "lcnet_050"
    assert (row["patches"], row["channels"], row["width"]) == ("4", "256", "1280")


def test_a_tower_is_measured_as_it_is_deployed(no_clock, no_onnx):
    row = measure_tower("repvit_m0_9", 64, CPU)
    trained = count_parameters(build_backbone("repvit_m0_9", 64).parameters())
    assert row.reparameterised
    assert row.parameters < trained
    assert not measure_tower("mobilenetv2_100", 64, CPU).reparameterised


def test_the_list_has_the_cards_three_and_at_least_eight_mobile_families():
    assert TOWERS[:3] == ("resnet18", "mobilenetv2_100", "swin_nano")
    assert len({name.partition("_")[0] for name in TOWERS[3:]}) >= 8
    assert set(TOWERS) <= backbone_names()


# --------------------------------------------------------------------------- re-parameterisation


def with_statistics(backbone: nn.Module) -> nn.Module:
    """As if trained: norms that neither centre on 0 nor scale by 1."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(tensor, low, high)
    return backbone.eval()


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_mci0", "repvit_m0_9", "mobileone_s0"])
def test_re_parameterised_towers_give_the_same_features(name):
    tower = with_statistics(build_backbone(name, 64))
    pixels = torch.randn(2, 3, 64, 64)
    deployed = re_parameterised(tower, pixels)
    with torch.inference_mode():
        before, after = (F.normalize(model(pixels), dim=-1) for model in (tower, deployed))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert (before[0] - before[1]).abs().max() > 1e-3
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in t.modules()) for t in (tower, deployed)]
    assert norms[1] < norms[0] / 2


# --------------------------------------------------------------------------- what fails


def test_a_tower_that_fails_is_a_row_with_its_reason(
    no_clock, no_onnx, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(BACKBONES._parts, "broken", Broken)
    monkeypatch.setattr(bench, "TOWERS", ("broken", "lcnet_050"))
    assert main(["towers", "--size", "64", "--out", str(tmp_path)]) == 3
    rows = list(csv.DictReader(io.StringIO((tmp_path / "towers.csv").read_text())))
    assert rows[0]["note"] == "RuntimeError: cannot take 64 at all"
    assert rows[0]["parameters"] == ""
    assert rows[1]["parameters"] != ""
    assert "broken: RuntimeError: cannot take 64 at all" in capsys.readouterr().out
    assert "- broken: RuntimeError: cannot take 64 at all" in (tmp_path / "towers.md").read_text()


def test_a_tower_without_patches_to_match_keeps_its_other_numbers(no_clock):
    row = measure_tower("resnet18", 32, CPU)
    assert (row.patches, row.channels) == (None, None)
    assert "gives a single patch for 32-pixel pictures" in row.note
    assert row.parameters == 11_176_512


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["towers", "--only", "resnet81"], "unknown tower 'resnet81'; nearest: resnet18"),
        (["towers", "--size", "4"], "model.image.size = 4: Input should be greater than"),
        (["towers", "--threads", "0"], "threads = 0: Input should be greater than"),
        (["towers", "--size", "big"], "argument --size: invalid int value: 'big'"),
        (["tower"], "invalid choice: 'tower'"),
        ([], "the following arguments are required: PART"),
    ],
)
def test_a_wrong_command_is_one_line(words, line, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_known_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["towers", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "measuring" not in capsys.readouterr().err


def test_help_needs_no_torch():
    code = (
        "import sys; from harness.commands.bench import main\n"
        "try: main(['towers', '--help'])\n"
        "finally: assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet18" in done.stdout
