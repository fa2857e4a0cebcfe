"""Labels of relevance: against eccv-caption's own code, by every order of ties, and from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from eccv_caption._metrics import compute_eccv_metrics, compute_r_at_k
from torch.nn import functional as F

from harness.commands.evaluate import main
from harness.config import Evaluate, Runtime
from harness.errors import DataError
from harness.evaluate import invariants, verify
from harness.evaluate.benchmarks import place_of
from harness.evaluate.model import Identity
from harness.evaluate.parts import evaluate_part
from harness.evaluate.scoring.relevance import chances, judge, precision_at_r
from harness.evaluate.suites import BENCHMARKS
from harness.evaluate.suites.find import Found, Hole, _package_data, find
from harness.evaluate.suites.records import Benchmark
from harness.evaluate.suites.relevance import _FOREIGN, open_relevance
from harness.evaluate.suites.retrieval import MSCOCO
from harness.metrics.relevance import MAP_AT_R, R_PRECISION
from tests.evaluate.conftest import ColourModel, png

# --------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_eccv_captions_own_code(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, pool = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (30, 50))
    draw = np.random.default_rng(seed)
    relevant = [np.sort(draw.permutation(50)[: draw.integers(1, 20)]) for _ in range(30)]
    ours = judge(queries, pool, relevant)
    lists = {i: order.tolist() for i, order in enumerate((-queries @ pool.T).argsort(dim=1))}
    labels = {i: rows.tolist() for i, rows in enumerate(relevant)}
    theirs = compute_eccv_metrics(lists, labels)
    assert ours[MAP_AT_R].mean() == pytest.approx(theirs["eccv_map_at_r"])
    assert ours[R_PRECISION].mean() == pytest.approx(theirs["eccv_rprecision"])
    for k in (1, 5, 10):
        assert ours[f"relevant@{k}"].mean() == pytest.approx(compute_r_at_k(lists, labels, k))


def in_every_order(scores: Sequence[float], relevant: Sequence[int]) -> tuple[float, float]:
    """The mean of their code over every ranking that the scores allow."""
    orders = [
        order
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    found = [compute_eccv_metrics({0: list(order)}, {0: list(relevant)}) for order in orders]
    return fmean(f["eccv_map_at_r"] for f in found), fmean(f["eccv_rprecision"] for f in found)


@pytest.mark.parametrize(
    ("scores", "relevant"),
    [
        ([1, 1, 1, 1, 1, 1], [0, 1, 2]),
        ([3, 2, 2, 2, 1, 0], [1, 3, 5]),
        ([3, 3, 2, 2, 2, 1], [0, 2, 4, 5]),
        ([5, 4, 3, 2, 1, 0], [5]),
        ([2, 2, 1, 1, 1, 1], [0, 1]),
    ],
)
def test_equal_scores_count_by_expectation(scores: list[float], relevant: list[int]) -> None:
    found = precision_at_r(np.array(scores, float), np.array(relevant))
    assert found == pytest.approx(in_every_order(scores, relevant))


def test_chance_is_a_random_order() -> None:
    found = chances([np.array([0]), np.array([0, 1, 2])], 5)
    one, three = in_every_order([0] * 5, [0]), in_every_order([0] * 5, [0, 1, 2])
    assert found[MAP_AT_R] == pytest.approx((one[0] + three[0]) / 2)
    assert found[R_PRECISION] == pytest.approx((1 / 5 + 3 / 5) / 2)
    assert found["relevant@1"] == pytest.approx((1 / 5 + 3 / 5) / 2)


def test_a_collapsed_model_has_chance() -> None:
    same = torch.ones(4, 3) / 3**0.5
    relevant = [np.array([0]), np.array([1, 2])]
    found = judge(same[:2], same, relevant)
    assert {what: values.mean() for what, values in found.items()} == pytest.approx(
        chances(relevant, 4)
    )


# --------------------------------------------------------------------------- files

ROWS = {
    "r": ((255, 0, 0), {11: "A red one.", 12: "red"}, 101),
    "g": ((0, 255, 0), {21: "green", 22: "red green"}, 102),
    "b": ((0, 0, 255), {31: "blue", 32: "red"}, 103),
}
#: Picture r goes with every caption of red; so do both "red" with r, and one with b.
LABELS = {
    "eccv_image_to_caption.json": {"101": [11, 12, 32], "103": [31, 32]},
    "eccv_caption_to_image.json": {"12": [101], "32": [103, 101], "21": [102]},
}


def laid_out(root: Path, labels: Any = None, **files: Any) -> Benchmark:
    """COCO as a table and a folder, its numbers, and labels beside it."""
    home = root / "mscoco"
    (home / "annotations").mkdir(parents=True)
    lines = ["file,caption"]
    notes = []
    for name, (colour, captions, number) in ROWS.items():
        (home / f"{name}.png").write_bytes(png(colour))
        lines += [f"{name}.png,{text}" for text in captions.values()]
        notes += [{"image_id": number, "id": i, "caption": t} for i, t in captions.items()]
    (home / "captions.csv").write_text("\n".join(lines) + "\n")
    told = files.get("annotations", {"annotations": notes[::-1]})
    (home / "annotations" / "captions_val2014.json").write_text(json.dumps(told))
    (root / "eccv_caption").mkdir()
    for name, tree in (LABELS if labels is None else labels).items():
        text = tree if isinstance(tree, str) else json.dumps(tree)
        (root / "eccv_caption" / name).write_text(text)
    every = {number: list(captions) for _, captions, number in ROWS.values()}
    pool = root / "eccv_caption" / "original_image_to_caption.json"
    pool.write_text(json.dumps(files.get("pool", every)))
    of = replace(MSCOCO, samples=0, captions=None, builder=None)
    return replace(BENCHMARKS["eccv_caption"], of=of, samples=0, captions=None)


def found_of(root: Path, *args: Any, **files: Any) -> Found:
    found = find(laid_out(root, *args, **files), str(root))
    assert isinstance(found, Found), found
    return found


def part_of(found: Found, root: Path) -> Any:
    place = place_of(found, Runtime(cache=str(root / "cache")))
    identity = Identity("0" * 64, "1" * 64, {}, "2", {})
    return evaluate_part(ColourModel(), identity, place, Evaluate(), Runtime(), root / "store")  # type: ignore[arg-type]


def test_labels_are_read_and_scored(tmp_path: Path) -> None:
    part = part_of(found_of(tmp_path), tmp_path)
    values = {name: metric["value"] for name, metric in part.metrics.items()}
    # Captions: 12 finds r at once; 32, which is "red" too, finds r first and b among the two that
    # are as far; 21 finds g.  AP@R of 32: (1 + 1/2 * 2/2) / 2.
    t2i = "eccv_caption/image_retrieval"
    assert values[f"{t2i}_map_at_r"] == pytest.approx((1 + 0.75 + 1) / 3)
    assert values[f"{t2i}_r_precision"] == pytest.approx((1 + 0.75 + 1) / 3)
    assert values[f"{t2i}_relevant@1"] == 1
    # r: all three captions of red come first.  b: "blue" first; then the other five are as far.
    i2t = "eccv_caption/text_retrieval"
    assert values[f"{i2t}_map_at_r"] == pytest.approx((1 + (1 + 1 / 5) / 2) / 2)
    assert values[f"{i2t}_r_precision"] == pytest.approx((1 + (1 + 1 / 5) / 2) / 2)
    assert part.protocol["queries"] == {"image_retrieval": 3, "text_retrieval": 2}
    assert part.metrics[f"{t2i}_map_at_r"]["n"] == 3
    invariants.check_part("eccv_caption", part.metrics, part.protocol)
    arrays = part.arrays()
    assert arrays["eccv_caption/items/image_retrieval_recall"].tolist() == [2, 0, 1]
    assert len(arrays[f"{i2t}_map_at_r"]) == 2


def test_a_smaller_pool_is_looked_in(tmp_path: Path) -> None:
    pool = {101: [11, 12], 102: [21], 103: [31, 32]}
    data = open_relevance(found_of(tmp_path, pool=pool), tmp_path)
    assert [data.captions[place] for place in data.pool] == [
        "blue",
        "red",
        "green",
        "A red one.",
        "red",
    ]


def test_a_few_labels_of_what_is_not_there_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {**LABELS, "eccv_image_to_caption.json": {"101": [11, 12, 32, 99], "103": [31, 32]}}
    found = found_of(tmp_path, labels)
    with pytest.raises(DataError, match="such as 99"):
        open_relevance(found, tmp_path)
    monkeypatch.setattr("harness.evaluate.suites.relevance._FOREIGN", 0.2)
    data = open_relevance(found, tmp_path)
    assert {len(given) for given in data.captions_of_image.values()} == {2, 3}


def test_the_labels_of_the_package_name_its_own_captions_but_for_two() -> None:
    home = Path(_package_data("eccv_caption")[0])
    known = {int(i) for i in json.loads((home / "original_caption_to_image.json").read_text())}
    for prefix, foreign in (("eccv", 2), ("cxc", 0)):
        tree = json.loads((home / f"{prefix}_image_to_caption.json").read_text())
        named = [int(each) for given in tree.values() for each in given]
        assert len(set(named) - known) == foreign
        assert foreign < _FOREIGN * len(named)


def test_an_unreadable_picture_is_neither_query_nor_answer(tmp_path: Path) -> None:
    found = found_of(tmp_path)
    (tmp_path / "mscoco" / "b.png").write_bytes(b"<html>")
    place = place_of(found, Runtime(cache=str(tmp_path / "cache")))
    identity = Identity("0" * 64, "1" * 64, {}, "2", {})
    runtime = Runtime(max_bad_fraction=0.5)
    part = evaluate_part(ColourModel(), identity, place, Evaluate(), runtime, tmp_path / "store")  # type: ignore[arg-type]
    assert part.protocol["queries"] == {"image_retrieval": 2, "text_retrieval": 1}
    invariants.check_part("eccv_caption", part.metrics, part.protocol)


def test_changed_labels_are_another_fingerprint(tmp_path: Path) -> None:
    before = found_of(tmp_path)
    (tmp_path / "eccv_caption" / "eccv_caption_to_image.json").write_text('{"12": [101]}')
    after = find(before.benchmark, str(tmp_path))
    assert isinstance(after, Found)
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("labels", "files", "words"),
    [
        ({"eccv_image_to_caption.json": {"7": [11]}}, {}, "such as 7, that .* has not"),
        ({"eccv_image_to_caption.json": {"101": [99]}}, {}, "such as 99, that .* has not"),
        ({"eccv_image_to_caption.json": {"101": 11}}, {}, "an object of number -> list"),
        ({"eccv_image_to_caption.json": {"x": [11]}}, {}, "an object of number -> list"),
        ({"eccv_image_to_caption.json": [1, 2]}, {}, "an object of number -> list"),
        ({"eccv_image_to_caption.json": "{"}, {}, "cannot be read"),
        ({"eccv_image_to_caption.json": "[" * 100_000}, {}, "cannot be read"),
        ({}, {"annotations": {}}, "`annotations` of image_id, id and caption"),
        ({}, {"annotations": []}, "`annotations` of image_id, id and caption"),
        ({}, {"annotations": {"annotations": [{"id": 1}]}}, "`annotations` of image_id"),
        ({}, {"annotations": {"annotations": [{"id": 1, "image_id": 2, "caption": 3}]}}, "`annot"),
        (
            {},
            {"annotations": {"annotations": [{"id": 1, "image_id": 2, "caption": "a dog"}]}},
            "picture b.png are those of no picture there",
        ),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, labels: Any, files: Any, words: str) -> None:
    found = found_of(tmp_path, {**LABELS, **labels}, **files)
    with pytest.raises(DataError, match=words) as told:
        open_relevance(found, tmp_path)
    assert "\n" not in str(told.value)


def test_what_is_not_there_is_a_hole_that_says_what(tmp_path: Path) -> None:
    benchmark = laid_out(tmp_path)
    (tmp_path / "mscoco" / "annotations" / "captions_val2014.json").unlink()
    hole = find(benchmark, str(tmp_path))
    assert isinstance(hole, Hole)
    assert "captions_val2014.json not found" in str(hole)
    assert "annotations_trainval2014.zip" in str(hole)
    alone = find(replace(benchmark, of=replace(MSCOCO, name="other")), str(tmp_path))
    assert isinstance(alone, Hole)
    assert "its pictures are not here" in str(alone)


def test_labels_of_the_package_are_found_without_importing_it(tmp_path: Path) -> None:
    benchmark = replace(laid_out(tmp_path), labels=BENCHMARKS["cxc"].labels)
    found = find(benchmark, str(tmp_path))
    assert isinstance(found, Found)
    assert found.files["cxc_image_to_caption.json"].parent.name == "data"
    sizes = [len(json.loads(found.files[name].read_text())) for name in benchmark.labels]
    assert sizes == [5_000, 24_972]


def test_nothing_is_compared_with_clip_benchmark(tmp_path: Path) -> None:
    _, (model, identity) = verify.small_model()
    with pytest.raises(DataError, match="CLIP_benchmark knows no labels of relevance"):
        verify.compare(model, identity, found_of(tmp_path), Evaluate(), Runtime())


# --------------------------------------------------------------------------- what the command says


@pytest.mark.parametrize("suite", ["composition", "relevance", "swaps", "retrieval"])
def test_every_suite_is_listed(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--suite", suite]) in (0, 3)
    told = capsys.readouterr().out
    assert "None" not in told
    assert ", by " in told


def test_what_no_command_fetches_is_told_and_nothing_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> str:
        raise AssertionError(f"{args} was run")

    monkeypatch.setattr("harness.evaluate.suites.fetched.bring", never)
    root = ["--data-root", str(tmp_path)]
    for suite in ("aro-relation", "sugar_crepe-add_att", "winoground", "eccv_caption"):
        assert main(["--fetch", "--suite", suite, *root]) == 3
        told = capsys.readouterr()
        assert f"{suite}: to be had by hand" in told.err
        assert len(told.err.strip().splitlines()) == 1
