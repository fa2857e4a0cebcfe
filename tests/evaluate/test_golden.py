"""Published figures beside what is found: the table that is shipped, and a stand-in model."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from harness.commands.evaluate import main
from harness.errors import ConfigError
from harness.evaluate.golden import FIGURES, golden, read_golden
from harness.evaluate.suites import BENCHMARKS
from harness.metrics import headline_metrics
from tests.evaluate.benchmark_cases import (
    CAPTIONS,
    CLASSES,
    caption_folder,
    class_folder,
    write_small_clip,
)

HEAD = "name,architecture,source,cifar10/acc1,mscoco/text_retrieval_recall@1"


def test_the_shipped_table_has_figures_by_the_metric_of_each_benchmark() -> None:
    models = read_golden(FIGURES)
    families = ("MobileCLIP-S0", "MobileCLIP-B", "MobileCLIP2-S0", "TinyCLIP-ViT-8M-16-Text-3M")
    assert {*families, "ViT-B-32-openai", "ViT-B-32-laion2b"} <= models.keys()
    judged = {name for b in BENCHMARKS.values() for name in headline_metrics(b)}
    for model in models.values():
        assert {figure.metric for figure in model.figures} <= judged
        assert "imagenet1k" in model.benchmarks
        assert model.source
    by_metric = {figure.metric: figure for figure in golden("MobileCLIP-S0").figures}
    # The README of the same project prints 67.8.
    assert by_metric["imagenet1k/acc1"].value == pytest.approx(0.678, abs=5e-4)
    assert len(golden("ViT-B-32-openai").figures) == 19


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its head begins with name,architecture,source"),
        ("a,b\n", "its head begins with"),
        ("name,architecture,source\nm,M,s\n", "its head begins with"),
        (f"{HEAD}\nm,M,s,0.5\n", "line 2 has 4 cells, its head 5"),
        (f"{HEAD}\nm,M,s,0.5,0.5,0.5\n", "line 2 has 6 cells, its head 5"),
        (f"{HEAD}\nm,M,s,0.5,0.5\nm,M,s,0.5,0.5\n", "line 3: a name of its own"),
        (f"{HEAD}\nm,M,,0.5,0.5\n", "line 2: a name of its own, a source"),
        (f"{HEAD}\nm,M,s,,\n", "line 2: a name of its own, a source and a figure"),
        (f"{HEAD}\nm,M,s,67.8,0.5\n", "cifar10/acc1 = '67.8' is no fraction"),
        (f"{HEAD}\nm,M,s,nan,0.5\n", "is no fraction"),
        (f"{HEAD}\nm,M,s,1.5,0.5\n", "is no fraction"),
        (f"{HEAD}\nm,M,s,0.5e3,0.5\n", "is no fraction"),
        (f"{HEAD},cifar/acc1\nm,M,s,0.5,0.5,0.5\n", "unknown data set 'cifar'; nearest: cifar10"),
        (f"{HEAD},pets/acc9\nm,M,s,0.5,0.5,0.5\n", "unknown metric 'pets/acc9'"),
        ("\x00", "its head begins with|cannot be read"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "golden.csv").write_text(text)
    with pytest.raises(ConfigError, match=words) as told:
        read_golden(tmp_path / "golden.csv")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "golden.csv").write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_golden(tmp_path / "golden.csv")


# --------------------------------------------------------------------------- a stand-in


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("models") / "stand_in")


@pytest.fixture
def found(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, float]]:
    """The words that evaluate the stand-in, and what is found."""
    for benchmark in (CLASSES, CAPTIONS):
        monkeypatch.setitem(BENCHMARKS, benchmark.name, benchmark)
    class_folder(tmp_path / "data" / "patches")
    caption_folder(tmp_path / "data" / "told")
    words = [str(export), "--data-root", str(tmp_path / "data"), "--root", str(tmp_path)]
    words += [f"runtime.cache={tmp_path / 'cache'}"]
    out = tmp_path / "found.csv"
    assert main([*words, "--suite", "patches", "--suite", "told", "--out", str(out)]) == 0
    heads, row = csv.reader(out.open())
    numbers = {name: float(v) for name, v in zip(heads[1:], row[1:], strict=True)}
    monkeypatch.setattr("harness.evaluate.golden.FIGURES", tmp_path / "golden.csv")
    return words, numbers


def table(tmp_path: Path, figures: dict[str, str]) -> None:
    heads = ["name", "architecture", "source", *figures]
    row = ["stand-in", "Small", "made here (table 1)", *figures.values()]
    (tmp_path / "golden.csv").write_text(f"{','.join(heads)}\n{','.join(row)}\n")


def test_found_published_and_difference_are_printed_and_judged(
    found: tuple[list[str], dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, numbers = found
    table(tmp_path, {name: f"{value:.4f}" for name, value in numbers.items()})
    capsys.readouterr()
    assert main([*words, "--verify", "--golden", "stand-in"]) == 0
    told = capsys.readouterr()
    assert "stand-in, published (%)" in told.out
    assert "made here (table 1)" in told.out
    assert told.out.count("0.00") >= len(numbers)
    assert "differ" not in told.err
    # Ten points off in one task: the row and the exit code say so.
    name, value = next(iter(numbers.items()))
    table(
        tmp_path, {**{n: f"{v:.4f}" for n, v in numbers.items()}, name: f"{abs(value - 0.1):.3f}"}
    )
    assert main([*words, "--verify", "--golden", "stand-in"]) == 3
    told = capsys.readouterr()
    assert f"1 of {len(numbers)} differ by more than print and decoding explain: {name}" in told.err
    assert "differs" in told.out


def test_only_what_is_on_disk_is_compared(
    found: tuple[list[str], dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, numbers = found
    table(tmp_path, {name: f"{value:.4f}" for name, value in numbers.items()})
    (tmp_path / "data" / "told").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main([*words, "--verify", "--golden", "stand-in"]) == 3
    told = capsys.readouterr()
    assert "hole: told: not below" in told.err
    assert "2 of 3 figures have nothing beside them" in told.err
    assert "\N{EM DASH}" in told.out
    # Asked for the set that is there alone, nothing is missing.
    assert main([*words, "--verify", "--golden", "stand-in", "--suite", "patches"]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--golden", "stand-in"], "--verify --golden NAME"),
        (["--verify", "--golden", "stand-inn"], "unknown golden model 'stand-inn'; nearest: stand"),
        (["--verify", "--golden", "stand-in"], "which weights? --pretrained FILE of Small"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("harness.evaluate.golden.FIGURES", tmp_path / "golden.csv")
    table(tmp_path, {"cifar10/acc1": "0.5"})
    assert main([*words, "--root", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert len(told.strip().splitlines()) == 1
