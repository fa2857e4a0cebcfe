"""Small benchmarks in every layout, of pictures of one colour."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from harness.config import ImageTower, Model, TextTower
from harness.evaluate.model import Identity
from harness.evaluate.suites.records import ACC1, RECALL_AT_1, Benchmark, Prompts

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
CLASSES = Benchmark(
    name="patches",
    title="Patches",
    task="classification",
    samples=6,
    classes=3,
    metrics=ACC1,
    prompts=Prompts("stl10"),
    hub="patches",
    source="made here",
)
CAPTIONS = Benchmark(
    name="told",
    title="Told",
    task="retrieval",
    samples=3,
    captions=4,
    metrics=RECALL_AT_1,
    hub="told",
    source="made here",
)
IDENTITY = Identity("c" * 64, "t" * 64, {"heads": 1}, "k" * 64, {"size": 4})


def png(colour: tuple[int, int, int], shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), tuple(max(0, c - shade) for c in colour)).save(file, "PNG")
    return file.getvalue()


def class_folder(folder: Path, names: Mapping[str, str] | None = None) -> Path:
    """Two pictures a class; `names` gives folders other names than the colours'."""
    for colour, value in COLOURS.items():
        inner = folder / (colour if names is None else names[colour])
        inner.mkdir(parents=True)
        for i in range(2):
            (inner / f"{i}.png").write_bytes(png(value, 10 * i))
    return folder


def caption_folder(folder: Path) -> Path:
    """Three pictures with four captions; the fourth picture is for training."""
    folder.mkdir(parents=True)
    rows = ["image,split,caption", "x.png,train,a red one"]
    captions = {"red": ["red", "a red one"], "green": ["green"], "blue": ["blue"]}
    (folder / "x.png").write_bytes(png((9, 9, 9)))
    for colour, texts in captions.items():
        (folder / f"{colour}.png").write_bytes(png(COLOURS[colour]))
        rows += [f"{colour}.png,test,{text}" for text in texts]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def shard(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def webdataset(folder: Path, *, shards: int = 2) -> Path:
    """The class set in CLIP_benchmark's layout."""
    samples = [(c, i, label) for label, c in enumerate(COLOURS) for i in range(2)]
    for number in range(shards):
        members: dict[str, bytes] = {}
        for place, (colour, i, label) in enumerate(samples[number::shards]):
            members[f"s{place:04d}.png"] = png(COLOURS[colour], 10 * i)
            members[f"s{place:04d}.cls"] = str(label).encode()
        shard(folder / "test" / f"{number}.tar", members)
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    (folder / "classnames.txt").write_text("\n".join(COLOURS) + "\n")
    return folder


def retrieval_webdataset(folder: Path) -> Path:
    members: dict[str, bytes] = {}
    texts = {"red": "red\na red\u2028one", "green": "green", "blue": "blue\n"}
    for place, (colour, text) in enumerate(texts.items()):
        members[f"{place}.jpg"] = png(COLOURS[colour])
        members[f"{place}.txt"] = text.encode()
    shard(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1")
    return folder


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def write_small_clip(folder: Path) -> Path:
    """An export for open_clip of towers that cost nothing, with random weights; its folder."""
    from harness.models.export import write_open_clip
    from harness.models.two_tower import TwoTower

    config = Model(
        image=ImageTower(backbone="test_resnet", size=32),
        text=TextTower(layers=1, width=16, heads=2, context_length=16),
        embed_dim=8,
    )
    folder.mkdir()
    write_open_clip(TwoTower(config, None, seed=0).eval(), folder)
    return folder


class Given(nn.Module):
    """A model of the interface CLIP_benchmark wants, that returns embeddings it is given."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        super().__init__()
        self.image, self.text = image, text

    def encode_image(self, places: Tensor) -> Tensor:
        return self.image[places.flatten()]

    def encode_text(self, places: Tensor) -> Tensor:
        return self.text[places.flatten()]
