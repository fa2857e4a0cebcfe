"""What the terms of the loss learnt, on a split's captions with their own pictures and others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.config import RunConfig, Runtime, override
from harness.data.dataset import Split
from harness.errors import DataError
from harness.evaluate.embed import encoding
from harness.evaluate.engine import evaluate
from harness.evaluate.terms import _located
from harness.metrics import METRICS, Contrasted, is_cost, known_metrics, lacking
from harness.models.training import TrainingModel
from harness.objectives.masking import mask_words, masking_noise
from harness.objectives.mlm import mlm_loss
from harness.run import _corpus_rows
from harness.seeding import derive_seed
from tests.conftest import MemoryData, memory_data, tiny_run

KINDS = {"grounding", "grounding_gap", "localisation", "fusion_gain", "mlm_loss"}
BOTH = {"objective.token.weight": 0.5, "objective.token.dim": 8, "objective.mlm.weight": 0.5}


def setting(**changes: Any) -> RunConfig:
    config = tiny_run(Path(), **{"model.image.backbone": "test_vit", **BOTH, **changes})
    return override(config, {"evaluate.batch_size": 5})


def with_validation(data: MemoryData) -> MemoryData:
    """The same data, whose test split is called validation too but for its first picture."""
    test = data.splits["test"]
    more = {"validation": Split(test.images[1:], test.captions[1:])}
    changed = replace(data, splits={**data.splits, **more})
    object.__setattr__(changed, "files", data.files)
    return changed


def model_of(config: RunConfig, data: MemoryData, gate: float = 0.0) -> TrainingModel:
    training = TrainingModel(config, _corpus_rows(data, Runtime()))
    for name, parameter in training.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(gate)
    return training


def entry_of(
    config: RunConfig,
    data: MemoryData,
    training: TrainingModel | None,
    out: Path | None = None,
    **runtime: Any,
) -> dict[str, Any]:
    towers = training or model_of(config, data)
    return evaluate(
        towers.model,
        data,
        config,
        Runtime(**runtime),
        checkpoint_sha256="0" * 64,
        out=out,
        training=training,
    )


def of_terms(entry: dict[str, Any]) -> dict[str, Any]:
    return {n: m for n, m in entry["metrics"].items() if n.rpartition("/")[2] in KINDS}


# --------------------------------------------------------------------------- metrics by hand


def test_grounding_by_hand() -> None:
    found = Contrasted(np.array([0.5, 0.25, 0.25, 0.75]), np.array([0.25, 0.25, 0.5, 0.25]))
    share = METRICS.get("grounding").compute(found)
    assert (share.value, share.n, share.chance) == ((1 + 0.5 + 0 + 1) / 4, 4, 0.5)
    assert METRICS.get("grounding_gap").compute(found).value == (0.25 + 0 - 0.25 + 0.5) / 4


def test_localisation_by_hand() -> None:
    found = Contrasted(np.zeros(2), np.zeros(2), located=np.array([1.0, 0.25]))
    share = METRICS.get("localisation").compute(found)
    assert (share.value, share.n, share.chance) == (0.625, 2, 0.5)
    nothing = METRICS.get("localisation").compute(Contrasted(np.zeros(2), np.zeros(2)))
    assert nothing.value is None
    assert "puts no words on patches" in str(nothing.reason)


def test_words_are_located_on_the_own_side_of_a_canvas_of_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Dark and bright pictures in turn; words are put where the canvas is as bright as their own.
    config, data = setting(), memory_data()
    training = model_of(config, data).eval()
    bright = torch.tensor([0.0, 1.0, 0.0])
    pixels = bright[:, None, None, None].expand(3, 3, 32, 32)
    tokens, own = training.model.tokenizer(["a", "b", "c", "b"]), torch.tensor([0, 1, 2, 1])
    canvases = []

    def look(canvas: torch.Tensor, _: torch.Tensor) -> Any:
        canvases.append(canvas)
        return SimpleNamespace(with_pictures=lambda places: canvas[places])

    def locate(_: Any, seen: torch.Tensor, module: Any) -> torch.Tensor:
        grid = training.layout.grid
        patches = torch.nn.functional.adaptive_avg_pool2d(seen[:, :1], grid).flatten(1)
        return (patches == bright[own][:, None])[:, None].float()

    monkeypatch.setattr(training, "look", look)
    monkeypatch.setattr(type(training.terms["token"]), "locate", locate)
    shares = _located(training, pixels, tokens, own)
    assert shares.keys() == {"token"}
    # 0 stands left beside 1, 1 right beside 2, and 2 left beside 0, which is as dark
    assert canvases[0][:, 0, 0, [0, -1]].tolist() == [[0, 1], [0, 1], [0, 0]]
    assert shares["token"].tolist() == [1.0, 1.0, 0.5, 1.0]


def test_fusion_gain_by_hand() -> None:
    losses = Contrasted(own=np.array([1.0, 2.0]), other=np.array([1.5, 1.75]))
    gain = METRICS.get("fusion_gain").compute(losses)
    assert (gain.value, gain.n, gain.chance) == (0.125, 2, None)
    assert METRICS.get("mlm_loss").compute(losses).value == 1.5


# --------------------------------------------------------------------------- from a model


def test_known_metrics_are_those_with_a_value_on_validation_or_else_where_evaluated() -> None:
    config = setting()
    for data, split in ((memory_data(), "test"), (with_validation(memory_data()), "validation")):
        found = of_terms(entry_of(config, data, model_of(config, data)))
        assert found.keys() == {f"{split}/{kind}" for kind in KINDS}
        assert all(metric["value"] is not None for metric in found.values())
        names = known_metrics(data, config.evaluate, config.objective.active)
        known = {name for name in names if not is_cost(name)}
        assert known >= found.keys()
        plain = known_metrics(data, config.evaluate, ["instance"])
        assert known - set(plain) == found.keys()


def test_a_run_without_the_terms_has_the_evaluation_it_always_had() -> None:
    config, data = setting(**dict.fromkeys(BOTH, 0.0) | {"objective.token.dim": 8}), memory_data()
    entry = entry_of(config, data, model_of(config, data))
    assert not of_terms(entry)
    assert "terms" not in entry["protocol"]
    assert not KINDS & entry["protocol"]["metrics"].keys()
    assert not {"grounding", "mlm"} & entry["protocol"]["rules"].keys()


def test_the_own_picture_is_the_captions_own_whatever_order_the_pictures_were_drawn_in(
    tmp_path: Path,
) -> None:
    config, data = setting(), memory_data()
    training = model_of(config, data, gate=1.0)
    entry_of(config, data, training, tmp_path / "outcomes")
    (file,) = (tmp_path / "outcomes").glob("*.npz")
    kept = dict(np.load(file))
    assert kept["test/items/terms"].tolist() == list(range(12))
    # Alone, the first caption of the split gives the matched cosine that is behind its outcome.
    split = data.splits["test"]
    picture = training.model.preprocess(_decoded(data, split.images[0]))[None]
    tokens = training.model.tokenizer([split.captions[0][0]])
    with encoding(training, "fp32"):
        patches, words, mask = training(picture, tokens).of_terms["token"]
        (own,) = training.terms["token"].probe(
            training.look(picture, tokens), training.tokens, None
        )
    similarity = (words @ patches.mT)[0][mask[0]]
    assert own.item() == pytest.approx(_best_total(similarity) / len(similarity), abs=1e-6)
    others = [_cosine(training, data, name, tokens) for name in split.images[1:]]
    gaps = [own.item() - other for other in others]
    assert min(abs(kept["test/grounding_gap"][0] - gap) for gap in gaps) < 1e-6


def _decoded(data: MemoryData, name: str) -> np.ndarray:
    from harness.data.images import decode

    return decode(data.read(name), max_pixels=10**6)


def _best_total(similarity: torch.Tensor) -> float:
    from scipy.optimize import linear_sum_assignment

    values = similarity.detach().numpy()
    rows, columns = linear_sum_assignment(values, maximize=True)
    return float(values[rows, columns].sum())


def _cosine(training: TrainingModel, data: MemoryData, name: str, tokens: torch.Tensor) -> float:
    picture = training.model.preprocess(_decoded(data, name))[None]
    with encoding(training, "fp32"):
        seen = training.look(picture, tokens)
        return float(training.terms["token"].probe(seen, training.tokens, None))


def test_a_probed_mlm_loss_is_the_mean_of_the_terms_own_loss_of_one_caption_each() -> None:
    config, data = setting(), memory_data()
    training = model_of(config, data, gate=1.0).eval()
    term, captions = training.terms["mlm"], [c for (c,) in data.splits["test"].captions[:3]]
    tokens = training.model.tokenizer(captions)
    noise = masking_noise(torch.Generator().manual_seed(0), 3, 16)
    hidden = mask_words(tokens, noise, ratio=0.5, vocab_size=training.model.tokenizer.vocab_size)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        seen = training.look(pixels, tokens)
        found = term.probe(seen, training.masked_pass, hidden)
        for row in range(3):
            alone = hidden.rows(row, row + 1)
            one = training.look(pixels[row : row + 1], tokens[row : row + 1])
            states, targets = term.outputs(one, training.masked_pass, alone)
            table = training.masked_pass.table(training.model.text)
            expected = mlm_loss(states, table, training.masked_pass.bias, targets)
            assert found[row].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("operator", "gate"), [("none", 1.0), ("cross_attention", 0.0)])
def test_a_picture_that_is_not_looked_at_gives_no_gain(operator: str, gate: float) -> None:
    config, data = setting(**{"objective.mlm.operator": operator}), memory_data()
    entry = entry_of(config, data, model_of(config, data, gate))
    assert entry["metrics"]["test/fusion_gain"]["value"] == 0.0
    assert entry["metrics"]["test/mlm_loss"]["value"] > 1.0


def test_a_picture_that_is_looked_at_moves_the_loss() -> None:
    config, data = setting(), memory_data()
    entry = entry_of(config, data, model_of(config, data, gate=1.0))
    assert entry["metrics"]["test/fusion_gain"]["value"] != 0.0


def test_draws_are_the_same_for_every_run_and_the_generators_are_left_alone() -> None:
    config, data = setting(), memory_data()
    training = model_of(config, data, gate=1.0)
    state = torch.get_rng_state()
    first = of_terms(entry_of(config, data, training))
    assert torch.equal(torch.get_rng_state(), state)
    reseeded = override(config, {"seed": 5})
    second = of_terms(
        evaluate(
            training.model,
            data,
            reseeded,
            Runtime(),
            checkpoint_sha256="1" * 64,
            out=None,
            training=training,
        )
    )
    assert first == second
    assert derive_seed(0, "pictures of terms") != derive_seed(5, "pictures of terms")


# --------------------------------------------------------------------------- holes


def test_without_what_trained_beside_the_towers_they_are_holes_that_say_so() -> None:
    found = of_terms(entry_of(setting(), memory_data(), None))
    assert found.keys() == {f"test/{kind}" for kind in KINDS}
    for metric in found.values():
        assert metric["value"] is None
        assert metric["reason"] == "what trained beside the towers is not at hand"


def test_one_picture_has_no_other_to_be_compared_with() -> None:
    data = memory_data(test=1)
    config = override(setting(), {"data.source": "folder"})
    training = model_of(config, data)
    from harness.evaluate.scoring.job import Findings, Job
    from harness.evaluate.terms import measure_terms

    found = Findings()
    job = Job(training.model, config.evaluate, Runtime(), found)
    section = measure_terms(job, data, config, training)
    assert section["terms"]["test"]["captions"] == 1
    assert {m["reason"] for m in found.metrics.values()} == {
        "one captioned picture, and another is needed to compare with"
    }


def test_unreadable_pictures_are_left_out_and_bounded() -> None:
    config, data = setting(), memory_data()
    training = model_of(config, data)
    for name in data.splits["test"].images[:2]:
        data.files[name] = b"no picture"
    entry = entry_of(config, data, training, max_bad_fraction=0.5)
    assert entry["metrics"]["test/grounding"]["n"] == 10
    with pytest.raises(DataError, match="2 of 12 pictures cannot be evaluated"):
        entry_of(config, data, training, max_bad_fraction=0.1)


def test_an_evaluation_of_before_lacks_them_if_the_terms_are_on() -> None:
    entry = entry_of(
        setting(**dict.fromkeys(BOTH, 0.0) | {"objective.token.dim": 8}), memory_data(), None
    )
    assert lacking(entry, ["instance"]) == {}
    holes = lacking(entry, ["instance", "token"])
    assert holes.keys() == {
        f"validation/{k}" for k in ("grounding", "grounding_gap", "localisation")
    }
    assert "--rerun metrics" in holes["validation/grounding"]["reason"]
    measured = entry_of(setting(), memory_data(), None)
    assert lacking(measured, ["instance", "token", "mlm"]) == {}


def test_a_report_says_of_a_run_without_the_term_that_it_is_off() -> None:
    from harness.results.collect import _reading

    plain = setting(**{"objective.token.weight": 0.0})
    entry = entry_of(plain, memory_data(), None)
    run = SimpleNamespace(config=plain)
    record: Any = SimpleNamespace(run=run, evaluation=entry, result={}, reason=None)
    reading = _reading(record, "validation/grounding")
    assert reading.reason == "of the loss term token, which is off in this run"
    assert reading.off
    reading = _reading(record, "validation/mlm_loss")
    assert str(reading.reason).startswith("unknown metric")
    assert not reading.off
