"""Words and the pieces that stand for them."""

from harness.data.text import Tokenizer, Word, corpus_rows


def test_pieces_of_one_word_are_one_word_whatever_its_letters():
    words = Tokenizer(32).words("Two firefighters, a café quokka 🧑‍🚒")
    assert [word.text for word in words] == [
        *("two", "firefighters", ",", "a", "café", "quokka", "🧑‍🚒"),
    ]
    assert [word.pieces for word in words] == [1, 1, 1, 1, 1, 3, 5]


def test_words_cover_what_is_encoded_and_in_its_order():
    tokenizer, text = Tokenizer(32), "A quokka's café; jambalaya & surfing"
    ids = tokenizer.encode(text)[1:-1]
    words = tokenizer.words(text)
    alone = [tokenizer.encode(word.text)[1:-1] for word in words]
    assert [len(pieces) for pieces in alone] == [word.pieces for word in words]
    assert [piece for pieces in alone for piece in pieces] == ids


def test_a_text_too_long_ends_with_what_is_left_of_a_word():
    assert Tokenizer(5).words("two red quokka") == [
        Word("two", 1, True),
        Word("red", 1, True),
        Word("qu", 1, True),
    ]


def test_a_word_is_unknown_when_the_corpus_lacks_one_of_its_pieces():
    tokenizer = Tokenizer(32, corpus_rows(["a red qu"]))
    assert tokenizer.words("a quokka red") == [
        Word("a", 1, True),
        Word("quokka", 3, False),
        Word("red", 1, True),
    ]


def test_a_text_of_nothing_has_no_words():
    assert Tokenizer(8).words(" ") == []
