"""An exported run, loaded by processes that cannot import the harness."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
from PIL import Image

from harness.commands.export import main
from harness.config import RunConfig, Runtime, override
from harness.data.catalog import open_class_folder, open_data
from harness.errors import how_to_install
from harness.files import read_json
from harness.finished import load_finished
from harness.report.card import card
from harness.run import execute
from harness.store.record import Store
from harness.store.state import State
from tests.conftest import COLOURS, TINY_TOWERS, drawings

RUNTIME = Runtime(log_samples=16)
#: Of the corpus, of other words, cut at the end of the context, and no word at all.
TEXTS = ["a red square", "It's the DOG's “naïve” café, no. 12!", "and so on " * 9, ""]
FILES = [
    "README.md", "example.py", "export.json", "image.onnx", "open_clip_config.json",
    "open_clip_model.safetensors", "text.onnx", "tokenizer.json",
]  # fmt: skip

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is out of reach here")

sys.meta_path.insert(0, Block())
"""

#: What plain open_clip makes of the folder, and clip-benchmark of open_clip's model.
PLAIN = """
import json
from pathlib import Path
import numpy, open_clip, torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from clip_benchmark.datasets.builder import image_captions_collate_fn
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

out, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
model.eval()
torch.set_num_threads(1)

class Pairs:
    def __len__(self):
        return len(task["pairs"])

    def __getitem__(self, place):
        file, captions = task["pairs"][place]
        return preprocess(Image.open(file)), captions

with torch.no_grad():
    pixels = torch.stack([preprocess(Image.open(file)) for file in task["pictures"]])
    image = model.encode_image(pixels, normalize=True)
    text = model.encode_text(tokenizer(task["texts"]), normalize=True)
classes = ImageFolder(task["classes"], transform=preprocess)
print(json.dumps({
    "type": type(model).__name__,
    "parameters": sum(p.numel() for p in model.parameters()),
    "logit_scale": model.logit_scale.item(),
    "image": image.tolist(),
    "text": text.tolist(),
    "zeroshot": zeroshot_classification.evaluate(
        model, DataLoader(classes, 7), tokenizer, classes.classes, task["templates"], "cpu",
        amp=False,
    ),
    "retrieval": zeroshot_retrieval.evaluate(
        model, DataLoader(Pairs(), 5, collate_fn=image_captions_collate_fn), tokenizer, "cpu",
        amp=False, recall_k_list=[1, 5, 10],
    ),
}))
"""

#: The shipped example as a module.
EXAMPLE = """
import json, runpy
from pathlib import Path
from PIL import Image

task = json.loads(Path(sys.argv[2]).read_text())
example = runpy.run_path(f"{sys.argv[1]}/example.py")
print(json.dumps({
    "image": example["embed_images"]([Image.open(file) for file in task["pictures"]]).tolist(),
    "text": example["embed_texts"](task["texts"]).tolist(),
    "logit_scale": example["LOGIT_SCALE"],
}))
"""


def child(code: str, blocked: tuple[str, ...], *arguments: Path) -> dict:
    """The last line printed by `code`, run where no module of `blocked` can be imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"BLOCKED = {blocked!r}\n{BLOCK}{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"OMP_NUM_THREADS": "1", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def configuration(folder: Path) -> RunConfig:
    """Every objective on, so that the run trains weights that no inference needs."""
    return override(
        RunConfig(),
        {
            "model.image.backbone": "test_resnet",
            **TINY_TOWERS,
            "model.image.size": 64,
            "model.text.layers": 2,
            "objective.token.weight": 1.0,
            "objective.token.dim": 8,
            "objective.mlm.weight": 1.0,
            "data.source": "folder",
            "data.path": str(folder / "captioned"),
            "train.batch_size": 8,
            "train.samples": 240,
            "evaluate.class_folders": [
                {
                    "name": "colours",
                    "path": str(folder / "classes"),
                    "templates": ["a {c} square", "a picture in {c}"],
                }
            ],
        },
    )


def write_pictures(folder: Path) -> None:
    """`captioned`: 48 pictures to train on, 24 to test on, two captions each; `classes`: 24."""
    (folder / "captioned").mkdir(parents=True)
    rows = ["image,split,caption"]
    for place, (name, (png, colour, shape)) in enumerate(drawings(72).items()):
        (folder / "captioned" / name).write_bytes(png)
        split = "train" if place < 48 else "test"
        rows.append(f"{name},{split},a {colour} {shape} number {place}!")
        rows.append(f"{name},{split},{place} is {colour}")
        if split == "test":
            (folder / "classes" / colour).mkdir(parents=True, exist_ok=True)
            (folder / "classes" / colour / name).write_bytes(png)
    (folder / "captioned" / "captions.csv").write_text("\n".join(rows) + "\n")


class Exported:
    """A finished run, its export, and what was asked of the export."""

    def __init__(self, folder: Path) -> None:
        write_pictures(folder)
        self.root, self.out = folder, folder / "out"
        self.config = with_fingerprints(configuration(folder))
        execute(self.config, self.root, RUNTIME, label="x")
        self.run = Store(self.root).run_dir(self.config.run_key)
        arguments = [self.run.key[:5], "--root", str(self.root), "--out", str(self.out), "--onnx"]
        assert main(arguments) == 0
        oblong = folder / "oblong.png"
        noise = np.random.default_rng(0).integers(0, 256, (83, 131, 3), dtype=np.uint8)
        Image.fromarray(noise).save(oblong)
        captioned = folder / "captioned"
        self.pictures = [oblong, *(captioned / f"{n:03d}.png" for n in range(4))]
        test = open_data(self.config.data, RUNTIME).split("test")
        self.task = folder / "task.json"
        self.task.write_text(
            json.dumps(
                {
                    "pictures": list(map(str, self.pictures)),
                    "texts": TEXTS,
                    "pairs": [
                        [str(captioned / image), captions]
                        for image, captions in zip(test.images, test.captions, strict=True)
                    ],
                    "classes": str(folder / "classes"),
                    "templates": ["a {c} square", "a picture in {c}"],
                }
            )
        )

    def ours(self) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the pictures and the texts by the model as it was trained."""
        model = load_finished(self.run).model
        views = []
        for file in self.pictures:
            with Image.open(file) as picture:
                views.append(model.preprocess(np.asarray(picture.convert("RGB"))))
        with torch.no_grad():
            image = model.encode_image(torch.stack(views))
            return image.numpy(), model.encode_text(model.tokenizer(TEXTS)).numpy()

    def metrics(self) -> dict[str, dict]:
        (entry,) = self.run.result()["evaluations"].values()
        return entry["metrics"]


def with_fingerprints(config: RunConfig) -> RunConfig:
    data = open_data(config.data, RUNTIME)
    (folder,) = config.evaluate.class_folders
    fingerprint = open_class_folder(folder).fingerprint
    folders = [folder.model_copy(update={"fingerprint": fingerprint}).model_dump()]
    return override(
        config,
        {
            "data.fingerprint": data.fingerprint,
            "evaluate.fingerprint": data.evaluation_fingerprint,
            "evaluate.class_folders": folders,
        },
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def plain(exported):
    """What a process without the harness gets from the export, through open_clip alone."""
    return child(PLAIN, ("harness",), exported.out, exported.task)


# --------------------------------------------------------------------------- open_clip


def test_plain_open_clip_computes_the_same_embeddings(exported, plain):
    image, text = exported.ours()
    assert plain["type"] == "CustomTextCLIP"
    np.testing.assert_allclose(plain["image"], image, atol=1e-5, rtol=0)
    np.testing.assert_allclose(plain["text"], text, atol=1e-5, rtol=0)


def test_the_parameters_are_those_of_a_plain_clip_with_these_towers(exported, plain):
    backbone = timm.create_model("test_resnet", num_classes=0)
    image = sum(p.numel() for p in backbone.parameters()) + 96 * 8
    block = 12 * 16 * 16 + 13 * 16
    text = 49_408 * 16 + 16 * 16 + 2 * block + 2 * 16 + 16 * 8
    assert plain["parameters"] == image + text + 1
    cost = exported.run.result()["cost"]["parameters"]
    assert cost["total"] > cost["inference"]  # there were weights to leave out


def test_nothing_but_the_towers_and_the_temperature_is_inside(exported):
    weights = safetensors.numpy.load_file(exported.out / "open_clip_model.safetensors")
    assert {name.partition(".")[0] for name in weights} == {"visual", "text", "logit_scale"}
    parts = {".".join(name.split(".")[:2]) for name in weights if name != "logit_scale"}
    assert parts == {
        "visual.trunk", "visual.head",
        "text.token_embedding", "text.positional_embedding", "text.transformer", "text.ln_final",
        "text.text_projection",
    }  # fmt: skip


def test_clip_benchmarks_zero_shot_numbers_on_the_export_are_the_records(exported, plain):
    metrics = exported.metrics()
    for name in ("acc1", "mean_per_class_recall"):
        assert plain["zeroshot"][name] == pytest.approx(metrics[f"colours/{name}"]["value"])
    assert metrics["colours/acc5"]["value"] is None  # of four classes


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("direction", ["image_retrieval_recall", "text_retrieval_recall"])
def test_clip_benchmarks_retrieval_numbers_on_the_export_are_the_records(
    exported, plain, direction, k
):
    ours = exported.metrics()[f"test/{direction}@{k}"]["value"]
    assert plain["retrieval"][f"{direction}@{k}"] == pytest.approx(ours, abs=1e-6)


# --------------------------------------------------------------------------- ONNX


def test_the_example_needs_no_torch_and_computes_the_same_embeddings(exported):
    found = child(EXAMPLE, ("harness", "torch", "open_clip"), exported.out, exported.task)
    image, text = exported.ours()
    np.testing.assert_allclose(found["image"], image, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found["text"], text, atol=1e-4, rtol=0)
    model = load_finished(exported.run).model
    assert found["logit_scale"] == pytest.approx(model.logit_scale.exp().item())


def test_the_example_is_a_command(exported):
    file = exported.root / "captioned" / "000.png"
    done = subprocess.run(
        [sys.executable, "-I", exported.out / "example.py", file, *COLOURS],
        capture_output=True,
        text=True,
        check=True,
    )
    shares, texts = zip(*(line.split("%") for line in done.stdout.splitlines()), strict=True)
    assert [text.strip() for text in texts] == list(COLOURS)
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)


def test_a_tower_that_open_clip_cannot_build_goes_out_as_onnx_alone(exported, tmp_path, capsys):
    dilated = override(exported.config, {"model.image.output_stride": 16, "train.samples": 16})
    execute(dilated, tmp_path, RUNTIME, label="x")
    arguments = [dilated.run_key, "--root", tmp_path, "--out", tmp_path / "out"]
    why = "plain open_clip cannot load the image tower 'test_resnet': it has no setting for"
    line = refused(capsys, *arguments)
    assert line == f"error: {why} output_stride = 16; --onnx exports it"
    assert not list(tmp_path.glob("*out*"))
    assert main([*map(str, arguments), "--onnx"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"note: {why}")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        name for name in FILES if "open_clip" not in name
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: onnx" in card
    assert "local-dir" not in card
    assert "output\\_stride = 16; hence the ONNX files alone." in card


# --------------------------------------------------------------------------- card and folder


def test_the_card_says_recipe_data_metrics_protocol_and_provenance(exported):
    card = (exported.out / "README.md").read_text()
    result = exported.run.result()
    (attempt,) = read_json(exported.run.path / "provenance.json")["attempts"]
    accuracy = exported.metrics()["colours/acc1"]["value"]
    for words in (
        "library_name: open_clip",
        'create_model_and_transforms("local-dir:DIR")',
        "instance with weight 1, token with weight 1, mlm with weight 1",
        "240 of 240 samples in 30 steps of 8, seed 0",
        f"fingerprint `{exported.config.data.fingerprint[:12]}`",
        f"| colours acc@1 | {accuracy * 100:.2f} | 25.00 | % | 24 | `colours/acc1` |",
        "colours: 4 classes, prompts `a {c} square`, `a picture in {c}`",
        "- split test: 24 images, 48 captions",
        "expected hit over uniformly random order of equal scores",
        result["checkpoint"]["sha256"],
        attempt["commit"] or "none",
        "torch=" + attempt["versions"]["torch"],
    ):
        assert words in card
    recipe = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert recipe == exported.config.identity()


def test_the_card_says_whose_blocks_the_text_tower_began_with(exported):
    parent = {"run": "0123456789ab", "checkpoint": "cd" * 32, "blocks": [0, 11]}
    result = {**exported.run.finished(), "parent": parent}
    text = card(exported.run.read_config(), result, [], in_open_clip=True, in_onnx=False, why="")
    line = (
        "- Text tower from blocks 0, 11, the embeddings, last norm and projection of run "
        "`0123456789ab`, weights `cdcdcdcdcdcd`"
    )
    assert line in text.splitlines()


def test_no_file_names_a_place_on_this_machine(exported):
    places = [str(exported.root).encode(), str(Path(sys.prefix)).encode(), b'.py", line']
    for file in exported.out.iterdir():
        content = file.read_bytes()
        assert not [place for place in places if place in content], file.name


def test_a_second_export_replaces_the_first_with_the_same_bytes(exported):
    before = {file.name: file.read_bytes() for file in exported.out.iterdir()}
    assert sorted(before) == FILES
    assert main([str(exported.run.path), "--out", str(exported.out), "--onnx"]) == 0
    assert {file.name: file.read_bytes() for file in exported.out.iterdir()} == before
    assert not list(exported.root.glob(".out.*"))


# --------------------------------------------------------------------------- refusals


def refused(capsys, *arguments: object) -> str:
    """The one line of a refusal."""
    capsys.readouterr()  # what making the run said before
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def unfinished(tmp_path):
    """A run directory that says it runs, under `tmp_path`."""
    run = Store(tmp_path).run_dir(RunConfig().run_key)
    run.write_intent(RunConfig(), {"label": "x"})
    run.write_status(State.RUNNING, attempt=1, samples_seen=5_000)
    return run


def test_an_unfinished_run_is_refused(unfinished, tmp_path, capsys):
    line = refused(capsys, unfinished.key, "--root", tmp_path, "--out", tmp_path / "out")
    assert line == (
        f"error: run {unfinished.key} is interrupted at 5,000 of 1,000,000 samples; "
        "a finished run is wanted"
    )
    assert not (tmp_path / "out").exists()


def test_a_diverged_run_is_refused_with_its_error(unfinished, tmp_path, capsys):
    unfinished.write_status(State.FAILED, failure="diverged", error="loss is nan at step 7")
    line = refused(capsys, unfinished.path, "--out", tmp_path / "out")
    assert f"run {unfinished.key} failed (diverged): loss is nan at step 7; a finished" in line


def test_weights_that_are_not_the_results_are_refused(exported, tmp_path, capsys):
    (weights,) = exported.run.checkpoints.glob("final-*")
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\0")
    try:
        line = refused(capsys, exported.run.path, "--out", tmp_path / "out")
    finally:
        weights.write_bytes(content)
    assert line.endswith("is not the checkpoint that its result names")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_run_names_the_nearest(unfinished, tmp_path, capsys):
    given = unfinished.key[:-1] + "x"
    line = refused(capsys, given, "--root", tmp_path, "--out", tmp_path / "out")
    assert f"unknown run {given!r}; nearest: {unfinished.key}" in line


def test_a_folder_with_other_things_is_refused(exported, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    line = refused(capsys, exported.run.path, "--out", tmp_path)
    assert "is not empty and holds no export" in line
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_export_of_another_run_is_refused(exported, tmp_path, capsys):
    manifest = {"schema": 1, "run": "0123456789ab", "checkpoint": "", "files": {}}
    (tmp_path / "export.json").write_text(json.dumps(manifest))
    line = refused(capsys, exported.run.path, "--out", tmp_path)
    assert f"holds the export of run 0123456789ab, not of {exported.run.key}" in line


def test_an_earlier_export_that_somebody_worked_on_is_refused(exported, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(exported.run.path), "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md", "export.json", "open_clip_config.json", "open_clip_model.safetensors",
    ]  # fmt: skip
    assert "before" not in capsys.readouterr().out
    assert main([str(exported.run.path), "--out", str(out)]) == 0
    assert "safetensors; the same bytes as before\n" in capsys.readouterr().out
    written = json.loads((out / "export.json").read_text())
    (out / "old.onnx").write_bytes(b"")
    written["files"] |= {"old.onnx": hashlib.sha256(b"").hexdigest()}
    (out / "export.json").write_text(json.dumps(written))
    assert main([str(exported.run.path), "--out", str(out)]) == 0
    assert "; an earlier export is replaced, without old.onnx\n" in capsys.readouterr().out
    (out / "README.md").write_text("a card of my own")
    (out / "notes.txt").write_text("mine")
    line = refused(capsys, exported.run.path, "--out", out)
    assert "README.md, notes.txt; move it away" in line
    assert (out / "README.md").read_text() == "a card of my own"


def test_out_that_is_a_file_and_a_missing_option_are_refused(exported, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "is no folder" in refused(capsys, exported.run.path, "--out", tmp_path / "file")
    assert "--out; --help shows" in refused(capsys, exported.run.path)


def test_onnx_without_its_packages_says_how_to_get_them(unfinished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.errors.find_spec", lambda name: name != "onnxscript" or None)
    line = refused(capsys, unfinished.path, "--out", tmp_path / "out", "--onnx")
    assert line == f"error: --onnx needs onnxscript; {how_to_install('export')} brings it"
