"""Probes against scikit-learn, geometry on hand-made cases, and the own suites in an evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from harness.commands.evaluate import main
from harness.config import RunConfig, Runtime, override
from harness.data.dataset import Split, Task
from harness.errors import ConfigError
from harness.evaluate.embed import embed_shortened, embed_texts
from harness.evaluate.engine import evaluate
from harness.evaluate.scoring import probe as module
from harness.evaluate.scoring.probe import (
    CS,
    Rows,
    credit_of,
    draw,
    fit,
    logits,
    neighbours,
    probe,
    regressions,
)
from harness.evaluate.scoring.zeroshot import fitted_temperature
from harness.evaluate.suites import suite
from harness.metrics import METRICS, OWN_SUITES, Embedded, Ranking, display, is_cost, known_metrics
from harness.metrics.hubness import occurrences
from harness.metrics.text_length import Shortened
from harness.results.sections import sections_of
from tests.evaluate.conftest import ColourData, ColourModel, ColourTokenizer, png


def rows_of(seed: int, count: int, classes: int = 4, dim: int = 6) -> Rows:
    """Unit-norm features about a mean of each class, which overlap."""
    means = np.random.default_rng(1).normal(size=(classes, dim))
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    features = means[labels] + generator.normal(size=(count, dim))
    return Rows(features / np.linalg.norm(features, axis=1, keepdims=True), labels)


# --------------------------------------------------------------------------- probes


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_logistic_regression_is_scikit_learns(c: float) -> None:
    train, test = rows_of(2, 90), rows_of(3, 200)
    theirs = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(*train)
    ours = fit(train, 4, c, tolerance=1e-8)
    assert np.allclose(ours[:, :-1], theirs.coef_, atol=2e-3 * max(1, np.abs(theirs.coef_).max()))
    # Intercepts are free up to a constant.
    assert np.allclose(
        ours[:, -1] - ours[:, -1].mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=5e-3
    )
    usual = fit(train, 4, c)
    agree = logits(usual, test.features).argmax(1) == theirs.predict(test.features)
    assert agree.mean() > 0.99


def test_every_c_starts_from_the_one_before_and_ends_where_it_would_alone() -> None:
    train = rows_of(4, 60)
    for c, weights in zip(CS, regressions(train, 4), strict=True):
        alone = fit(train, 4, c)
        found, wanted = (logits(each, train.features).argmax(1) for each in (weights, alone))
        assert (found == wanted).mean() > 0.95


def test_a_class_without_a_training_picture_is_never_answered() -> None:
    train = rows_of(5, 60)
    few = train.some(np.flatnonzero(train.labels != 2))
    scores = logits(fit(few, 4, 1.0), train.features)
    assert not (scores.argmax(1) == 2).any()
    assert credit_of(scores, np.full(60, 2)).sum() == 0


def test_neighbours_are_scikit_learns() -> None:
    train, test = rows_of(6, 80), rows_of(7, 50)
    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
    ).fit(*train)
    votes = neighbours(train, test.features, 4)
    shares = votes / votes.sum(1, keepdims=True)
    assert np.allclose(shares, theirs.predict_proba(test.features))
    fewer = neighbours(train.some(np.arange(3)), test.features, 4)
    assert ((fewer > 0).sum(1) <= 3).all()


def test_neighbours_in_steps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = rows_of(6, 80), rows_of(7, 50)
    whole = neighbours(train, test.features, 4)
    monkeypatch.setattr(module, "_SCORES", 80 * 7)
    assert np.allclose(neighbours(train, test.features, 4), whole)


def test_equal_scores_count_by_expectation() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert credit_of(scores, np.array([1, 1, 2])).tolist() == [0.5, 0.0, 1 / 3]


def test_shots_are_drawn_by_seed_alone_and_more_hold_fewer() -> None:
    labels = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    one, four = (draw(labels, shots, "role", 0) for shots in (1, 4))
    assert np.array_equal(one, draw(labels, 1, "role", 0))
    assert np.bincount(labels[one]).tolist() == [1, 1, 1]
    assert np.bincount(labels[four]).tolist() == [4, 3, 1]
    assert set(one) <= set(four)
    drawn = {tuple(draw(labels, 1, "role", number)) for number in range(20)}
    assert len(drawn) > 1


def test_validation_chooses_c_and_nothing_else() -> None:
    train, validation, test = rows_of(8, 30), rows_of(9, 40), rows_of(10, 60)
    found = probe(train, validation, test, 4, "role").credit["linear_probe"]
    by_c = [
        [credit_of(logits(weights, rows.features), rows.labels) for rows in (validation, test)]
        for weights in regressions(train, 4)
    ]
    right = [each[0].mean() for each in by_c]
    assert len(set(right)) > 1
    assert np.array_equal(found, by_c[right.index(max(right))][1])
    # Rows that tell nothing leave the strongest penalty, whatever they look like.
    blank = Rows(np.zeros((5, 6)), np.full(5, 3))
    alone = Rows(np.ones((1, 6)), np.full(1, 3))
    assert credit_of(logits(fit(train, 4, CS[0]), blank.features), blank.labels).mean() in (0, 1)
    assert probe(train, alone, test, 4, "role").credit["linear_probe"].tolist() in [
        each[1].tolist() for each in by_c
    ]


def test_a_collapsed_tower_has_chance() -> None:
    same = Rows(np.tile([1.0, 0.0], (40, 1)), np.arange(40) % 4)
    found = probe(same, same, same, 4, "role")
    for kind, credit in found.credit.items():
        assert credit.mean() == pytest.approx(0.25), kind


# --------------------------------------------------------------------------- calibration


def test_a_temperature_by_hand() -> None:
    # Two classes, scores (3, 0), three of four right: softmax(3 / T) = 3/4, so 3 / T = ln 3.
    scores = torch.tensor([[3.0, 0.0]] * 4)
    found = fitted_temperature(scores, torch.tensor([0, 0, 0, 1]))
    assert found == pytest.approx(3 / math.log(3), rel=1e-4)
    # Always right: the surer the better, up to the bound; always wrong: as unsure as can be.
    assert fitted_temperature(scores, torch.zeros(4, dtype=torch.long)) < 0.1
    assert fitted_temperature(scores, torch.ones(4, dtype=torch.long)) > 1e3


# --------------------------------------------------------------------------- geometry


def embedded(image: Sequence[Sequence[float]], text: Sequence[Sequence[float]]) -> Embedded:
    """Caption i belongs to picture i, and those left over to the first."""
    owners = np.array([i if i < len(image) else 0 for i in range(len(text))])
    return Embedded(np.array(image, np.float32), np.array(text, np.float32), owners)


def value_of(kind: str, found: Embedded) -> Any:
    return METRICS.get(kind).compute(found)


def test_gap_and_alignment_by_hand() -> None:
    found = embedded([[1, 0], [1, 0]], [[0, 1], [1, 0], [-1, 0]])
    # Means (1, 0) and (0, 1/3).
    assert value_of("modality_gap", found).value == pytest.approx(math.hypot(1, 1 / 3))
    pairs = value_of("pair_distance", found)
    assert pairs.items["pair_distance"].tolist() == [2.0, 0.0, 4.0]
    assert (pairs.value, pairs.n) == (2.0, 3)
    same = embedded([[1, 0], [0, 1]], [[1, 0], [0, 1]])
    assert value_of("modality_gap", same).value == value_of("pair_distance", same).value == 0


def test_uniformity_by_hand() -> None:
    # Distances squared of the three pairs: 2, 2, 4.
    found = embedded([[1, 0], [0, 1], [-1, 0]], [[1, 0], [1, 0]])
    wanted = math.log((math.exp(-4) * 2 + math.exp(-8)) / 3)
    assert value_of("uniformity_image", found).value == pytest.approx(wanted)
    blank = value_of("uniformity_text", found)
    assert (blank.value, blank.n) == (None, 2)
    assert "two are needed" in blank.reason


def test_uniformity_in_steps_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(11, 23).features.astype(np.float32)
    whole = value_of("uniformity_image", embedded(rows, rows)).value
    monkeypatch.setattr("harness.metrics.spread._ROWS", 5)
    assert value_of("uniformity_image", embedded(rows, rows)).value == pytest.approx(whole)
    squared = [((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]]
    assert whole == pytest.approx(math.log(np.mean(np.exp(-2 * np.array(squared)))), rel=1e-4)


def test_effective_rank_by_hand() -> None:
    axes = np.vstack([np.eye(3), -np.eye(3)])
    found = embedded(axes, [[1, 0, 0], [-1, 0, 0]])
    assert value_of("effective_rank_image", found).value == pytest.approx(3)
    assert value_of("effective_rank_text", found).value == pytest.approx(1)
    # Singular values in the ratio 2 to 1: entropy of (2/3, 1/3).
    uneven = np.array([[1, 0]] * 4 + [[-1, 0]] * 4 + [[0, 1], [0, -1]])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    found = value_of("effective_rank_image", embedded(uneven, uneven))
    assert found.value == pytest.approx(math.exp(entropy))


def test_hubness_by_hand() -> None:
    # One of 12 candidates is in the list of every query; the other 11 share nine places.
    around = [[math.cos(a), math.sin(a), 0.0] for a in np.linspace(0, 2 * math.pi, 12)[:-1]]
    queries = np.array([[0, 0, 1]] * 4, np.float32)
    candidates = np.array([[0, 0, 1], *around], np.float32)
    counts = occurrences(queries, candidates)
    assert counts.tolist() == pytest.approx([4, *[4 * 9 / 11] * 11])
    found = value_of("image_retrieval_hubness", Embedded(candidates, queries, np.arange(4)))
    gaps = counts - counts.mean()
    assert found.value == pytest.approx((gaps**3).mean() / (gaps**2).mean() ** 1.5)
    assert found.value > 2
    assert found.n == 4
    # Fewer candidates than the list is long: everybody is in it.
    few = Embedded(candidates[:5], queries, np.arange(4))
    assert value_of("image_retrieval_hubness", few).value is None


# --------------------------------------------------------------------------- text length


def ranked(hits: Sequence[float]) -> Ranking:
    """Recall@1 of text -> image, query by query."""
    queries = np.arange(len(hits))
    return Ranking(queries, np.array([[h] * 3 for h in hits]), queries + 1.0, queries * 0 + 1, 9)


@pytest.mark.parametrize(
    ("by_length", "whole", "expected"),
    [
        ({2: [0, 0, 1, 0], 4: [0, 1, 1, 1], 8: [1, 1, 1, 1]}, [1, 1, 1, 1], 8.0),
        ({2: [1, 0, 1, 0], 4: [0, 1, 1, 0], 8: [1, 1, 0, 0]}, [0, 0, 1, 1], 2.0),
        ({2: [0] * 20, 4: [1] * 19 + [0], 8: [1] * 20}, [1] * 20, 4.0),
        ({2: [0, 0], 4: [0, 0], 8: [0, 0]}, [0, 0], "no caption finds its picture"),
        ({2: [0, 0], 4: [0, 0], 8: [1, 0]}, [1, 1], "more than 8 tokens are needed"),
    ],
)
def test_effective_length_by_hand(by_length: Any, whole: Any, expected: float | str) -> None:
    found = Shortened(
        {("image_retrieval", n): ranked(hits) for n, hits in {0: whole, **by_length}.items()}
    )
    value = METRICS.get("effective_text_length").compute(found)
    assert (value.value if value.reason is None else value.reason) == expected
    assert value.n == len(whole)


class WithBegin(ColourTokenizer):
    """As CLIP's: an id before the words."""

    def encode(self, text: str) -> list[int]:
        return [1, *super().encode(text)]


def test_texts_are_cut_after_so_many_tokens_and_each_distinct_one_is_embedded_once() -> None:
    model = ColourModel()
    model.tokenizer = WithBegin()
    texts = ["red", "red green blue", "red green", "blue blue blue blue"]
    cut = embed_shortened(model, texts, (1, 2, 64), RunConfig().evaluate)  # type: ignore[arg-type]
    first = ["red", "red", "red", "blue"]
    second = ["red", "red green", "red green", "blue blue"]
    for length, wanted in ((1, first), (2, second), (64, texts)):
        expected = embed_texts(model, wanted, RunConfig().evaluate)  # type: ignore[arg-type]
        assert torch.allclose(cut[length], expected), length
    # red, blue; red green, blue blue; the two long ones.
    assert model.text_batches[0][0] == 6


def test_a_caption_needs_the_word_that_tells_its_picture() -> None:
    data = coloured()
    entry, _, _ = entry_of(data, suites=["length"])
    values = {name: metric["value"] for name, metric in entry["metrics"].items()}
    # "a red one": the colour is the second word; "a" alone is the same for all, and cannot be told.
    whole = values["test/image_retrieval_recall@5"]
    for n in (2, 4, 64):
        assert values[f"test/image_retrieval_recall@5_{n}tokens"] == whole
    assert values["test/effective_text_length"] == 2
    assert entry["protocol"]["own_suites"]["length"]["test"]["captions"] == 13


# --------------------------------------------------------------------------- in an evaluation

SHADES = {"train": (250, 230, 210, 190), "validation": (240, 200), "test": (245, 225, 205, 185)}
COLOURS = ("red", "green", "blue")


def coloured(*, validated: bool = True) -> ColourData:
    """Three shades or more of each colour in every split, each with its colour's name."""
    files, splits, labels = {}, {}, {}
    for split, shades in SHADES.items():
        named = [(f"{split}-{c}-{s}.png", c, s) for c in range(3) for s in shades]
        for name, colour, shade in named:
            files[name] = png(tuple(shade if i == colour else 20 for i in range(3)))  # type: ignore[arg-type]
        captions = [
            (f"a {COLOURS[colour]} one",) * (1 + (i == 0)) for i, (_, colour, _) in enumerate(named)
        ]
        splits[split] = Split([name for name, _, _ in named], captions)
        labels[split] = [colour for _, colour, _ in named]
    if not validated:
        labels["validation"] = [-1] * len(labels["validation"])
    task = Task("colour", COLOURS, ("{c}",), labels)
    return ColourData("colours", "f" * 64, "e" * 64, splits, (task,), files=files)


def entry_of(
    data: ColourData,
    out: Path | None = None,
    suites: Sequence[str] = tuple(OWN_SUITES),
    runtime: Runtime = Runtime(),  # noqa: B008
    **more: Any,
) -> tuple[dict[str, Any], RunConfig, ColourModel]:
    values = {f"evaluate.{name}": value for name, value in more.items()}
    config = override(RunConfig(), {"evaluate.suites": suites, **values})
    model = ColourModel()
    return (
        evaluate(model, data, config, runtime, checkpoint_sha256="0" * 64, out=out),  # type: ignore[arg-type]
        config,
        model,
    )


def test_the_suites_in_one_evaluation(tmp_path: Path) -> None:
    entry, config, model = entry_of(coloured(), tmp_path / "outcomes")
    values = {name: metric["value"] for name, metric in entry["metrics"].items()}
    assert values["test/colour/knn"] == values["test/colour/linear_probe"] == 1.0
    assert values["test/colour/linear_probe_1shot"] == 1.0
    assert entry["metrics"]["test/colour/knn"]["chance"] == pytest.approx(1 / 3)
    assert values["test/colour/ece_fitted"] < values["test/colour/ece"]
    assert values["test/pair_distance"] < 0.1
    assert entry["metrics"]["test/modality_gap"]["unit"] == "distance"
    found = entry["protocol"]["own_suites"]
    assert found["probe"] == {"test/colour": {"images": 12, "train": 12, "validation": 6}}
    assert found["geometry"] == {"test": {"images": 12, "captioned": 12, "captions": 13}}
    assert 0 < found["calibration"]["test/colour"].pop("temperature") < 1
    # Every picture of the three splits went through the tower once.
    assert sum(model.image_batches) == sum(map(len, coloured().splits.values()))
    (file,) = (tmp_path / "outcomes").glob("*.npz")
    kept = np.load(file)
    assert kept["test/colour/linear_probe"].tolist() == [1] * 12
    assert kept["test/pair_distance"].shape == (13,)
    known = {name for name in known_metrics(coloured(), config.evaluate) if not is_cost(name)}
    assert known == {name for name, value in values.items() if value is not None}


def test_they_are_off_by_default_and_change_no_other_number(tmp_path: Path) -> None:
    plain, _, model = entry_of(coloured(), tmp_path / "a", suites=())
    assert "own_suites" not in plain["protocol"]
    assert sum(model.image_batches) == 12
    both, _, _ = entry_of(coloured(), tmp_path / "b")
    assert plain["metrics"].items() <= both["metrics"].items()
    own = {m.kind for m in METRICS.parts() if m.needs in OWN_SUITES}
    assert not own & plain["protocol"]["metrics"].keys()
    assert own <= both["protocol"]["metrics"].keys()


def test_nothing_is_fitted_and_tested_on_one_split() -> None:
    entry, config, _ = entry_of(coloured(), splits=["validation"])
    for kind in ("knn", "linear_probe", "ece_fitted"):
        found = entry["metrics"][f"validation/colour/{kind}"]
        assert found["value"] is None
        assert found["reason"] == "it is fitted on the split validation"
    assert entry["metrics"]["validation/modality_gap"]["value"] is not None
    assert "validation/colour/knn" not in known_metrics(coloured(), config.evaluate)


def test_a_task_without_validation_labels_is_a_hole_with_its_reason() -> None:
    data = coloured(validated=False)
    entry, config, model = entry_of(data)
    found = entry["metrics"]["test/colour/knn"]
    assert found["value"] is None
    assert found["reason"] == "no picture of the split validation has a label of colour"
    assert entry["metrics"]["test/colour/ece"]["value"] is not None
    assert not any("knn" in name for name in known_metrics(data, config.evaluate))
    assert sum(model.image_batches) == 12


def test_unreadable_training_pictures_are_left_out_or_a_reason() -> None:
    data = coloured()
    (task,) = data.tasks
    few = replace(task, name="few", labels={**task.labels, "validation": [0, *[-1] * 5]})
    lost = dict.fromkeys(("validation-0-240.png", "train-0-250.png"), b"<html>")
    torn = replace(data, tasks=(task, few), files={**data.files, **lost})
    entry, _, _ = entry_of(torn, runtime=Runtime(max_bad_fraction=1.0))
    reason = entry["metrics"]["test/few/knn"]["reason"]
    assert reason == "every labelled picture of train or of validation is unreadable"
    facts = entry["protocol"]["own_suites"]["probe"]["test/colour"]
    assert (facts["train"], facts["validation"]) == (11, 5)


def test_names_headings_and_what_the_commands_say(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ["test/role/linear_probe", "test/modality_gap", "test/role/ece_fitted"]
    shown += ["test/effective_text_length"]
    assert [display(name) for name in shown] == [
        "role linear probe acc@1",
        "modality gap",
        "role ECE, temperature fitted",
        "effective text length",
    ]
    assert [section.title for section in sections_of(shown)] == list(OWN_SUITES.values())
    assert suite("probe") == ()
    with pytest.raises(ConfigError, match="nearest: probe"):
        suite("prob")
    assert main(["--suite", "probe"]) == 2
    told = capsys.readouterr().err
    assert 'evaluate.suites=["probe"]' in told
    assert len(told.strip().splitlines()) == 1
