"""What the English name of a drawing says: role, gender, skin tones, and honest captions of it.

Owns the grammar of Unicode's emoji names (CLDR, as the `emoji` package spells them); knows no file,
no split and no picture.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
GENDERS = ("man", "woman", "person")

_TONE = re.compile(r"\b(medium-light|medium-dark|light|medium|dark) skin tone\b")
_HAIR = {
    "red hair": "with red hair",
    "curly hair": "with curly hair",
    "white hair": "with white hair",
    "blond hair": "with blond hair",
    "beard": "with beard",
}
#: name -> (role, gender), where the three genders of a role have names of their own.
_IRREGULAR = {
    "merman": ("merperson", "man"),
    "mermaid": ("merperson", "woman"),
    "merperson": ("merperson", "person"),
    "prince": ("person with crown", "man"),
    "princess": ("person with crown", "woman"),
    "person with crown": ("person with crown", "person"),
    "old man": ("older person", "man"),
    "old woman": ("older person", "woman"),
    "older person": ("older person", "person"),
}
_PERSONS = frozenset(
    {"baby", "baby angel", "ballet dancer", "boy", "girl", "child", "ninja", "skier", "snowboarder"}
)
_PLURAL = {"men": "man", "women": "woman", "people": "person"}
_THE = re.compile(
    r"^(United |U\.S\. |European Union|Bahamas|Comoros|Gambia|Maldives|Netherlands|Caribbean N"
    r"|Philippines|Seychelles|Isle of Man|Dominican Republic|Central African|British )"
    r"|^(?!Heard|South Georgia).*(Islands|Territory|Territories|Lands)$"
)


@dataclass(frozen=True)
class Meaning:
    """A parsed name.

    Attributes:
        phrase: the name in words, without skin tones ("woman health worker").
        article: what goes before it in a sentence ("a", "an", "the" or nothing).
        role: the name without its gender ("health worker", "person biking", "thumbs up").
        gender: "man", "woman" or "person" where the role has gendered names; two or more are
            joined by " and " in couples; else "".
        tones: the skin tones, left person first; empty for the plain yellow drawing.
        kind: "person" (one), "group" (several), "flag" or "thing".
    """

    phrase: str
    article: str
    role: str
    gender: str
    tones: tuple[str, ...]
    kind: str

    @property
    def titled(self) -> str:
        """The phrase with its article."""
        return f"{self.article} {self.phrase}" if self.article else self.phrase


def plain(name: str) -> str:
    """`:woman_health_worker_dark_skin_tone:` -> `woman health worker dark skin tone`."""
    words = name.strip(":").replace("_", " ").replace("\u2019", "'").replace(" & ", " and ")
    return " ".join(words.split())


def untoned(words: str) -> str:
    """A plain name without its skin tones."""
    return " ".join(_TONE.sub(" ", words).split())


def parse(words: str, names: Container[str]) -> Meaning:
    """The meaning of a plain name; `names` holds every plain name there is, without tones.

    `names` tells `farmer`, the neutral form of `man farmer` and `woman farmer`, from `ninja`,
    which has no gender.
    """
    tones = tuple(_TONE.findall(words))
    base = untoned(words)
    return _several(base, tones) or _one_person(base, tones, names) or _thing(base, tones)


def flag(words: str) -> Meaning:
    """The flag of the country or region that `words` names."""
    land = f"the {words}" if _THE.search(words) else words
    return Meaning(f"flag of {land}", "the", f"flag of {land}", "", (), "flag")


def _several(base: str, tones: tuple[str, ...]) -> Meaning | None:
    first, _, rest = base.partition(" ")
    if first in _PLURAL and rest:
        return Meaning(base, "", f"people {rest}", _PLURAL[first], tones, "group")
    if base == "woman and man holding hands":
        return Meaning(base, "a", "people holding hands", "woman and man", tones, "group")
    if base == "handshake":
        return Meaning(base, "a", base, "", tones, "group")
    members = base.split()
    if members[:1] == ["kiss"] and base != "kiss mark":
        return _couple("kiss", "kiss between", members[1:], tones)
    if members[:3] == ["couple", "with", "heart"]:
        return _couple("couple with heart", "couple with heart,", members[3:], tones)
    if members[:1] == ["family"] and len(members) > 1:
        phrase = f"family of {_listed(members[1:])}"
        return Meaning(phrase, "a", phrase, "", tones, "group")
    return None


def _couple(role: str, intro: str, members: list[str], tones: tuple[str, ...]) -> Meaning:
    # "kiss" alone and "kiss: person, person" are one drawing, with equal and unequal tones.
    if members in ([], ["person", "person"]):
        return Meaning(role, "a", role, "person and person", tones, "group")
    return Meaning(f"{intro} {_listed(members)}", "a", role, " and ".join(members), tones, "group")


def _listed(members: list[str]) -> str:
    *most, last = [with_article(member) for member in members]
    return f"{', '.join(most)} and {last}" if most else last


def _one_person(base: str, tones: tuple[str, ...], names: Container[str]) -> Meaning | None:
    role, gender, phrase = _role_of(base, names)
    if not gender and base not in _PERSONS and not base.startswith(("person ", "woman ", "man ")):
        return None
    article = with_article(phrase).partition(" ")[0]
    return Meaning(phrase, article, role, gender, tones, "person")


def _role_of(base: str, names: Container[str]) -> tuple[str, str, str]:
    """(role, gender or "", phrase) of a name that may be a person's."""
    if base in _IRREGULAR:
        return (*_IRREGULAR[base], base)
    if base in GENDERS:
        return "person", base, base
    is_hair = base in _HAIR or base == "bald"  # the bare component has a drawing too
    if not is_hair and f"man {base}" in names and f"woman {base}" in names:
        return base, "person", base
    first, _, rest = base.partition(" ")
    if rest in GENDERS and first in {"deaf", "pregnant"}:
        return f"{first} person", rest, base
    if first not in GENDERS or not _has_two_genders(rest, names):
        return base, "", base
    if rest == "bald":
        return "bald person", first, f"bald {first}"
    rest = _HAIR.get(rest, rest)
    role = rest if rest in names and f"person {rest}" not in names else f"person {rest}"
    return role, first, f"{first} {rest}"


def _has_two_genders(rest: str, names: Container[str]) -> bool:
    return rest in names or sum(f"{gender} {rest}" in names for gender in GENDERS) > 1


def _thing(base: str, tones: tuple[str, ...]) -> Meaning:
    if not base:  # the five swatches of skin tone
        words = f"{tones[0]} skin tone"
        return Meaning(words, "", words, "", (), "thing")
    return Meaning(base, "", base, "", tones, "thing")


def with_article(noun: str) -> str:
    """`a` or `an` before a noun, by its first letter (right for every role there is)."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def phrase_of(role: str, gender: str) -> str:
    """The name of a role with its gender: `woman biking` of `person biking`."""
    if role.startswith("person "):
        return f"{gender}{role.removeprefix('person')}"
    return f"{gender} {role}"


def captions_of(meaning: Meaning) -> tuple[str, ...]:
    """Three captions, each saying all that the name says and nothing else."""
    shown = "an icon for" if meaning.kind == "thing" else "a drawing of"
    titled, named = f"{shown} {meaning.titled}", f"the emoji called {meaning.phrase}"
    if not meaning.tones:
        return meaning.titled, titled, named
    many = "s" if len(meaning.tones) > 1 else ""
    tones = f"{' and '.join(meaning.tones)} skin tone{many}"
    return _toned(meaning, tones), f"{titled}, {tones}", f"{named}, {tones}"


def _toned(meaning: Meaning, tones: str) -> str:
    if meaning.kind == "group":
        return f"{meaning.titled} in {tones}"
    joined = "and" if " with " in meaning.phrase else "with"
    return f"{meaning.titled} {joined} {tones}"
