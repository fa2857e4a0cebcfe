"""Small real data for the tests, coloured shapes as PNG files and in memory; and what every test
leaves as it was: the registries, and the settings of whoever runs them."""

import io
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import RunConfig, Runtime, override, sweep_files
from harness.data.catalog import open_data
from harness.data.dataset import DataSet, Split, Task
from harness.registry import Registry

COLOURS = {"red": (220, 40, 30), "green": (40, 180, 60), "blue": (40, 70, 220), "black": (0, 0, 0)}
SHAPES = ("square", "bar", "frame")

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of settings for the tests and the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Whatever a test or the sweep file it loads registers is forgotten after it."""
    before = {registry: dict(registry._parts) for registry in found_registries()}
    yield
    for registry in found_registries():
        shipped = {name: part for name, part in registry._parts.items() if is_shipped(part)}
        registry._parts = {**shipped, **before.get(registry, {})}


def found_registries() -> set[Registry]:
    """Of every module of the harness that is imported."""
    if len(sys.modules) != _looked_at[0]:
        for name in [name for name in sys.modules if name.startswith("harness.")]:
            values = [getattr(v, "_registry", v) for v in vars(sys.modules[name]).values()]
            _found.update(value for value in values if isinstance(value, Registry))
        _looked_at[0] = len(sys.modules)
    return _found


_found: set[Registry] = set()
_looked_at = [0]


def is_shipped(part: object) -> bool:
    """Whether a part is of a module of the package, which registers it but once in a process."""
    part = getattr(part, "draw", part)
    module = str(getattr(part, "__module__", None) or type(part).__module__)
    return module.startswith("harness.") and not module.startswith(sweep_files.__name__)


def draw(colour: str, shape: str, shift: int, size: int = 32) -> bytes:
    """A PNG of a coloured shape on white."""
    picture = np.full((size, size, 3), 255, dtype=np.uint8)
    top = 4 + shift % 8
    if shape == "square":
        picture[top : top + 14, 6:20] = COLOURS[colour]
    elif shape == "bar":
        picture[top : top + 6, 2:30] = COLOURS[colour]
    else:
        picture[top : top + 18, 4:26] = COLOURS[colour]
        picture[top + 4 : top + 14, 8:22] = 255
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def drawings(count: int) -> dict[str, tuple[bytes, str, str]]:
    """Name -> (PNG, colour, shape) of `count` drawings."""
    out = {}
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        shape = SHAPES[(i // len(COLOURS)) % len(SHAPES)]
        out[f"{i:03d}.png"] = (draw(colour, shape, i), colour, shape)
    return out


class MemoryData(DataSet):
    """A data set whose pictures are in memory."""

    files: dict[str, bytes]

    def read(self, image: str) -> bytes:
        return self.files[image]


def memory_data(train: int = 24, test: int = 12) -> MemoryData:
    """Coloured shapes with a caption each, a split `train` and a split `test`."""
    made = drawings(train + test)
    names = list(made)
    groups = {"train": names[:train], "test": names[train:]}
    splits = {
        split: Split(group, [(f"a {made[n][1]} {made[n][2]}",) for n in group])
        for split, group in groups.items()
    }
    labels = {
        split: [list(COLOURS).index(made[n][1]) for n in group] for split, group in groups.items()
    }
    data = MemoryData(
        name="shapes",
        fingerprint="f" * 64,
        evaluation_fingerprint="e" * 64,
        splits=splits,
        tasks=(Task("colour", tuple(COLOURS), ("a {c} shape",), labels),),
        indexed=len(names),
    )
    object.__setattr__(data, "files", {name: made[name][0] for name in names})
    return data


#: The smallest towers, by dotted fields.
TINY_TOWERS = {
    "model.image.size": 32,
    "model.text.layers": 1,
    "model.text.width": 16,
    "model.text.heads": 2,
    "model.text.context_length": 16,
    "model.text.vocabulary": "corpus",
    "model.embed_dim": 8,
}


def tiny_run(folder, **changes) -> RunConfig:
    """A run of the smallest towers on the pairs in `folder`; `changes` are dotted fields."""
    data = {"data.source": "folder", "data.path": str(folder), "train.batch_size": 8}
    return override(RunConfig(), {**TINY_TOWERS, **data, **changes})


def with_fingerprints(config: RunConfig, runtime: Runtime) -> RunConfig:
    """`config` made for the data as it is now, as a sweep makes it."""
    data = open_data(config.data, runtime)
    return override(
        config,
        {
            "data.fingerprint": data.fingerprint,
            "evaluate.fingerprint": data.evaluation_fingerprint,
        },
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without them, in a third of its time: they have tests of their own."""
    from harness.figures.base import Figures

    monkeypatch.setattr(Figures, "draw", lambda self, material, names=None: [])


@pytest.fixture
def shapes() -> MemoryData:
    return memory_data()


@pytest.fixture
def shapes_folder(tmp_path):
    """See `write_shapes`."""
    return write_shapes(tmp_path / "shapes")


def write_shapes(folder, validation=0):
    """A folder with captions.csv and pictures: 48 train, 24 test, of which some `validation`."""
    folder.mkdir()
    rows = ["image,split,caption"]
    for i, (name, (png, colour, shape)) in enumerate(drawings(72).items()):
        (folder / name).write_bytes(png)
        split = "train" if i < 48 else "validation" if i < 48 + validation else "test"
        rows.append(f"{name},{split},a {colour} {shape} number {i}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder
