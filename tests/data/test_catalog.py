"""Opening data sets by name, and what a fingerprint stands for."""

import subprocess
import sys

import pytest

from harness.config import ClassFolder, Data, Runtime
from harness.data import catalog
from harness.data.catalog import SOURCES, open_class_folder, open_data
from harness.data.dataset import Split, Task, content_fingerprint
from harness.data.split_names import split_name
from harness.errors import ConfigError, DataError


@pytest.fixture
def runtime(tmp_path):
    return Runtime(cache=str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    (place / "a.png").write_bytes(b"x")
    (place / "t.csv").write_text("image,caption,split\na.png,one,train\n")
    return place


def test_a_folder_is_opened_once_a_process(folder, runtime):
    data = Data(source="folder", path=str(folder))
    first = open_data(data, runtime)
    assert first.split("train").captions == [("one",)]
    assert open_data(data, runtime) is first
    assert open_data(data.model_copy(update={"fingerprint": first.fingerprint}), runtime) is first


def test_an_unknown_source_names_the_nearest(runtime):
    with pytest.raises(ConfigError, match=r"'foldr'; nearest: folder; allowed: .*openmoji"):
        open_data(Data(source="foldr"), runtime)


@pytest.mark.parametrize("source", ["folder", "shards"])
def test_a_source_without_its_path(source, runtime):
    with pytest.raises(ConfigError, match=rf"^source {source} needs data\.path=\.\.\.$"):
        open_data(Data(source=source), runtime)


def test_another_content_than_the_configuration_was_made_for(folder, runtime):
    with pytest.raises(DataError, match=r"has fingerprint .* made for aaaaaaaaaaaa: its content"):
        open_data(Data(source="folder", path=str(folder), fingerprint="a" * 64), runtime)


def test_another_class_folder_than_the_configuration_was_made_for(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    found = open_class_folder(ClassFolder(name="pets", path=str(tmp_path)))
    kept = ClassFolder(name="pets", path=str(tmp_path), fingerprint=found.fingerprint)
    assert open_class_folder(kept) is found
    with pytest.raises(DataError, match="data set pets has fingerprint"):
        open_class_folder(kept.model_copy(update={"fingerprint": "a" * 64}))


def test_a_sweep_file_may_add_a_source(folder, runtime):
    @SOURCES.register("mine")
    def mine(data, cache):
        assert cache == catalog.cache_dir(runtime)
        return open_data(Data(source="folder", path=data.path), runtime)

    found = open_data(Data(source="mine", path=str(folder)), runtime)
    assert found.split("train").images == ["a.png"]


def test_an_absent_split_names_those_there_are(folder, runtime):
    data = open_data(Data(source="folder", path=str(folder)), runtime)
    with pytest.raises(DataError, match="data set set: unknown split 'test'; allowed: train"):
        data.split("test")


@pytest.mark.parametrize(
    ("given", "name"),
    [("dev", "validation"), (" Valid", "validation"), ("TRAINING", "train"), ("extra", "extra")],
)
def test_split_names(given, name):
    assert split_name(given) == name


SPLITS = {"train": Split(["a", "b"], [("one",), ("two", "three")])}
TASK = Task("kind", ("x", "y"), ("a {c}",), {"train": [0, 1]})


@pytest.mark.parametrize(
    "other",
    [
        ({"test": SPLITS["train"]}, [TASK], ["1", "2"]),
        ({"train": Split(["a", "c"], SPLITS["train"].captions)}, [TASK], ["1", "2"]),
        ({"train": Split(["a", "b"], [("one", "two"), ("three",)])}, [TASK], ["1", "2"]),
        (SPLITS, [Task("kind", ("x", "y"), ("a {c}",), {"train": [1, 0]})], ["1", "2"]),
        (SPLITS, [Task("kind", ("x", "z"), ("a {c}",), {"train": [0, 1]})], ["1", "2"]),
        (SPLITS, [], ["1", "2"]),
        (SPLITS, [TASK], ["2", "1"]),
        (SPLITS, [TASK], ["12"]),
    ],
)
def test_fingerprint_tells_contents_apart(other):
    assert content_fingerprint(*other) != content_fingerprint(SPLITS, [TASK], ["1", "2"])


def test_fingerprint_of_a_pinned_value():
    # A change of this value would turn every configuration into another run.
    assert content_fingerprint(SPLITS, [TASK], ["1", "2"]).startswith("941cb5bf46d1a5b4")


def test_indexing_imports_no_heavy_library():
    heavy = ("torch", "pandas", "scipy", "seaborn", "PIL", "optuna", "submitit")
    program = (
        "import sys; from harness.data.catalog import SOURCES; assert 'stream' in SOURCES;"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
