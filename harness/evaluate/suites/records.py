"""What a public benchmark is: its split, size, classes, prompts and the one metric it is judged by.

A record says everything that the number depends on and that is not on disk.  Torch-free; knows
nothing of files or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from harness.data.classnames import shipped_names, shipped_table, wordnet_ids
from harness.errors import DataError, how_to_install
from harness.metrics import ACC1 as _ACC1
from harness.metrics import MEAN_PER_CLASS_RECALL as _PER_CLASS
from harness.metrics import WAYS, accuracy_chance, recall_kind
from harness.metrics.choice import TEXT_SCORE

ACC1 = (_ACC1,)
PER_CLASS = (_PER_CLASS,)
TEXT_SCORES = (TEXT_SCORE,)
RECALL_AT_1 = tuple(recall_kind(way, 1) for way in WAYS)

#: Where the CLIP_benchmark authors keep each set in the layout that is read here.
HUB = "clip-benchmark"


@dataclass(frozen=True)
class Prompts:
    """A prompt set by its name in CLIP_benchmark, which has it from the authors of CLIP."""

    name: str

    @property
    def templates(self) -> tuple[str, ...]:
        """With `{c}` for the class name."""
        found = shipped_table("en_zeroshot_classification_templates.json").get(self.name)
        if found is None:
            raise DataError(f"clip-benchmark has no prompt set {self.name!r}")
        return tuple(found)


@dataclass(frozen=True)
class ClassNames:
    """The curated names of classes by their name in CLIP_benchmark, in the order of their labels.

    `synsets` names the WordNet ids of the same classes in the same order, as files of timm; a
    class folder that is called by an id has its name from there.
    """

    name: str
    synsets: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class i is called `names[i]` in prompts."""
        return shipped_names(self.name)

    @property
    def ids(self) -> tuple[str, ...]:
        """The WordNet ids of all classes; none where classes have none."""
        return () if self.synsets is None else wordnet_ids(self.synsets)


@dataclass(frozen=True)
class Benchmark:
    """One public test set and how it is scored.

    Attributes:
        name: what columns, folders and files call it.
        title: as a paper writes it.
        task: zero-shot `classification`, `retrieval` in both directions, or `choice` among a few
            captions or pictures.
        samples: pictures that its test split has (of choices: items); another number on disk is
            refused, unless it is 0 because copies of the set differ.
        metrics: THE metric, by which the set enters a suite's mean; two are averaged first.
        source: where the set comes from and who defined split and metric.
        split: of which it is tested, as its authors call it.
        classes: number of classes; None for other tasks.
        captions: number of captions; None for other tasks.
        prompts: the templates of its prompts.
        classnames: curated names; None: those that come with the data.
        hub: name at Hugging Face (`clip-benchmark/wds_<hub>`); None for what is built in.
        file: of choices, what lists them: a path below the set's folder.
        fetched_by: the command that brings a set which the hub has not; `{root}` is that of the
            data, `{install}` the command that brings the extra eccv.
        builder: name in CLIP_benchmark's `build_dataset`, and what its files lie in.
        of: of relevance, the benchmark whose pictures and captions the labels are of.
        labels: the files of these: by picture, by caption.
    """

    name: str
    title: str
    task: Literal["classification", "retrieval", "choice", "relevance"]
    samples: int
    metrics: tuple[str, ...]
    source: str
    split: str = "test"
    classes: int | None = None
    captions: int | None = None
    prompts: Prompts | None = None
    classnames: ClassNames | None = None
    hub: str | None = None
    builder: Builder | None = None
    file: str | None = None
    fetched_by: str | None = None
    of: Benchmark | None = None
    labels: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """In words; nothing where copies of it differ."""
        counts = {
            "items" if self.task == "choice" else "pictures": self.samples,
            "captions": self.captions,
            "classes": self.classes,
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    @property
    def is_built_in(self) -> bool:
        """Whether it comes with the harness."""
        return self.hub is None and self.file is None and self.of is None

    @property
    def chance(self) -> float | None:
        """Chance level of accuracy; None for retrieval, where it follows from the captions."""
        return None if self.classes is None else accuracy_chance(self.classes)

    @property
    def definition(self) -> dict[str, Any]:
        """All of it that can change a number, as plain values."""
        return {
            "task": self.task,
            "samples": self.samples,
            "classes": self.classes,
            "captions": self.captions,
            "split": self.split,
            "templates": None if self.prompts is None else list(self.prompts.templates),
            "classnames": None if self.classnames is None else list(self.classnames.names),
        }

    def fetch_command(self, data_root: str) -> str | None:
        """The command that puts it below `data_root`; None for what is built in."""
        if self.hub is None:
            by = self.fetched_by
            return by and by.format(root=data_root, install=how_to_install("eccv"))
        return (
            f"hf download {HUB}/wds_{self.hub} --repo-type dataset --include 'test/*' '*.txt' "
            f"--local-dir {data_root}/{self.name}"
        )


class ChoiceItem(NamedTuple):
    """A few pictures and a few captions, some of which belong together.

    With one picture the first `right` captions are its own.  With several, caption i belongs to
    picture i, and there are as many of both.
    """

    images: tuple[str, ...]
    captions: tuple[str, ...]
    right: int = 1


@dataclass(frozen=True)
class Builder:
    """How CLIP_benchmark opens a set in the layout of torchvision or of its authors.

    Attributes:
        name: what `build_dataset` calls it.
        inside: file or folder below the root that shows the set is there; the root is the set's
            own folder, or the data root itself.
        split: what `build_dataset` calls the test split.
    """

    name: str
    inside: str
    split: str = "test"
