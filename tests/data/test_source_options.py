"""A source in one file, or in a sweep file, brings options of its own: checked, and in the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands import sweep
from harness.config import Data, Int, RunConfig, field_paths, override, validate
from harness.config.bases import SMALL
from harness.data.catalog import SOURCES, open_data
from harness.data.dataset import DataSet
from harness.data.source import Source
from harness.errors import ConfigError
from harness.store.manifest import differences
from harness.store.record import RunDir, Store

SWEEP = '''"""Does it matter how often a word is said?"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.bases import SMALL
from harness.config import Data, Int, override
from harness.data.catalog import SOURCES, Source, path_of
from harness.data.dataset import DataSet, Split, content_fingerprint
from harness.data.sources.folder import open_folder
from harness.space import Show, Sweep, product


@SOURCES.register("parrot")
class Parrot(Source):
    """A folder whose captions are said several times."""

    unused = frozenset({"weights", "shuffle_window"})
    times: Annotated[Int, Field(ge=1)] = 1
    """How often."""

    def open(self, data: Data, cache: Path) -> DataSet:
        inner = open_folder(path_of(data))
        said = {
            name: Split(split.images, [tuple(" ".join([c] * self.times) for c in of)
                                       for of in split.captions])
            for name, split in inner.splits.items()
        }
        train = content_fingerprint({"train": said["train"]}, (), [inner.fingerprint])
        return type(inner)(**{**vars(inner), "splits": said, "fingerprint": train})


SWEEP = Sweep(
    base=override(
        SMALL,
        {
            "model.image.backbone": "test_convnext",
            "model.image.size": 32,
            "model.text.layers": 1,
            "model.text.width": 16,
            "model.text.heads": 2,
            "model.text.vocabulary": "corpus",
            "data.source": "parrot",
            "data.path": "FOLDER",
            "train.samples": 32,
            "train.batch_size": 8,
            "train.warmup_samples": 0,
        },
    ),
    points=product({"data.parrot.times": [1, 3]}),
    seeds=[0],
    show=Show(x="data.parrot.times", metrics=["test/mean_recall"]),
)
'''


@pytest.fixture
def noise() -> type[Source]:
    """A source with two options, known while a test runs."""

    @SOURCES.register("noise")
    class Noise(Source):
        unused = frozenset({"weights"})
        words: Int = 3
        seed: Int = 0

        def open(self, data: Data, cache: Path) -> DataSet:
            raise ConfigError(f"{self.words} words from {data.path}")

    return Noise


def key(**values: object) -> str:
    return override(SMALL, {path.replace("__", "."): v for path, v in values.items()}).run_key


@pytest.mark.usefixtures("noise")
def test_options_are_fields_like_any_other() -> None:
    assert {"data.noise.words", "data.noise.seed"} <= set(field_paths(RunConfig))
    assert SMALL.data.section("noise").model_dump() == {"words": 3, "seed": 0}
    with pytest.raises(ConfigError, match=r"'data\.noise\.word'; nearest: data\.noise\.words"):
        key(data__noise__word=1)
    with pytest.raises(ConfigError, match=r"data\.noise\.words = 'x': an integer is wanted"):
        key(data__noise__words="x")


@pytest.mark.usefixtures("noise")
def test_the_key_tells_of_the_options_of_the_source_and_of_no_others() -> None:
    plain = key(data__source="noise")
    assert key(data__source="noise", data__noise__words=3) == plain
    assert key(data__source="noise", data__noise__words=4) != plain
    assert key(data__source="noise", data__weights=[1.0]) == plain
    assert key(data__noise__words=4) == SMALL.run_key


def test_what_runs_differ_in_has_the_options_of_sources_that_came_later(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SMALL.model_dump(mode="json")
    assert differences(plain, plain) == {}
    request.getfixturevalue("noise")
    plain, louder = (
        override(SMALL, {"data.source": "noise", "data.noise.words": words}).model_dump(mode="json")
        for words in (3, 4)
    )
    assert differences(plain, louder) == {"data.noise.words": 4}
    monkeypatch.delitem(SOURCES._parts, "noise")
    plain = SMALL.model_dump(mode="json")
    assert differences(plain, plain | {"seed": 1}) == {"seed": 1}


@pytest.mark.usefixtures("noise")
def test_a_source_is_opened_with_its_options() -> None:
    config = override(SMALL, {"data.source": "noise", "data.noise.words": 4, "data.path": "here"})
    with pytest.raises(ConfigError, match=r"^4 words from here$"):
        open_data(config.data, sweep.Runtime())


def test_a_record_is_read_with_its_key_where_its_source_is_not_known(
    noise: type[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(SMALL, {"data.source": "noise", "data.noise.words": 4})
    tree = config.model_dump(mode="json")
    monkeypatch.delitem(SOURCES._parts, "noise")
    again = validate(RunConfig, tree)
    assert again.run_key == config.run_key
    assert again.model_dump(mode="json") == tree
    with pytest.raises(ConfigError, match="unknown data source 'noise'"):
        open_data(again.data, sweep.Runtime())
    # Of another source it plays no part, as what a sweep file registered for other runs.
    other = override(config, {"data.source": "folder"})
    assert "noise" not in other.model_dump()["data"]


def test_a_name_that_is_no_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown field 'data\.colour'"):
        validate(RunConfig, {"data": {"colour": 1}})
    with pytest.raises(ConfigError, match=r"unknown field 'data\.folder'"):
        validate(RunConfig, {"data": {"folder": {"depth": 1}}})


@pytest.mark.slow
def test_a_sweep_file_brings_a_source_with_an_option_to_its_workers(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "parrots.py"
    file.write_text(SWEEP.replace("FOLDER", str(shapes_folder)))
    monkeypatch.setattr(sweep, "report", lambda *_: 0)
    words = [str(file), "--root", str(tmp_path), "--slots", "1", "runtime.workers=1"]
    assert sweep.main(words) == 0
    found = [RunDir(place) for place in Store(tmp_path).runs.iterdir()]
    assert {run.read_config().data.section("parrot").times for run in found} == {1, 3}
    assert len({run.finished()["checkpoint"]["sha256"] for run in found}) == 2
