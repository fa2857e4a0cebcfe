"""The teachers of a run: finished models that say of each batch what the loss imitates.

They see the pictures of the batch, cropped alike at their own size and normalised as they are used
to, and the captions, which each splits into tokens itself.  They learn nothing and draw nothing:
what they say is a function of the step, as the batch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.config import ImageTower, RunConfig, Runtime
from harness.config.inheritance import TeacherName, read_teacher
from harness.data.dataset import DataSet
from harness.data.loader import Batch, Lesson, Lessons
from harness.data.transforms import normalise
from harness.device import placed, upload
from harness.errors import ConfigError, RecordError
from harness.evaluate.embed import encoding, lengths_of
from harness.evaluate.model import Encoders, Identity, identity_of_run
from harness.evaluate.open_clip_model import load_checkpoint, load_export
from harness.models.export import load_model
from harness.models.teachers import check_content, content_of
from harness.objectives.taught import TaughtPairs
from harness.store.record import RunDir
from harness.train.checkpoint import load_weights
from harness.train.distributed import ProcessGroup

_CHECKED = 2_000
"""Samples whose captions' length is looked at before training."""


class Teachers(Protocol):
    """Those of a run, all of them.

    Attributes:
        lessons: what a batch must hold for them.
        record: what each one is, for the run's records.
    """

    lessons: Lessons
    record: list[dict[str, str]]

    def embed(self, batch: Batch) -> TaughtPairs:
        """What they make of the pairs of a batch."""


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher in evaluation mode.

    Attributes:
        name: what an error calls it.
        size, image: of the pictures that it takes.
        record: what it is: `run` and `checkpoint`, or `content`.
    """

    name: str
    model: Encoders
    size: int
    image: ImageTower
    record: dict[str, str]

    def embed(
        self, pictures: Tensor, captions: Sequence[str], precision: str
    ) -> tuple[Tensor, Tensor]:
        """Unit-norm embeddings (N, D) of pictures uint8 (N, S, S, 3) and of N captions."""
        device = next(self.model.parameters()).device
        with encoding(self.model, precision):
            image = self.model.encode_image(normalise(upload(pictures, device), self.image))
            tokens = self.model.tokenizer(captions)
            tokens = tokens[:, : int(lengths_of(tokens).max())]
            text = self.model.encode_text(upload(tokens, device))
        # Tensors of inference mode cannot take part in a loss; their copies can.
        return image.float().clone(), text.float().clone()

    @property
    def scale(self) -> float:
        """exp(logit_scale) that it was trained with."""
        return float(self.model.logit_scale.detach().float().exp())


class LiveTeachers:
    """Teachers that embed each batch when it is there."""

    def __init__(self, teachers: Sequence[LoadedTeacher], own_size: int, precision: str) -> None:
        self._teachers, self._own_size, self._precision = teachers, own_size, precision
        sizes = dict.fromkeys(t.size for t in teachers if t.size != own_size)
        self.lessons = Lessons(tuple(sizes))
        self.record = [teacher.record for teacher in teachers]

    def embed(self, batch: Batch) -> TaughtPairs:
        """See Teachers."""
        lesson = _lesson_of(batch)
        made: list[Tensor] = []
        for teacher in self._teachers:
            pictures = lesson.pictures.get(teacher.size, batch.pictures)
            image, text = teacher.embed(pictures, lesson.captions, self._precision)
            made += [image, text, torch.full((len(image),), teacher.scale, device=image.device)]
        return TaughtPairs(made)


def _lesson_of(batch: Batch) -> Lesson:
    assert batch.lesson is not None  # the loader was told of the teachers
    return batch.lesson


# --------------------------------------------------------------------------- before training


def open_teachers(
    config: RunConfig,
    data: DataSet,
    runtime: Runtime,
    directory: RunDir | None,
    group: ProcessGroup,
    device: torch.device,
    precision: str,
) -> Teachers | None:
    """The teachers of a run, checked and on its device; None where no term wants any.

    Args:
        directory: of the run, for the first of its processes; it tells the others where runs lie.

    Raises:
        ConfigError: one cannot be read, is not the one of the run's key, gives what is no number,
            or cuts captions that the run does not.
        RecordError: it is a run that has not finished, or was trained anew since the run began.
    """
    if "teacher" in config.idle():
        return None
    own = None if directory is None else directory.path.resolve().parent
    told = group.broadcast(lambda: str(own).encode())
    runs = Path(told.decode()) if told is not None else own
    assert runs is not None
    pairs = zip(config.teacher.models, config.teacher.content or (), strict=True)
    teachers = [load_teacher(read_teacher(text), content, runs) for text, content in pairs]
    for teacher in teachers:
        placed(teacher.model, device)  # type: ignore[type-var]
        check_numbers(teacher, precision)
    captions = some_captions(data)
    for teacher in teachers:
        check_lengths(teacher, captions, config, runtime)
    found = LiveTeachers(teachers, config.model.image.size, precision)
    if directory is not None:
        _note(found.record, directory)
    return found


def load_teacher(name: TeacherName, content: str, runs: Path) -> LoadedTeacher:
    """The teacher of that name and content, on the CPU; `runs` is the folder of all runs."""
    if name.path is None:
        model, identity, record = _load_run(RunDir(runs / content.rpartition(" ")[2]))
    else:
        found, _ = content_of(name)
        check_content(str(name), found, content)
        path = Path(name.path).expanduser()
        model, identity = (
            load_export(path)
            if name.architecture is None
            else load_checkpoint(name.architecture, path)
        )
        record = {"content": content}
    size = _side(identity.preprocessing["size"], str(name))
    mean, std = (tuple(identity.preprocessing[field]) for field in ("mean", "std"))
    image = ImageTower(size=size, mean=mean, std=std)
    return LoadedTeacher(f"teacher {str(name)!r}", model, size, image, record)


def _load_run(run: RunDir) -> tuple[Encoders, Identity, dict[str, str]]:
    checkpoint = run.finished()["checkpoint"]
    model = load_model(run.read_config().model, load_weights(run.path, checkpoint))
    record = {"run": run.key, "checkpoint": checkpoint["sha256"]}
    return model, identity_of_run(model, checkpoint["sha256"]), record


def _side(size: Any, name: str) -> int:
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise ConfigError(f"teacher {name!r} takes pictures of {size} pixels, which are not square")
    return int(sides.pop())


def _note(record: list[dict[str, str]], directory: RunDir) -> None:
    """In the run's provenance; RecordError where it imitated others before it was cut off."""
    before = directory.noted("teachers")
    if before is not None and before != record:
        raise RecordError(
            f"run {directory.key} began with teachers that are not these any more: {before}, now "
            f"{record}; --rerun all begins it anew"
        )
    directory.complete_provenance(teachers=record)


# --------------------------------------------------------------------------- what is checked


def check_numbers(teacher: LoadedTeacher, precision: str) -> None:
    """ConfigError where a grey picture or a caption has no embedding, or a weight is no number."""
    pictures = torch.full((2, teacher.size, teacher.size, 3), 128, dtype=torch.uint8)
    found = teacher.embed(pictures, ["a photo of a cat", "two dogs"], precision)
    weights = all(bool(w.isfinite().all()) for w in teacher.model.parameters())
    if not weights or not all(bool(tensor.isfinite().all()) for tensor in found):
        raise ConfigError(f"{teacher.name} gives embeddings that are no numbers (NaN or infinite)")


def some_captions(data: DataSet) -> list[str]:
    """Those of some samples of `train`, spread over all."""
    captions = data.split("train").captions
    places = range(0, len(captions), max(1, len(captions) // _CHECKED))
    return [caption for place in places for caption in captions[place]]


def check_lengths(
    teacher: LoadedTeacher, captions: Sequence[str], config: RunConfig, runtime: Runtime
) -> None:
    """ConfigError where the teacher cuts captions that the run reads whole, more than is allowed.

    Allowed is what is allowed of unusable samples.
    """
    from harness.data.text import Tokenizer

    own = Tokenizer(config.model.text.context_length)
    cut = [
        c for c in captions if teacher.model.tokenizer.is_truncated(c) and not own.is_truncated(c)
    ]
    if len(cut) > runtime.max_bad_fraction * len(captions):
        raise ConfigError(
            f"{teacher.name} cuts {len(cut)} of {len(captions)} captions that this run reads "
            f"whole, more than runtime.max_bad_fraction = {runtime.max_bad_fraction:g} allows, "
            f"such as {min(cut, key=len)[:60]!r}; a smaller model.text.context_length, or a "
            "teacher with a longer one, is wanted"
        )
