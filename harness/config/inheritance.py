"""What a run takes from finished models, in words and in numbers: blocks to start from, teachers.

TinyCLIP (Wu et al., ICCV 2023) starts a small model from chosen weights of a trained larger one,
and lets it imitate that one; here the choice of weights is of whole blocks, by a rule or by hand.
Knows no run and no weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import ConfigError

RULES = ("first", "even")
FORMS = (
    "'even of 12', 'first of 12', '0,4,11 of 12', and with a run's key in place of the 12 layers "
    "'even of run 1a2b'"
)
_DEPTH, _KEY = r"(\d+)layers?", r"run([0-9a-f]{4,12})"
TEACHER_FORMS = (
    "'12 layers' of the same run, 'run 1a2b' with a run's key, the path of an export's folder "
    "(with a slash), and 'ViT-B-32:PATH' with open_clip's name of a checkpoint's architecture"
)
_FORM = re.compile(r"(first|even|\d+(?:,\d+)*)of(?:(\d+)|run([0-9a-f]{4,12}))")


@dataclass(frozen=True)
class Inheritance:
    """`model.text.init` as it is understood.

    Attributes:
        take: a rule of `RULES`, or the blocks themselves, counted from 0.
        layers: depth of the parent, the same run but for its depth; None with `run`.
        run: key of any finished run, or how that begins; None with `layers`.
    """

    take: str | tuple[int, ...]
    layers: int | None = None
    run: str | None = None

    def __str__(self) -> str:
        take = self.take if isinstance(self.take, str) else ",".join(map(str, self.take))
        return f"{take} of {self.layers if self.run is None else f'run {self.run}'}"

    def blocks(self, wanted: int, there: int) -> tuple[int, ...]:
        """The parent's block for each of `wanted` blocks, of a parent that has `there`.

        `first`: block i is block i.  `even`: block i is the one nearest to i (there - 1) /
        (wanted - 1), halves upwards, so that the first and the last are among them; a tower of one
        block takes the first.

        Raises:
            ConfigError: the parent is no deeper, or the blocks named are not `wanted` of its own.
        """
        if there <= wanted:
            raise ConfigError(
                f"model.text.init = {str(self)!r}: a tower of {wanted} layers can start from a "
                f"deeper one alone, and its parent has {there}"
            )
        if self.take == "first" or (wanted == 1 and self.take == "even"):
            return tuple(range(wanted))
        if self.take == "even":
            steps = wanted - 1
            return tuple((2 * i * (there - 1) + steps) // (2 * steps) for i in range(wanted))
        return self._named(wanted, there)

    def _named(self, wanted: int, there: int) -> tuple[int, ...]:
        named = tuple(int(block) for block in self.take)
        if len(named) != wanted:
            raise ConfigError(
                f"model.text.init = {str(self)!r} names {len(named)} blocks for a tower of "
                f"{wanted} layers"
            )
        absent = [str(block) for block in named if block >= there]
        if absent:
            raise ConfigError(
                f"model.text.init = {str(self)!r} names block {', '.join(absent)}, which a parent "
                f"of {there} layers lacks; its blocks: 0 to {there - 1}"
            )
        return named


def read_inheritance(text: str) -> Inheritance:
    """`text` in one of `FORMS`, spaces aside; raises ConfigError that shows them."""
    found = _FORM.fullmatch("".join(text.split()))
    if found is None:
        raise ConfigError(f"model.text.init = {text!r} is not understood; allowed are {FORMS}")
    take, layers, run = found.groups()
    blocks = take if take in RULES else tuple(int(block) for block in take.split(","))
    return Inheritance(blocks, None if layers is None else int(layers), run)


@dataclass(frozen=True)
class TeacherName:
    """One of `teacher.models` as it is understood; one of layers, run and path is given.

    Attributes:
        layers: depth of the teacher's text tower, which is else of the same run.
        run: key of any finished run, or how that begins.
        path: an export's folder; with `architecture`, open_clip's name, a file of weights.
    """

    layers: int | None = None
    run: str | None = None
    path: str | None = None
    architecture: str | None = None

    def __str__(self) -> str:
        if self.path is None:
            return f"run {self.run}" if self.layers is None else f"{self.layers} layers"
        return self.path if self.architecture is None else f"{self.architecture}:{self.path}"


def read_teacher(text: str) -> TeacherName:
    """`text` in one of `TEACHER_FORMS`; raises ConfigError that shows them."""
    joined = "".join(text.split())
    if found := re.fullmatch(_DEPTH, joined):
        return TeacherName(layers=int(found[1]))
    if found := re.fullmatch(_KEY, joined):
        return TeacherName(run=found[1])
    name, colon, path = text.strip().partition(":")
    if colon and name and path and "/" not in name:
        return TeacherName(path=path, architecture=name)
    if "/" in text:
        return TeacherName(path=text.strip())
    raise ConfigError(f"teacher {text!r} is not understood; allowed are {TEACHER_FORMS}")
