"""What a class is called in a prompt: by its folder, by a list, or by WordNet.

Owns how the names that data have for their classes (folders, numbers, WordNet ids) become words,
and says so wherever the word is another.  Torch-free; knows nothing of files of pictures.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import DataError, unknown
from harness.files import home_path

WORDNET = "wordnet"
NAMES_FILE = "classnames.txt"
TEMPLATES_FILE = "zeroshot_classification_templates.txt"

_ID = re.compile(r"(n\d{8})(?:[-_ .](.+))?")
_NUMBERED = re.compile(r"\d+[-_. ]+(?=\D)(.+)")
_SHOWN = 3


def prompts(classnames: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template filled with every class name, class by class (C x T texts)."""
    return [template.replace("{c}", name) for name in classnames for template in templates]


def spelt(folder: str) -> str:
    """The words of a folder's name: `_` and `-` are spaces, letters and accents are one."""
    return unicodedata.normalize("NFC", folder.replace("_", " ").replace("-", " ").strip())


def folded(name: str) -> str:
    """What two names of one class have in common."""
    return " ".join(spelt(name).casefold().split())


def class_names(
    classes: Sequence[str], given: tuple[str, ...] | str | None, shipped: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """The name of each class in a prompt, and notes on those that are not as the data have them.

    Args:
        classes: what the data call each class (folders, labels), by label.
        given: the names, a file of them (a line a class, or JSON: a list, or an object by class),
            or `wordnet`; None: those shipped, or else what `classes` say: WordNet ids have the
            names that open_clip gives ImageNet's classes, and numbers before all names go.
        shipped: the names that lie beside the data.

    Raises DataError for another number of names than classes, an id that WordNet lacks, and two
    classes of one name.
    """
    if given == WORDNET:
        names = [_of_wordnet(each, curated=False) for each in classes]
    elif given is not None:
        names = _listed(classes, given)
    elif shipped is not None:
        names = _in_order(classes, shipped, NAMES_FILE)
    else:
        names = _from_folders(classes)
        _refuse_one_name(classes, names)
    return tuple(names), _notes(classes, names)


# --------------------------------------------------------------------------- lists of names


def listed_names(given: tuple[str, ...] | str | None) -> Sequence[str]:
    """The names that are given in an order; none where they are given otherwise."""
    if given is None or given == WORDNET:
        return ()
    names = names_in(home_path(given)) if isinstance(given, str) else given
    return () if isinstance(names, Mapping) else names


def _listed(classes: Sequence[str], given: tuple[str, ...] | str) -> list[str]:
    if not isinstance(given, str):
        return _in_order(classes, given, "classnames")
    names = names_in(home_path(given))
    if isinstance(names, Mapping):
        absent = [each for each in classes if each not in names]
        if absent:
            raise DataError(f"{given}: {unknown('class', absent[0], names)}")
        return [names[each] for each in classes]
    return _in_order(classes, names, given)


def names_in(file: Path) -> list[str] | dict[str, str]:
    """The names of a file: a line a class, or JSON; DataError when it cannot be read."""
    text = text_of(file)
    if file.suffix.lower() != ".json":
        return lines_of(text)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    names = list(tree.values()) if isinstance(tree, dict) else tree
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} is neither a list of class names nor an object of them by class")
    return dict(tree) if isinstance(tree, dict) else names


def text_of(file: Path) -> str:
    """The text of a small file; DataError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def lines_of(text: str) -> list[str]:
    """The lines of a list of names or templates, without those at the end that are empty."""
    return [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []


def _in_order(classes: Sequence[str], names: Sequence[str], of: str) -> list[str]:
    """The names that belong to the classes: by what they say, by number, or in order."""
    if len(names) != len(classes):
        raise DataError(f"{of} has {len(names):,} names, and there are {len(classes):,} classes")
    by_name = {folded(name): name for name in names}
    if len(by_name) == len(names) and all(folded(each) in by_name for each in classes):
        return [by_name[folded(each)] for each in classes]
    numbers = all(each.isdecimal() for each in classes)
    order = sorted(classes, key=int if numbers else _as_it_is)
    places = {each: place for place, each in enumerate(order)}
    return [names[places[each]] for each in classes]


def _as_it_is(text: str) -> Any:
    return text


# --------------------------------------------------------------------------- names of folders


def _from_folders(classes: Sequence[str]) -> list[str]:
    numbered = [_NUMBERED.fullmatch(each) for each in classes]
    if all(numbered):
        return [spelt(found[1]) for found in numbered if found is not None]
    return [_of_wordnet(each) if _ID.fullmatch(each) else spelt(each) for each in classes]


def _of_wordnet(folder: str, *, curated: bool = True) -> str:
    """The name of a WordNet id, or what stands after the id in a folder's name."""
    found = _ID.fullmatch(folder)
    if found is None:
        raise DataError(f"classnames=wordnet: class {folder!r} is no WordNet id such as n01440764")
    if found[2]:
        return spelt(found[2])
    ids, names = wordnet_ids("imagenet_synsets.txt"), shipped_names("imagenet1k")
    known = dict(zip(ids, names, strict=True)) if curated else {}
    name = known.get(found[1]) or lemmas().get(found[1])
    if name is None:
        raise DataError(f"class {folder!r} is no WordNet id that is known; classnames=... names it")
    return name


def _refuse_one_name(classes: Sequence[str], names: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for each, name in zip(classes, names, strict=True):
        other = first.setdefault(" ".join(name.casefold().split()), each)
        if other != each and not _ID.fullmatch(each):
            raise DataError(
                f"two classes are called {name!r} ({other} and {each}); rename one, or name them "
                "with classnames=..."
            )


def _notes(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    notes = []
    pairs = [(each, name) for each, name in zip(classes, names, strict=True) if each != name]
    renamed = [f"{each} = {name}" for each, name in pairs if name != spelt(each)]
    if renamed:
        notes.append(f"names of classes in prompts: {_some(renamed)}")
    numbers = [name for name in names if name.isdecimal()]
    if numbers:
        notes.append(
            f"classes that are called by numbers in prompts, {len(numbers):,}: {_some(numbers)}; "
            "classnames=... names them"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        notes.append(f"several classes have one name in prompts: {_some(twice)}")
    return notes


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


# --------------------------------------------------------------------------- tables of packages


@lru_cache(maxsize=4)
def shipped_table(file: str) -> dict[str, Any]:
    """A table that CLIP_benchmark ships, read without importing it (which takes torch)."""
    found: dict[str, Any] = json.loads(text_of(_package("clip_benchmark") / "datasets" / file))
    return found


def shipped_names(name: str) -> tuple[str, ...]:
    """The curated names of CLIP_benchmark's classes `name`; DataError if there are none."""
    found = shipped_table("en_classnames.json").get(name)
    if found is None:
        raise DataError(f"clip-benchmark has no class names {name!r}")
    return tuple(found)


@lru_cache(maxsize=4)
def wordnet_ids(file: str) -> tuple[str, ...]:
    """The WordNet ids of a table of timm, in the order of the labels."""
    return tuple(text_of(_timm(file)).split())


@lru_cache(maxsize=1)
def lemmas() -> Mapping[str, str]:
    """The first lemma of each WordNet id of ImageNet-21k."""
    lines = text_of(_timm("imagenet_synset_to_lemma.txt")).splitlines()
    pairs = (line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid: words.split(",")[0].strip() for wnid, words in pairs}


def _timm(file: str) -> Path:
    return _package("timm") / "data" / "_info" / file


def _package(name: str) -> Path:
    spec = find_spec(name)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        return Path(folder)
    raise DataError(f"package {name} is not installed: its tables of names are wanted")
