"""The sweeps at the field's scale expand, and are planned for a cluster of GPUs that nobody has."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.commands.sweep import main
from harness.config import Runtime
from harness.config.sweep import expand
from harness.config.sweep_files import load_sweep
from harness.launch.check import finisher
from tests.conftest import drawings

REPOSITORY = Path(__file__).parent.parent
COMMAND = ("--executor", "slurm", "--profile", "eight-gpus", "runtime.workers=7", "--dry-run")
SMALL_BATCH = "train.batch_size=32"


def write_shard(file: Path, pictures: Sequence[tuple[bytes, str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, (png, colour, shape) in enumerate(pictures):
            members = {"png": png, "txt": f"a {colour} {shape} {number}".encode()}
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """48 pairs to train on in two shards, and 24 to test on."""
    made = list(drawings(72).values())
    folder = tmp_path / "pairs"
    write_shard(folder / "0.tar", made[:24])
    write_shard(folder / "1.tar", made[24:48])
    write_shard(folder / "test" / "0.tar", made[48:])
    return folder


@pytest.mark.parametrize(
    ("name", "points", "batch_size", "samples"),
    [("lightclip_cc3m", 19, 1_024, 84_690_570), ("lightclip_yfcc15m", 7, 4_096, 492_480_000)],
)
def test_every_point_is_a_run_of_the_public_recipe(
    name: str, points: int, batch_size: int, samples: int, shards: Path
) -> None:
    runs = expand(
        load_sweep(name), overrides={"data.path": str(shards)}, finish=finisher(Runtime())
    )
    assert len(runs) == 3 * points
    assert {(r.config.train.batch_size, r.config.train.samples) for r in runs} == {
        (batch_size, samples)
    }
    first = runs[0]
    assert first.label == "LightCLIP"
    assert first.config.model.text.layers == 4
    assert (
        min(
            first.config.objective.instance.a_max,
            first.config.objective.token.weight,
            first.config.objective.mlm.weight,
        )
        > 0
    )


@pytest.mark.parametrize(("name", "runs"), [("lightclip_cc3m", 57), ("lightclip_yfcc15m", 21)])
def test_a_dry_run_shows_the_price_and_the_script_without_slurm(
    name: str,
    runs: int,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "root"
    words = [name, *COMMAND, SMALL_BATCH, f"data.path={shards}", "--root", str(root)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{runs} runs: {runs} run; about " in said
    assert " GPU-hours" in said
    assert "8 x a100 at 20% of the 156,000 GMACs/s of its data sheet and 64 cores" in said
    options = {line for line in said.splitlines() if line.startswith("#SBATCH")}
    assert {"#SBATCH --gpus-per-node=a100:8", "#SBATCH --cpus-per-task=64"} <= options
    assert f"#SBATCH --array=0-{runs - 1}%{runs}" in options
    assert not root.exists()


@pytest.mark.parametrize("name", ["lightclip_cc3m", "lightclip_yfcc15m"])
def test_without_data_it_says_what_is_wanted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--dry-run", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: source shards needs data.path=...\n"
