"""The teachers of a run: finished models that say of each batch what the loss imitates.

They see the pictures of the batch, cropped alike at their own size and normalised as they are used
to, and the captions, which each splits into tokens itself.  They learn nothing and draw nothing:
what they say is a function of the step, as the batch is.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.config import Data, ImageTower, RunConfig, Runtime
from harness.config.inheritance import TeacherName, read_teacher
from harness.data.catalog import cache_dir, open_data
from harness.data.dataset import DataSet
from harness.data.images import BadImage, decode
from harness.data.loader import Batch, Lesson, Lessons
from harness.data.taught import Stored, Whole, open_store
from harness.data.text import Tokenizer
from harness.data.transforms import normalise
from harness.device import placed, upload
from harness.errors import ConfigError, DataError, RecordError
from harness.evaluate.embed import encoding, lengths_of
from harness.evaluate.model import Encoders, Identity, identity_of_run
from harness.evaluate.open_clip_model import load_checkpoint, load_export
from harness.files import home_path, one_name
from harness.models.export import load_model
from harness.models.teachers import check_content, content_of
from harness.objectives.taught import TaughtPairs
from harness.store.record import RunDir
from harness.train.checkpoint import load_weights
from harness.train.distributed import ProcessGroup

_DRAWN = ("crop_scale", "flip", "decode", "decoder", "captions", "resolution")
"""Fields of `data` by which captions and crops, or the content, are decided."""
_TRIED = 100
"""Samples without an embedding that are looked at before training."""
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

    @cached_property
    def scale(self) -> float:
        """exp(logit_scale) that it was trained with; read from the device once."""
        return float(self.model.logit_scale.detach().float().exp())


class LiveTeachers:
    """Teachers that embed each batch when it is there."""

    def __init__(self, teachers: Sequence[LoadedTeacher], own_size: int, precision: str) -> None:
        self._teachers, self._precision = teachers, precision
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


class StoredTeachers:
    """Teachers that embedded every sample beforehand, in as many views as a run sees.

    Args:
        name: of a sample of `train`, for errors.
    """

    def __init__(self, stores: Sequence[Whole], views: int, name: Callable[[int], str]) -> None:
        self._stores, self._name = stores, name
        self.lessons = Lessons(views=views)
        self.record = [store.record for store in stores]

    def embed(self, batch: Batch) -> TaughtPairs:
        """See Teachers; DataError where a sample has no embedding."""
        lesson = _lesson_of(batch)
        views, places = lesson.views.numpy(), lesson.places.numpy()
        made: list[Tensor] = []
        for store in self._stores:
            rows = torch.from_numpy(store.rows(views, places)).float()
            if (row := first_without_number(rows)) is not None:
                raise DataError(
                    f"{store.folder} has no embedding of {self._name(int(places[row]))}"
                )
            image, text = F.normalize(rows, dim=-1).unbind(dim=1)
            made += [image, text, torch.full((len(image),), store.scale)]
        return TaughtPairs(made)


def first_without_number(rows: Tensor) -> int | None:
    """The first of rows (N, ...) that holds NaN or an infinite value."""
    finite = rows.isfinite().flatten(1).all(dim=1)
    return None if bool(finite.all()) else int((~finite).nonzero()[0])


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
    found: Teachers
    if config.teacher.views is not None:
        stores = open_stores(config, data, runtime)
        for store in stores:
            _check_record(store, runs)
        found = StoredTeachers(stores, config.teacher.views, data.split("train").images.__getitem__)
    else:
        loaded = [load_teacher(name, content, runs) for name, content in _named(config)]
        for teacher in loaded:
            placed(teacher.model, device)  # type: ignore[type-var]
            check_teacher(teacher, data, config, runtime, precision)
        found = LiveTeachers(loaded, config.model.image.size, precision)
    if directory is not None:
        _note(found.record, directory)
    return found


def preflight_teachers(config: RunConfig, runtime: Runtime) -> None:
    """What can be told of teachers before runs are trained: of files, and of what is stored.

    Raises what `open_teachers` raises.
    """
    if "teacher" in config.idle():
        return
    data = open_data(config.data, runtime)
    if config.teacher.views is not None:
        open_stores(config, data, runtime)
        return
    for name, content in _named(config):
        if name.path is not None:
            teacher = load_teacher(name, content, Path())
            check_teacher(teacher, data, config, runtime, "fp32")


def _named(config: RunConfig) -> Iterator[tuple[TeacherName, str]]:
    """Each teacher's name and content."""
    contents = config.teacher.content or ()
    return zip(map(read_teacher, config.teacher.models), contents, strict=True)


def open_stores(config: RunConfig, data: DataSet, runtime: Runtime) -> list[Whole]:
    """What each teacher stored for the run; ConfigError where it is not there, or lacks samples."""
    cache, views = cache_dir(runtime), config.teacher.views or 1
    stores = []
    for (name, content), width in zip(_named(config), config.teacher.widths or (), strict=True):
        wanted = Stored.of(content, data.fingerprint, config.data, config.seed)
        remedy = f"{teach_command(config, name, content, runtime)} makes it"
        store = open_store(wanted, views, cache, remedy)
        _check_samples(store, width, data, runtime, remedy)
        stores.append(store)
    return stores


def teach_command(config: RunConfig, name: TeacherName, content: str, runtime: Runtime) -> str:
    """The command that stores what a run wants of a teacher."""
    data, usual = config.data, Data()
    where = str(name) if name.path is not None else content
    words = ["python", "-m", "harness.data", "teach", where, data.path or data.source]
    words += ["--views", str(config.teacher.views), "--seeds", str(config.seed)]
    words += ["--cache", runtime.cache] if runtime.cache is not None else []
    fields = {f: getattr(data, f) for f in _DRAWN if getattr(data, f) != getattr(usual, f)}
    sets = [f"data.{field}={json.dumps(value)}".replace(" ", "") for field, value in fields.items()]
    return shlex.join([*words, *(["--set", *sets] if sets else [])])


def _check_samples(store: Whole, width: int, data: DataSet, runtime: Runtime, remedy: str) -> None:
    """ConfigError where it is of other samples, or lacks one that can be used now."""
    images = data.split("train").images
    if (store.samples, store.width) != (len(images), width):
        raise ConfigError(
            f"{store.folder} holds {store.samples} samples in {store.width} dimensions, and "
            f"{len(images)} in {width} are wanted; {remedy}"
        )
    for place in store.missing[:_TRIED]:
        with suppress(BadImage, OSError, KeyError):
            decode(data.read(images[place]), max_pixels=runtime.max_pixels)
            raise ConfigError(
                f"{store.folder} lacks {len(store.missing)} of {store.samples} samples, and "
                f"{images[place]} can be used now; {remedy}"
            )


def _check_record(store: Whole, runs: Path) -> None:
    """ConfigError where the run that taught is here, and was trained anew since."""
    key = store.record.get("run")
    result = None if key is None else RunDir(runs / one_name(key)).result()
    if result is not None and result["checkpoint"]["sha256"] != store.record.get("checkpoint"):
        raise ConfigError(
            f"{store.folder} was stored with other weights of run {key} than it has now; the "
            "command that stored it makes it anew"
        )


def load_teacher(name: TeacherName, content: str, runs: Path) -> LoadedTeacher:
    """The teacher of that name and content, on the CPU; `runs` is the folder of all runs."""
    if name.path is None:
        model, identity, record = _load_run(RunDir(runs / content.rpartition(" ")[2]))
    else:
        found, _ = content_of(name)
        check_content(str(name), found, content)
        path = home_path(name.path)
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


def check_teacher(
    teacher: LoadedTeacher, data: DataSet, config: RunConfig, runtime: Runtime, precision: str
) -> None:
    """ConfigError where it gives no numbers, or cuts captions that the run reads whole."""
    check_numbers(teacher, precision)
    check_lengths(teacher, data, runtime, Tokenizer(config.model.text.context_length))


def check_numbers(teacher: LoadedTeacher, precision: str) -> None:
    """ConfigError where a grey picture or a caption has no embedding, or a weight is no number."""
    pictures = torch.full((2, teacher.size, teacher.size, 3), 128, dtype=torch.uint8)
    found = teacher.embed(pictures, ["a photo of a cat", "two dogs"], precision)
    weights = all(bool(w.isfinite().all()) for w in teacher.model.parameters())
    if not weights or not all(bool(tensor.isfinite().all()) for tensor in found):
        raise ConfigError(f"{teacher.name} gives embeddings that are no numbers (NaN or infinite)")


def check_lengths(
    teacher: LoadedTeacher, data: DataSet, runtime: Runtime, own: Tokenizer | None = None
) -> None:
    """ConfigError where the teacher cuts captions, more than is allowed of unusable samples.

    Those of some samples of `train`, spread over all, are looked at.

    Args:
        own: the run's; what it cuts too does not count.
    """
    captions = data.split("train").captions
    places = range(0, len(captions), max(1, len(captions) // _CHECKED))
    looked = [caption for place in places for caption in captions[place]]
    whole = [caption for caption in looked if own is None or not own.is_truncated(caption)]
    cut = [caption for caption in whole if teacher.model.tokenizer.is_truncated(caption)]
    if len(cut) > runtime.max_bad_fraction * len(looked):
        raise ConfigError(
            f"{teacher.name} cuts {len(cut)} of {len(looked)} captions that "
            f"{'are' if own is None else 'this run reads'} whole, more than max_bad_fraction = "
            f"{runtime.max_bad_fraction:g} allows, such as {min(cut, key=len)[:60]!r}; a teacher "
            "with a longer context, or model.text.context_length as short as its own, is wanted"
        )
