"""Choices among captions and pictures: credit by hand and by enumeration, layouts, the peer."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import image_caption_selection
from PIL import Image

from harness.config import Evaluate, Runtime, override
from harness.errors import DataError
from harness.evaluate import invariants
from harness.evaluate.benchmarks import place_of
from harness.evaluate.model import Identity
from harness.evaluate.parts import evaluate_part
from harness.evaluate.scoring.choice import chances, credits_of
from harness.evaluate.suites import BENCHMARKS
from harness.evaluate.suites.choices import ChoiceSet, open_choices
from harness.evaluate.suites.composition import SWAPS
from harness.evaluate.suites.find import Found, find
from harness.evaluate.suites.records import Benchmark, ChoiceItem
from harness.metrics.choice import credit

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
TWO = ChoiceItem(("a", "b"), ("x", "y"))


def by_enumeration(right: list[int], wrong: list[int]) -> float:
    """Share of the orders of equal scores in which every right one comes first."""
    scored = [(s, True) for s in right] + [(s, False) for s in wrong]
    orders = list(itertools.permutations(range(len(scored))))
    hits = 0
    for noise in orders:
        ranked = sorted(range(len(scored)), key=lambda i: (-scored[i][0], noise[i]))
        hits += all(scored[i][1] for i in ranked[: len(right)])
    return hits / len(orders)


@pytest.mark.parametrize("rights", [1, 2, 3])
@pytest.mark.parametrize("wrongs", [1, 2])
def test_credit_is_the_expectation_over_the_order_of_ties(rights: int, wrongs: int) -> None:
    for scores in itertools.product((0, 1, 2), repeat=rights + wrongs):
        right, wrong = list(scores[:rights]), list(scores[rights:])
        assert credit(right, wrong) == pytest.approx(by_enumeration(right, wrong)), scores


def test_two_pictures_by_hand() -> None:
    def of(*rows: tuple[float, float]) -> dict[str, float]:
        return credits_of(TWO, np.array(rows, np.float32), np.zeros((1, 2), np.float32))

    right = of((0.9, 0.1), (0.2, 0.8))
    assert (right["text_score"], right["image_score"], right["group_score"]) == (1, 1, 1)
    # Every picture finds its caption; caption 0 prefers picture 1.
    texts = of((0.3, 0.1), (0.4, 0.8))
    assert (texts["text_score"], texts["image_score"], texts["group_score"]) == (1, 0, 0)
    equal = of((0.5, 0.5), (0.5, 0.5))
    assert (equal["text_score"], equal["image_score"]) == (0.25, 0.25)
    assert equal["group_score"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(3))
def test_random_scores_have_chance_and_never_more_as_a_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blind = np.zeros((1, 2), np.float32)
    made = [credits_of(TWO, rng.normal(size=(2, 2)).astype(np.float32), blind) for _ in range(4000)]
    for kind in ("text_score", "image_score", "group_score"):
        mean = np.mean([each[kind] for each in made])
        assert mean == pytest.approx(chances(TWO)[kind], abs=0.03), kind
    assert all(e["group_score"] <= min(e["text_score"], e["image_score"]) for e in made)


@pytest.mark.parametrize(("right", "captions", "level"), [(1, 2, 1 / 2), (2, 3, 1 / 3)])
def test_chance_of_one_picture(right: int, captions: int, level: float) -> None:
    item = ChoiceItem(("a",), tuple("xyz"[:captions]), right)
    assert chances(item)["text_score"] == pytest.approx(level)


# --------------------------------------------------------------------------- against the peer


class Fixed(torch.nn.Module):
    """Embeddings looked up by number, as CLIP_benchmark asks for them."""

    def __init__(self, image: torch.Tensor, text: torch.Tensor) -> None:
        super().__init__()
        self.image, self.text = image, text

    def encode_image(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.image[numbers[:, 0, 0, 0].long()]

    def encode_text(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.text[numbers[:, 0]]


def theirs(image: torch.Tensor, text: torch.Tensor, pictures: int, captions: int) -> dict[str, Any]:
    items = len(image) // pictures
    batch = [
        (
            torch.arange(i * pictures, (i + 1) * pictures).view(1, pictures, 1, 1, 1).float(),
            [[str(n) for n in range(i * captions, (i + 1) * captions)]],
        )
        for i in range(items)
    ]

    def tokens(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[int(text)] for text in texts])

    found: dict[str, Any] = image_caption_selection.evaluate(
        Fixed(image, text), batch, tokens, "cpu", amp=False
    )
    return found


def ours(image: torch.Tensor, text: torch.Tensor, item: ChoiceItem) -> dict[str, float]:
    pictures, captions = len(item.images), len(item.captions)
    blind = np.zeros((1, captions), np.float32)
    rows = [
        credits_of(item, (i @ t.T).numpy(), blind)
        for i, t in zip(image.split(pictures), text.split(captions), strict=True)
    ]
    return {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]}


def unit(*shape: int) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(made, dim=-1)


def test_without_ties_the_scores_are_clip_benchmarks() -> None:
    image, text = unit(60, 4), unit(60, 4).flip(0)
    mine, peer = ours(image, text, TWO), theirs(image, text, 2, 2)
    assert mine["text_score"] == pytest.approx(peer["text_acc"])
    assert mine["image_score"] == pytest.approx(peer["image_acc"])
    assert mine["group_score"] == pytest.approx(peer["acc"])


def test_a_collapsed_model_has_chance_where_clip_benchmark_gives_it_everything() -> None:
    image, text = torch.ones(20, 4) / 2, torch.ones(40, 4) / 2
    assert theirs(image, text, 1, 2)["text_acc"] == 1.0
    assert ours(image, text, ChoiceItem(("a",), ("x", "y")))["text_score"] == 0.5


# --------------------------------------------------------------------------- layouts


def picture(colour: tuple[int, int, int], beside: tuple[int, int, int] | None = None) -> bytes:
    out = io.BytesIO()
    made = Image.new("RGB", (8, 4), colour)
    if beside is not None:
        made.paste(beside, (4, 0, 8, 4))
    made.save(out, "PNG")
    return out.getvalue()


ROWS: dict[str, tuple[str, Any, float]] = {
    "sugar_crepe-swap_obj": (
        "sugar_crepe/swap_obj.json",
        {
            "0": {"filename": "r.png", "caption": "red", "negative_caption": "green"},
            "3": {"filename": "g.png", "caption": "red", "negative_caption": "green"},
        },
        0.5,
    ),
    "sugar_crepe_pp-swap_att": (
        "sugar_crepe_pp/data/swap_att.json",
        [
            {"filename": "r.png", "caption": "red", "caption2": "Red.", "negative_caption": "blue"},
            {
                "filename": "g.png",
                "caption": "green",
                "caption2": "red",
                "negative_caption": "blue",
            },
        ],
        0.75,  # the second: "red" and "blue" are equally far from green
    ),
    "winoground": (
        "winoground/examples.jsonl",
        [{"id": 0, "image_0": "r", "image_1": "g", "caption_0": "red", "caption_1": "green"}],
        1.0,
    ),
    "aro-relation": (
        "aro/visual_genome_relation.json",
        [
            {
                "image_path": "both.png",
                "bbox_x": 4,
                "bbox_y": 0,
                "bbox_w": 4,
                "bbox_h": 4,
                "true_caption": "blue",
                "false_caption": "red",
            }
        ],
        1.0,
    ),
    "aro-coco_order": (
        "aro/coco_order.json",
        [
            {"image": "val2014/r.png", "caption_options": ["red", "green", "blue", "green blue"]},
            {"image": "val2014/r.png", "caption_options": ["red", "red", "Red.", "blue"]},
        ],
        2 / 3,  # a shuffle that left the words where they were is as good as the caption
    ),
}


def laid_out(root: Path, name: str, rows: Any) -> Benchmark:
    place = root / ROWS[name][0]
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = place.suffix == ".jsonl" and isinstance(rows, list)
    place.write_text("".join(f"{json.dumps(r)}\n" for r in rows) if lines else json.dumps(rows))
    home = root / name.partition("-")[0]
    (home / "images").mkdir(exist_ok=True)
    for file, data in (
        ("r", picture(RED)),
        ("g", picture(GREEN)),
        ("both", picture(RED, BLUE)),
    ):
        (home / "images" / f"{file}.png").write_bytes(data)
    return override_samples(BENCHMARKS[name])


def override_samples(benchmark: Benchmark) -> Benchmark:
    from dataclasses import replace

    return replace(benchmark, samples=0)


def part_of(model: Any, found: Found, tmp_path: Path) -> Any:
    identity = Identity("0" * 64, "1" * 64, {}, "2", {})
    runtime = Runtime(cache=str(tmp_path / "cache"))
    place = place_of(found, runtime)
    return evaluate_part(model, identity, place, Evaluate(), runtime, tmp_path / "store")


@pytest.mark.parametrize("name", ROWS)
def test_every_layout_is_read_and_scored(
    model: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows, expected = ROWS[name]
    found = find(laid_out(tmp_path, name, rows), str(tmp_path))
    assert isinstance(found, Found), found
    part = part_of(model, found, tmp_path)
    metric = part.metrics[f"{name}/{found.benchmark.metrics[0]}"]
    assert metric["value"] == pytest.approx(expected)
    assert metric["n"] == len(rows)
    invariants.check_part(name, part.metrics, part.protocol)
    arrays = part.arrays()
    assert len(arrays[f"{name}/{found.benchmark.metrics[0]}"]) == len(rows)


def test_the_blind_row_is_what_captions_give_away(model: Any, tmp_path: Path) -> None:
    rows = {str(i): dict(row) for i, row in enumerate(ROWS["sugar_crepe-swap_obj"][1].values())}
    found = find(laid_out(tmp_path, "sugar_crepe-swap_obj", rows), str(tmp_path))
    assert isinstance(found, Found)
    metrics = part_of(model, found, tmp_path).metrics
    # The mean of a red and a green picture is as near to either word.
    assert metrics["sugar_crepe-swap_obj/blind_text_score"]["value"] == 0.5
    assert metrics["sugar_crepe-swap_obj/image_score"]["reason"].startswith("an item has one")


def test_pictures_may_lie_in_a_zip(tmp_path: Path) -> None:
    benchmark = laid_out(tmp_path, "winoground", ROWS["winoground"][1])
    home = tmp_path / "winoground"
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for file in (home / "images").iterdir():
            archive.writestr(f"images/{file.name}", file.read_bytes())
            file.unlink()
    found = find(benchmark, str(tmp_path))
    assert isinstance(found, Found)
    data = open_choices(found, tmp_path)
    assert data.read(data.items[0].images[0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"0": 3}, "item 0: an object is wanted"),
        (3, "a list of items is wanted, 3 is there"),
        ({"0": {"image": "r.png", "caption_options": ["a"]}}, "more than 1 are wanted"),
        ({"7": {"text": "x"}}, "item 7 has the fields text; those of SugarCrepe"),
        ({"0": {"filename": "no.png", "caption": "a", "negative_caption": "b"}}, "is not there"),
        ({"0": {"filename": "r.png", "caption": "", "negative_caption": "b"}}, "item 0"),
        ({"0": {"filename": "r.png", "caption": None, "negative_caption": "b"}}, "item 0"),
        (
            {"0": {"filename": "../../r.png\n", "caption": "a", "negative_caption": "b"}},
            "not there",
        ),
        (
            {
                "0": {
                    "image_path": "r.png",
                    "true_caption": "a",
                    "false_caption": "b",
                    "bbox_x": "q",
                }
            },
            "no whole numbers",
        ),
    ],
)
def test_bad_rows_are_one_line(tmp_path: Path, rows: Any, words: str) -> None:
    found = find(laid_out(tmp_path, "sugar_crepe-swap_obj", rows), str(tmp_path))
    assert isinstance(found, Found)
    with pytest.raises(DataError, match=words) as told:
        open_choices(found, tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_a_listing_that_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    found = find(laid_out(tmp_path, "sugar_crepe-swap_obj", {}), str(tmp_path))
    assert isinstance(found, Found)
    (tmp_path / "sugar_crepe" / "swap_obj.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        open_choices(found, tmp_path)


def test_another_number_of_items_is_refused(tmp_path: Path) -> None:
    laid_out(tmp_path, "winoground", ROWS["winoground"][1])
    found = find(BENCHMARKS["winoground"], str(tmp_path))
    assert isinstance(found, Found)
    with pytest.raises(DataError, match="holds 1 items, and Winoground has 400"):
        open_choices(found, tmp_path)


def test_what_is_absent_says_what_brings_it(tmp_path: Path) -> None:
    hole = find(BENCHMARKS["sugar_crepe-add_att"], str(tmp_path))
    assert "curl -L https://raw.githubusercontent.com" in str(hole)
    assert str(tmp_path) in str(hole)


# --------------------------------------------------------------------------- built in


@pytest.fixture(scope="module")
def swaps() -> dict[str, ChoiceSet]:
    found = {each.name: find(each, None) for each in SWAPS}
    return {name: open_choices(at, Path("cache")) for name, at in found.items()}  # type: ignore[arg-type]


def test_swapped_names_differ_in_one_part_and_are_of_held_out_drawings(
    swaps: dict[str, ChoiceSet],
) -> None:
    for name, data in swaps.items():
        assert all(right != wrong for _, (right, wrong), _ in data.items), name
    gender = swaps["openmoji_swap_gender"].items
    for _, (right, wrong), _ in gender:
        pairs = list(zip(right.split(), wrong.split(), strict=True))
        assert [{a, b} for a, b in pairs if a != b] == [{"man", "woman"}]
    for _, (right, wrong), _ in swaps["openmoji_swap_tone"].items:
        assert right.rpartition(" with ")[0] == wrong.rpartition(" with ")[0] or " and " in right


def test_a_sweep_can_ask_for_them_beside_others(make_data: Callable[..., Any]) -> None:
    from harness.config import RunConfig
    from harness.metrics import benchmark_metrics

    config = override(RunConfig(), {"evaluate.suites": ["swaps", "smoke"]})
    assert config.evaluate.suites == ("swaps", "smoke")
    assert benchmark_metrics(SWAPS[0]) == [
        f"openmoji_swap_role/{kind}"
        for kind in ("text_score", "image_score", "group_score", "blind_text_score")
    ]
