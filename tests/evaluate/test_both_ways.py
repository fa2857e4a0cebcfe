"""One look at every score gives what a ranking of each direction gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InvariantError
from harness.evaluate.scoring import bidirectional_ranking as module
from harness.evaluate.scoring.bidirectional_ranking import Relation, both_ways
from harness.evaluate.scoring.ranking import expected_hits

KS = (1, 3, 10)


def relation(mask: Tensor) -> Relation:
    """The relation of a matrix of truth values (texts, pictures)."""

    def pairs(places: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = torch.nonzero(mask[places], as_tuple=True)
        return rows, columns

    return Relation(pairs, int(mask.sum()))


def hits(texts: Tensor, pictures: Tensor, relations: list[Relation]) -> list[tuple[Tensor, Tensor]]:
    found = both_ways(texts, pictures, relations)
    return [(down.hits(KS), up.hits(KS)) for down, up in found]


def reference(texts: Tensor, pictures: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each direction by itself, with the whole matrix of positives."""
    down = expected_hits(texts, pictures, lambda rows: mask[rows], KS)
    asked = mask.any(dim=0)
    up = torch.full((len(pictures), len(KS)), torch.nan, dtype=torch.float64)
    mine = mask.T[asked]
    up[asked] = expected_hits(pictures[asked], texts, lambda rows: mine[rows], KS)
    return down, up


def unit(generator: torch.Generator, n: int, d: int = 8) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=generator), dim=-1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["plain", "equal texts", "equal pictures", "grid", "constant"])
@pytest.mark.parametrize("tile", [2**20, 40])
def test_equals_each_direction_by_itself(
    kind: str, seed: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TILE_SCORES", tile)
    generator = torch.Generator().manual_seed(seed)
    texts, pictures = unit(generator, 47), unit(generator, 19)
    if kind == "equal texts":
        texts = texts[torch.randint(12, (47,), generator=generator)]
    elif kind == "equal pictures":
        pictures = pictures[torch.randint(5, (19,), generator=generator)]
    elif kind == "grid":  # few values: ties among different embeddings
        texts, pictures = (
            torch.randint(-1, 2, t.shape, generator=generator) / 4.0 for t in (texts, pictures)
        )
    elif kind == "constant":
        texts, pictures = (t[:1].expand_as(t) for t in (texts, pictures))
    mask = torch.rand(47, 19, generator=generator) < 0.08
    mask[torch.arange(47), torch.randint(17, (47,), generator=generator)] = True
    ((down, up),) = hits(texts, pictures, [relation(mask)])
    expected_down, expected_up = reference(texts, pictures, mask)
    asked = mask.any(dim=0)
    assert torch.allclose(down, expected_down, atol=1e-12)
    assert torch.allclose(up[asked], expected_up[asked], atol=1e-12)


def test_many_positives_are_looked_at_twice_and_counted_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(3)
    texts, pictures = unit(generator, 30), unit(generator, 20)
    mask = torch.rand(30, 20, generator=generator) < 0.5
    mask[:, 0] = True
    once = hits(texts, pictures, [relation(mask)])
    monkeypatch.setattr(module, "_PAIRS_PER_ROW", 0)
    twice = hits(texts, pictures, [relation(mask)])
    for a, b in zip(once[0], twice[0], strict=True):
        assert torch.equal(a, b)


def test_an_estimate_that_is_off_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    texts, pictures = unit(generator, 30), unit(generator, 20)
    mask = torch.eye(20).bool()[torch.arange(30) % 20]
    right = hits(texts, pictures, [relation(mask)])
    real = module._best_of_pairs
    monkeypatch.setattr(module, "_best_of_pairs", lambda *args: real(*args) + 0.1)
    off = hits(texts, pictures, [relation(mask)])
    assert torch.equal(right[0][1], off[0][1])


def test_several_rules_share_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    texts, pictures = unit(generator, 30), unit(generator, 20)
    strict = torch.eye(20).bool()[torch.arange(30) % 20]
    wide = strict | (torch.rand(30, 20, generator=generator) < 0.1)
    shown: list[int] = []
    real = module._Tiles.show
    monkeypatch.setattr(
        module._Tiles, "show", lambda self, looks: (shown.append(len(looks)), real(self, looks))
    )
    found = hits(texts, pictures, [relation(strict), relation(wide)])
    assert shown == [2]
    for (down, up), mask in zip(found, (strict, wide), strict=True):
        expected = reference(texts, pictures, mask)
        assert torch.allclose(down, expected[0])
        assert torch.allclose(up, expected[1])


def test_nan_and_a_text_without_a_positive_are_refused() -> None:
    texts, pictures = torch.eye(2), torch.eye(2)
    with pytest.raises(InvariantError, match="1 of 2 text embeddings hold NaN"):
        both_ways(torch.tensor([[torch.nan, 1], [0, 1]]), pictures, [relation(torch.eye(2))])
    with pytest.raises(InvariantError, match="no positive"):
        both_ways(texts, pictures, [relation(torch.tensor([[True, False], [False, False]]))])
