import pytest
import torch

from harness.data.text import Tokenizer, corpus_rows
from harness.objectives.masking import mask_words, maskable, masking_noise

# A compact vocabulary of 12: 0 pad and other, words 1 to 9, SOT 10, EOT 11.
VOCAB, SOT, EOT = 12, 10, 11
FOUR_WORDS = torch.tensor([[SOT, 3, 4, 5, 6, EOT, 0, 0]])


def noise_for(order, action, draw):
    return torch.tensor([[order], [action], [draw]])


def seeded_noise(batch_size, length, seed=0):
    return masking_noise(torch.Generator().manual_seed(seed), batch_size, length)


def long_captions(count=2_000, words=20, vocab=100):
    rng = torch.Generator().manual_seed(1)
    inside = torch.randint(1, vocab - 2, (count, words), generator=rng)
    ends = torch.tensor([vocab - 2, vocab - 1])
    return torch.cat([ends[:1].expand(count, 1), inside, ends[1:].expand(count, 1)], dim=1)


def test_masking_by_hand():
    # half of four words: those with the lowest order, places 2 and 4; EOT's and the pads' lower
    # numbers do not count.  Place 2 is masked (0.79), place 4 replaced (0.85) by 1 + floor(0.5 * 9)
    masked = mask_words(
        FOUR_WORDS,
        noise_for(
            order=[0.0, 0.9, 0.2, 0.8, 0.3, 0.0, 0.0, 0.0],
            action=[0.0, 0.0, 0.79, 0.0, 0.85, 0.0, 0.0, 0.0],
            draw=[0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0],
        ),
        ratio=0.5,
        vocab_size=VOCAB,
    )
    assert masked.ids.tolist() == [[SOT, 3, 0, 5, 5, EOT, 0, 0]]
    assert masked.hidden.nonzero().tolist() == [[0, 2]]
    assert masked.positions.tolist() == [2, 4]
    assert masked.targets.tolist() == [4, 6]


def test_a_kept_word_is_still_a_target():
    masked = mask_words(
        FOUR_WORDS,
        noise_for([0.9, 0.1, 0.2, 0.3, 0.4, 0.9, 0.9, 0.9], action=[0.95] * 8, draw=[0.0] * 8),
        ratio=0.15,
        vocab_size=VOCAB,
    )
    assert torch.equal(masked.ids, FOUR_WORDS)
    assert not masked.hidden.any()
    assert (masked.positions.tolist(), masked.targets.tolist()) == ([1], [3])


@pytest.mark.parametrize(
    ("words", "ratio", "chosen"),
    [(1, 0.15, 1), (6, 0.15, 1), (10, 0.15, 2), (20, 0.15, 3), (4, 1.0, 4), (0, 0.15, 0)],
)
def test_ratio_is_rounded_half_up_and_at_least_one_word_is_chosen(words, ratio, chosen):
    tokens = torch.tensor([[SOT, *[1 + i % 9 for i in range(words)], EOT]])
    masked = mask_words(tokens, seeded_noise(1, 24), ratio=ratio, vocab_size=VOCAB)
    assert len(masked.targets) == chosen


def test_sot_eot_and_pads_are_never_touched_even_when_every_word_is():
    tokens = torch.tensor([[SOT, 1, 2, EOT, 0, 0], [SOT, EOT, 0, 0, 0, 0], [SOT, 7, 8, 9, 3, EOT]])
    for seed in range(20):
        masked = mask_words(tokens, seeded_noise(3, 6, seed), ratio=1.0, vocab_size=VOCAB)
        assert masked.positions.tolist() == [1, 2, 13, 14, 15, 16]
        assert masked.targets.tolist() == [1, 2, 7, 8, 9, 3]
        untouched = ~torch.isin(torch.arange(18).view(3, 6), masked.positions)
        assert torch.equal(masked.ids[untouched], tokens[untouched])
        assert not masked.hidden[untouched].any()


def test_the_place_of_eot_never_moves():
    tokens = long_captions()
    masked = mask_words(tokens, seeded_noise(2_000, 22), ratio=1.0, vocab_size=100)
    assert (masked.ids.argmax(dim=1) == 21).all()
    assert (masked.ids == 99).sum() == 2_000


def test_chosen_words_are_masked_replaced_and_kept_80_10_10():
    # 6,000 chosen: the standard error of a share of 0.1 is 0.004
    tokens = long_captions()
    masked = mask_words(tokens, seeded_noise(2_000, 22), ratio=0.15, vocab_size=100)
    hidden = masked.hidden.flatten()[masked.positions]
    changed = masked.ids.flatten()[masked.positions] != masked.targets
    assert len(hidden) == 6_000
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.02)
    # one replacement in 97 is the word itself
    assert (changed & ~hidden).float().mean().item() == pytest.approx(0.1 * 96 / 97, abs=0.015)
    assert (masked.ids.flatten()[masked.positions][hidden] == 0).all()


def test_replacements_are_word_ids_only_and_any_of_them():
    noise = seeded_noise(2_000, 22)
    noise[1] = 0.85
    masked = mask_words(long_captions(), noise, ratio=1.0, vocab_size=VOCAB + 88)
    assert masked.ids[:, 1:-1].unique().tolist() == list(range(1, 98))


@pytest.mark.parametrize(("draw", "word"), [(0.0, 1), (1 - 2**-24, 49_405)])
def test_replacements_at_the_ends_of_the_full_vocabulary_are_words(draw, word):
    noise = torch.tensor([0.5, 0.85, draw])[:, None, None].expand(3, 1, 3)
    masked = mask_words(torch.tensor([[49_406, 320, 49_407]]), noise, ratio=1.0, vocab_size=49_408)
    assert masked.ids.tolist() == [[49_406, word, 49_407]]


def test_a_piece_the_corpus_lacks_is_context_and_neither_chosen_nor_drawn():
    tokenizer = Tokenizer(16, corpus_rows(["a red car"]))
    tokens = tokenizer(["a zebra car", "zebra"])
    assert maskable(tokens).tolist() == [[False, True, False, True, False], [False] * 5]
    masked = mask_words(tokens, seeded_noise(2, 16), ratio=1.0, vocab_size=tokenizer.vocab_size)
    assert masked.targets.tolist() == tokens[0, [1, 3]].tolist()


def test_masking_is_a_pure_function_of_tokens_and_generator():
    tokens = long_captions(50)
    before = tokens.clone()
    state = torch.get_rng_state()
    one, two, other = (
        mask_words(tokens, seeded_noise(50, 30, seed), ratio=0.15, vocab_size=100)
        for seed in (3, 3, 4)
    )
    assert torch.equal(tokens, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.positions, other.positions)


def test_the_same_words_are_hidden_in_a_longer_cut_and_on_two_processes():
    tokens = torch.tensor([[SOT, 1, 2, 3, EOT], [SOT, 4, 5, EOT, 0], [SOT, 6, 7, 8, EOT]])
    longer = torch.cat([tokens, torch.zeros(3, 2, dtype=torch.long)], dim=1)
    noise = seeded_noise(3, 16)
    whole = mask_words(tokens, noise, ratio=0.5, vocab_size=VOCAB)
    cut_later = mask_words(longer, noise, ratio=0.5, vocab_size=VOCAB)
    first = mask_words(tokens[:2], noise[:, :2], ratio=0.5, vocab_size=VOCAB)
    second = mask_words(tokens[2:], noise[:, 2:], ratio=0.5, vocab_size=VOCAB)
    assert torch.equal(cut_later.ids[:, :5], whole.ids)
    assert torch.equal(cut_later.targets, whole.targets)
    assert torch.equal(torch.cat([first.ids, second.ids]), whole.ids)
    assert torch.equal(torch.cat([first.targets, second.targets]), whole.targets)
