"""Ours beside CLIP_benchmark's own functions; where they differ, the definition is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from harness.config import Evaluate, ImageTower, Model, Runtime, TextTower
from harness.evaluate import verify
from harness.evaluate.model import Identity, identity_of_run
from harness.evaluate.suites.find import Found, find
from harness.evaluate.suites.records import Benchmark
from harness.models.two_tower import TwoTower
from tests.evaluate.benchmark_cases import (
    CAPTIONS,
    CLASSES,
    caption_folder,
    class_folder,
)

SETTINGS = Evaluate(splits=(), suites=("smoke",), batch_size=4)


@pytest.fixture(scope="module")
def small() -> tuple[TwoTower, Identity]:
    config = Model(
        image=ImageTower(backbone="test_resnet", size=32),
        text=TextTower(layers=1, width=16, heads=2, context_length=16),
        embed_dim=8,
    )
    model = TwoTower(config, None, seed=0).eval()
    return model, identity_of_run(model, "c" * 64)


def compared(
    small: tuple[TwoTower, Identity], benchmark: Benchmark, root: Path
) -> verify.Comparison:
    found = find(benchmark, str(root))
    assert isinstance(found, Found)
    return verify.compare(*small, found, SETTINGS, Runtime(cache=str(root / "cache")))


@pytest.mark.parametrize("task", ["classification", "retrieval"])
def test_every_metric_agrees(small: tuple[TwoTower, Identity], task: str, tmp_path: Path) -> None:
    benchmark = CLASSES if task == "classification" else CAPTIONS
    made = class_folder if task == "classification" else caption_folder
    made(tmp_path / benchmark.name)
    found = compared(small, benchmark, tmp_path)
    names = {row.name.split("/", 1)[1].split("@")[0] for row in found.rows}
    if task == "classification":
        assert names == {"acc1", "acc5", "mean_per_class_recall"}
    else:
        assert names == {"image_retrieval_recall", "text_retrieval_recall"}
    assert max(row.gap for row in found.rows) <= 1e-6
    assert found.difference is None


def test_another_way_of_decoding_is_named(
    small: tuple[TwoTower, Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folder(tmp_path / "patches")
    for file in folder.rglob("*.png"):
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            clear = picture.convert("RGBA")
            clear.putalpha(40)
            clear.save(file)
    monkeypatch.setitem(verify._TOLERANCE, "fp32", -1.0)
    found = compared(small, CLASSES, tmp_path)
    assert found.difference is not None
    assert "decoding, of 6 of 6 pictures looked at, such as" in found.difference


def test_a_tie_leaves_a_range_and_what_is_outside_of_it_differs(
    small: tuple[TwoTower, Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = caption_folder(tmp_path / "told")
    table = folder / "captions.csv"
    # The red and the green picture own the same caption: strictly a tie for both.
    table.write_text(table.read_text().replace("green.png,test,green", "green.png,test,red"))
    found = compared(small, CAPTIONS, tmp_path)
    tied = [row for row in found.rows if row.tied]
    assert [row.name for row in tied] == ["told/text_retrieval_recall@1"] * len(tied)
    assert all(row.gap == 0 for row in tied)
    assert found.difference is None
    assert verify.Row("m", 0.5, 0.4, low=0.25, high=0.75, tied=3).gap == 0.0
    assert verify.Row("m", 0.5, 0.8, low=0.25, high=0.75, tied=3).gap == pytest.approx(0.05)
    assert verify.Row("m", 0.5, 0.4, low=0.5, high=0.5).gap == pytest.approx(0.1)


def test_a_metric_that_differs_by_itself_is_named(
    small: tuple[TwoTower, Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folder(tmp_path / "patches")
    real = verify._theirs

    def other(*args: object) -> dict[str, float]:
        found = real(*args)  # type: ignore[arg-type]
        return {**found, "acc1": found["acc1"] + 0.5}

    monkeypatch.setattr(verify, "_theirs", other)
    found = compared(small, CLASSES, tmp_path)
    assert found.difference == (
        "patches/acc1 by 5.0e-01, more than 1e-06: the same pictures, texts and embeddings; "
        "the metric itself differs"
    )
