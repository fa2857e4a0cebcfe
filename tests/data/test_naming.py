"""What a drawing's name means, on names of each kind."""

import pytest

from harness.data.naming import captions_of, flag, parse, plain

NAMES = {
    "farmer", "man farmer", "woman farmer", "man biking", "woman biking", "person biking",
    "man dancing", "woman dancing", "man red hair", "woman red hair", "red hair", "man bald",
    "woman bald", "person bald", "deaf man", "ninja", "thumbs up", "man with veil",
    "woman with veil", "woman with headscarf", "artist", "man artist", "woman artist",
}  # fmt: skip


def meaning(words: str):
    return parse(words, NAMES)


def test_plain_name_has_no_markup():
    assert plain(":woman_farmer_medium-dark_skin_tone:") == "woman farmer medium-dark skin tone"
    assert plain(":Antigua_&_Barbuda:") == "Antigua and Barbuda"
    assert plain(":woman\u2019s_hat:") == "woman's hat"


@pytest.mark.parametrize(
    ("words", "role", "gender", "tones", "kind"),
    [
        ("woman farmer medium-dark skin tone", "farmer", "woman", ("medium-dark",), "person"),
        ("farmer dark skin tone", "farmer", "person", ("dark",), "person"),
        ("man biking", "person biking", "man", (), "person"),
        ("woman dancing light skin tone", "person dancing", "woman", ("light",), "person"),
        ("man medium skin tone red hair", "person with red hair", "man", ("medium",), "person"),
        ("woman bald", "bald person", "woman", (), "person"),
        ("deaf man", "deaf person", "man", (), "person"),
        ("mermaid light skin tone", "merperson", "woman", ("light",), "person"),
        ("old man", "older person", "man", (), "person"),
        ("woman with headscarf", "woman with headscarf", "", (), "person"),
        ("ninja medium-light skin tone", "ninja", "", ("medium-light",), "person"),
        ("red hair", "red hair", "", (), "thing"),
        ("thumbs up dark skin tone", "thumbs up", "", ("dark",), "thing"),
        ("light skin tone", "light skin tone", "", (), "thing"),
        ("men wrestling light skin tone dark skin tone", "people wrestling", "man",
         ("light", "dark"), "group"),
        ("kiss woman man light skin tone dark skin tone", "kiss", "woman and man",
         ("light", "dark"), "group"),
        ("couple with heart person person light skin tone medium skin tone", "couple with heart",
         "person and person", ("light", "medium"), "group"),
        ("kiss mark", "kiss mark", "", (), "thing"),
    ],
)  # fmt: skip
def test_factors_of_a_name(words, role, gender, tones, kind):
    found = meaning(words)
    assert (found.role, found.gender, found.tones, found.kind) == (role, gender, tones, kind)


@pytest.mark.parametrize(
    ("words", "captions"),
    [
        (
            "woman artist medium-dark skin tone",
            (
                "a woman artist with medium-dark skin tone",
                "a drawing of a woman artist, medium-dark skin tone",
                "the emoji called woman artist, medium-dark skin tone",
            ),
        ),
        ("artist", ("an artist", "a drawing of an artist", "the emoji called artist")),
        (
            "man with veil light skin tone",
            (
                "a man with veil and light skin tone",
                "a drawing of a man with veil, light skin tone",
                "the emoji called man with veil, light skin tone",
            ),
        ),
        (
            "kiss woman man light skin tone dark skin tone",
            (
                "a kiss between a woman and a man in light and dark skin tones",
                "a drawing of a kiss between a woman and a man, light and dark skin tones",
                "the emoji called kiss between a woman and a man, light and dark skin tones",
            ),
        ),
        (
            "family man woman girl boy",
            (
                "a family of a man, a woman, a girl and a boy",
                "a drawing of a family of a man, a woman, a girl and a boy",
                "the emoji called family of a man, a woman, a girl and a boy",
            ),
        ),
        ("keycap 3", ("keycap 3", "an icon for keycap 3", "the emoji called keycap 3")),
        (
            "thumbs up dark skin tone",
            (
                "thumbs up with dark skin tone",
                "an icon for thumbs up, dark skin tone",
                "the emoji called thumbs up, dark skin tone",
            ),
        ),
    ],
)
def test_captions_say_what_the_name_says(words, captions):
    assert captions_of(meaning(words)) == captions


@pytest.mark.parametrize(
    ("land", "caption"),
    [
        ("France", "the flag of France"),
        ("United States", "the flag of the United States"),
        ("Faroe Islands", "the flag of the Faroe Islands"),
        ("Heard Island and McDonald Islands", "the flag of Heard Island and McDonald Islands"),
    ],
)
def test_a_land_is_captioned_as_its_flag(land, caption):
    assert captions_of(flag(land))[0] == caption
