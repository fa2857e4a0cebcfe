"""What a configuration lacks before it can be hashed, and what is refused before it is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.config import ClassFolder, Data, Evaluate, RunConfig, Runtime, Train
from harness.config.sweep import Run, Show
from harness.errors import ConfigError
from harness.launch.check import check_runs, finisher


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(file)


def show(*metrics: str, **declared: Any) -> Show:
    return Show(x="train.lr", metrics=metrics, **declared)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Three training pictures and a test picture with captions; two classes of pictures."""
    for name in "abcd":
        picture(tmp_path / "pairs" / f"{name}.png")
    rows = ["a.png,an a,train", "b.png,a b,train", "c.png,a c,train", "d.png,a d,test"]
    captions = tmp_path / "pairs" / "captions.csv"
    captions.write_text("\n".join(["image,caption,split", *rows]) + "\n")
    for name in ("cat", "dog"):
        picture(tmp_path / "pets" / name / "1.png")
    folder = ClassFolder(name="pets", path=str(tmp_path / "pets"))
    return RunConfig(
        data=Data(source="folder", path=str(tmp_path / "pairs")),
        evaluate=Evaluate(class_folders=(folder,)),
        train=Train(batch_size=3),
    )


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(cache=str(tmp_path / "cache"))


def test_fingerprints_of_the_data_are_put_in(config: RunConfig, runtime: Runtime) -> None:
    finished = finisher(runtime)(config)
    assert finished.data.fingerprint is not None
    assert finished.evaluate.fingerprint is not None
    assert finished.evaluate.class_folders[0].fingerprint is not None
    assert finished.run_key != config.run_key
    assert finished.evaluation_key != config.evaluation_key


def test_finishing_twice_changes_nothing(config: RunConfig, runtime: Runtime) -> None:
    finish = finisher(runtime)
    assert finish(finish(config)) == finish(config)


def test_metrics_of_splits_and_class_folders_are_known(config: RunConfig, runtime: Runtime) -> None:
    run = Run("base", {}, 0, config)
    check_runs([run], show("test/text_retrieval_recall@5", "pets/acc1"), runtime)
    with pytest.raises(ConfigError, match=r"unknown metric 'pet/acc1'; nearest: pets/acc1"):
        check_runs([run], show("pet/acc1"), runtime)


def test_a_batch_must_fit_the_training_pictures(config: RunConfig, runtime: Runtime) -> None:
    larger = config.model_copy(update={"train": Train(batch_size=4)})
    with pytest.raises(ConfigError, match=r"batch_size = 4 is more than the 3 training pictures"):
        check_runs([Run("base", {}, 0, larger)], show(), runtime)


def test_every_point_is_checked_not_only_the_first(config: RunConfig, runtime: Runtime) -> None:
    image = config.model.image.model_copy(update={"backbone": "resnet19"})
    strange = config.model_copy(update={"model": config.model.model_copy(update={"image": image})})
    runs = [Run("base", {}, 0, config), Run("strange", {}, 0, strange)]
    with pytest.raises(ConfigError, match=r"unknown backbone 'resnet19'; nearest: resnet1"):
        check_runs(runs, show(), runtime)


def test_the_primary_metric_is_one_and_is_shown(config: RunConfig, runtime: Runtime) -> None:
    run = Run("base", {}, 0, config)
    given = show("pets/acc1", primary="*/mean_recall", margin=1.0)
    found = check_runs([run], given, runtime)
    assert found.primary == "test/mean_recall"
    assert found.metrics == ("pets/acc1", "test/mean_recall")
    assert (found.margin, found.cost) == (given.margin, given.cost)
    assert check_runs([run], show("pets/acc1"), runtime).primary is None


@pytest.mark.parametrize(
    ("primary", "line"),
    [
        (
            "test/mean_recal",
            r"primary: unknown metric 'test/mean_recal'; nearest: test/mean_recall",
        ),
        ("*/mean", r"primary: unknown metric '\*/mean'"),
        ("pets/acc*", r"primary = 'pets/acc\*' is 2 metrics: pets/acc1, pets/acc5"),
        ("cost/gmacs/text", "primary = 'cost/gmacs/text' is a cost; a metric of quality is wanted"),
    ],
)
def test_a_primary_metric_that_is_not_one_is_refused(
    config: RunConfig, runtime: Runtime, primary: str, line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        check_runs([Run("base", {}, 0, config)], show("pets/acc1", primary=primary), runtime)


def test_a_primary_metric_that_differs_from_point_to_point_is_refused(
    config: RunConfig, runtime: Runtime
) -> None:
    (pets,) = config.evaluate.class_folders
    zoo = pets.model_copy(update={"name": "zoo"})
    other = config.model_copy(update={"evaluate": Evaluate(class_folders=(zoo,))})
    runs = [Run("pets", {}, 0, config), Run("zoo", {}, 0, other)]
    with pytest.raises(ConfigError, match=r"'\*/acc1' is 2 metrics: pets/acc1, zoo/acc1"):
        check_runs(runs, show(primary="*/acc1"), runtime)
