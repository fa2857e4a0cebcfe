"""Captions without their pads: the step of the padded batch, from fewer rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.config import override
from harness.data.text import Tokenizer
from harness.models.text import TextEncoder, unpadded
from tests.train.rank_cases import CASES, CLIP, VIT, after, assert_same, gradients, trainer

UNPADDED = {"train.unpadded": True}
CHOSEN = {name: CASES[name] for name in ("clip", "within_pair", "everything", "open")}
OPERATORS = {
    operator: {**CASES["mlm"], "objective.mlm.operator": operator, "objective.mlm.gate_init": 0.7}
    for operator in ("add", "concat", "none")
}
CAUSAL = {"causal": {**OPERATORS["add"], "objective.mlm.attention": "causal"}}
STEPS = CHOSEN | OPERATORS | CAUSAL


def first_step(folder: Path, values: dict[str, Any], **runtime: Any) -> dict[str, Any]:
    return gradients(after(trainer(folder, override(CLIP, values), **runtime), 1))


@pytest.mark.parametrize("values", STEPS.values(), ids=STEPS)
def test_loss_and_gradients_are_those_of_the_padded_batch(
    tmp_path: Path, in_64_bits: None, values: dict[str, Any]
) -> None:
    padded = first_step(tmp_path, values)
    found = first_step(tmp_path, {**values, **UNPADDED})
    assert_same(found, padded, 1e-10)


def test_micro_batches_have_the_gradients_of_the_whole(tmp_path: Path, in_64_bits: None) -> None:
    values = {**VIT, **CASES["everything"], **UNPADDED}
    whole = first_step(tmp_path / "whole", values)
    assert_same(first_step(tmp_path / "parts", values, micro_batch=3), whole, 1e-10)


@pytest.mark.parametrize(("case", "ends"), [("clip", True), ("mlm", True), ("within_pair", False)])
def test_only_tokens_pass_and_of_the_last_block_only_what_is_wanted(
    tmp_path: Path, case: str, ends: bool
) -> None:
    t = trainer(tmp_path, override(CLIP, {**CASES[case], **UNPADDED}))
    batch = next(iter(t.batches.start()))
    inputs = t._inputs(batch)
    seen: list[list[int]] = []
    for block in t.towers.text.transformer.resblocks:
        block.mlp.register_forward_hook(lambda _, given, out: seen.append([*given[0].shape]))
    t._outputs(torch.zeros(8, 3, 32, 32), batch.tokens, inputs)
    tokens = int((batch.tokens.argmax(dim=1) + 1).sum())
    assert tokens < batch.tokens.numel()
    assert seen[:2] == [[tokens, 16], [8 if ends else tokens, 16]]
    if case == "mlm":
        assert seen[2:] == [[tokens, 16], [len(inputs["mlm"].targets), 16]]  # type: ignore[attr-defined]


def test_places_by_hand_and_of_some_captions() -> None:
    tokens = torch.tensor([[8, 9, 0, 0], [8, 3, 5, 9], [8, 3, 9, 0]])
    found = unpadded(tokens)
    assert found.places.tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 10]
    assert found.ends.tolist() == [1, 7, 10]
    for first, last in [(0, 3), (0, 1), (1, 3), (2, 3), (1, 1)]:
        some = unpadded(tokens[first:last])
        for own, expected in zip(found.rows(first, last), some, strict=True):
            assert own.tolist() == expected.tolist()
    again = found.rows(1, 3).rows(1, 2)
    assert again.places.tolist() == [0, 1, 2]


def test_evaluation_passes_the_padded_batch(tmp_path: Path) -> None:
    t = trainer(tmp_path, override(CLIP, UNPADDED))
    plain = trainer(tmp_path, CLIP)
    tokens = t.towers.tokenizer(["a b", "a b c d e f"])
    with torch.no_grad():
        assert torch.equal(t.towers.encode_text(tokens), plain.towers.encode_text(tokens))


def test_a_caption_of_the_whole_context_and_an_empty_one() -> None:
    torch.manual_seed(0)
    text = TextEncoder(CLIP.model.text, 49_408, 8).double()
    tokens = Tokenizer(12)(["word " * 20, ""])
    whole: Tensor = text.hidden(tokens)
    found = text.hidden(tokens, unpadded(tokens))
    torch.testing.assert_close(found[0], whole[0])
    torch.testing.assert_close(found[1, :2], whole[1, :2])
    alone = text.hidden(tokens[1:], unpadded(tokens[1:]), words=False)
    torch.testing.assert_close(text.pool(alone, tokens[1:]), text.pool(whole[1:], tokens[1:]))
