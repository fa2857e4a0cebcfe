"""What defines a run: typed, frozen, and hashed.

A run *is* its resolved configuration.  `run_key` covers all that was asked for of the training,
`evaluation_key` all that was asked for of its evaluation.  Where a run happens (`Runtime`: device,
threads, workers) is in neither: what of it moves the bits is on record in the result, as numerics.
Torch-free, so that a login node answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.config.evaluation import Evaluate
from harness.config.fields import (
    SOURCES,
    TERMS,
    declared_fields,
    in_section,
    reader_of,
    tree_of,
    unknown_field,
    validate,
)
from harness.config.identity import (
    NOT_IDENTITY,
    Float,
    Int,
    Strict,
    content_key,
    identity_of,
    integer,
)
from harness.config.model import Model
from harness.config.training import Teacher, Train
from harness.errors import ConfigError, unknown

if TYPE_CHECKING:
    from harness.data.source import Source
    from harness.objectives.terms import Term

_KEYS = 1
"""In the keys of evaluations, which stay as they are when metrics are added or change: by which
versions of them an entry was computed is said in the entry."""


# --------------------------------------------------------------------------- objective

Schedule = Literal["constant", "linear", "cosine", "step"]


class Objective(Strict):
    """The terms of the loss, a section each; the total is the sum over terms of weight x term.

    The sections are those of `TERMS`, in the order in which terms were added, so that a new term
    moves neither the keys nor the sums of runs that do without it.
    """

    model_config = ConfigDict(extra="allow")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def sections(cls) -> dict[str, type[Term]]:
        """Name -> class of each section."""
        order = sorted(TERMS, key=lambda name: (TERMS.get(name).added, name))
        return {name: TERMS.get(name) for name in order}

    @property
    def terms(self) -> dict[str, Term]:
        """Every term by name, on or off."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def active(self) -> dict[str, Term]:
        """The terms that are on: those that have a weight, wherever its ramp stands."""
        return {name: term for name, term in self.terms.items() if term.weight > 0}

    def identity(self) -> dict[str, Any]:
        """The terms that are on, and those that were in the first keys."""
        return {
            name: term.identity()
            for name, term in self.terms.items()
            if term.weight > 0 or term.in_every_key
        }

    @model_validator(mode="before")
    @classmethod
    def _by_term(cls, given: object) -> object:
        """Each section read by its term; one that nobody knows plays no part while it is off."""
        if isinstance(given, Objective):
            given = given.terms
        if not isinstance(given, Mapping):
            return given
        absent = unregistered_terms(given)
        if absent:
            raise ValueError(unknown("loss term", absent[0], TERMS))
        sections = cls.sections()
        read = reader_of(tuple(sections.items())).model_validate(
            {name: section for name, section in given.items() if name in sections}
        )
        return {name: getattr(read, name) for name in sections}

    @model_validator(mode="after")
    def _something_to_learn(self) -> Objective:
        if not self.active:
            raise ValueError("every term of the loss has weight 0")
        return self


def unregistered_terms(objective: object) -> list[str]:
    """The names of sections that are on and that no registered term reads; of no object none."""
    sections = objective.items() if isinstance(objective, Mapping) else ()
    return [
        name
        for name, section in sections
        if name not in TERMS and not (isinstance(section, Mapping) and section.get("weight") == 0)
    ]


class Columns(Strict):
    """Columns (or fields of records) of a table of captions, where they have names of their own."""

    image: str | None = None
    """Column with the path or name of the picture.  Elsewhere: csv_img_key, image_column."""
    caption: str | None = None
    """Column with the caption.  Elsewhere: csv_caption_key, caption_column."""
    split: str | None = None
    """Column with the split (`train`, `val`, `test`)."""


def _window(value: object) -> object:
    """Of `shuffle_window`; ValueError for anything that is none."""
    if value == "wide":
        return value
    if isinstance(value, str) or (places := integer(value)) < 1:  # type: ignore[operator]
        raise ValueError("an integer of 1 or more is wanted, or 'wide'")
    return places


class Data(Strict):
    """What is trained on.  The content is identity (its fingerprint), the place is not.

    Beside the fields, which sources share, each source with options has a section of its name; the
    key of a run tells of the options of its source, and of no other's.
    """

    model_config = ConfigDict(extra="allow")

    source: str = "openmoji"
    """`openmoji` (built in), `folder` (folder, CSV or JSON of pictures and captions), `shards`
    (local webdataset tars, any sample at any time), `stream` (tars one after another, from disk or
    a URL).  Elsewhere: dataset, dataset_type, dataset_name."""
    path: Annotated[str | None, Field(json_schema_extra=NOT_IDENTITY)] = None
    """Where the data is: a folder, table or archive, or a pattern or list of shards.
    Elsewhere: train_data, data_dir, data_path, dataset_path, root, shards."""
    columns: Annotated[Columns, Field(json_schema_extra=NOT_IDENTITY)] = Columns()
    """Of the tables at `path`; null: those known by their names (`image`, `caption`, `split`, ...).
    What is read through them is identity, their names are not."""
    captions: Annotated[Literal["own", "synthetic"], Field(json_schema_extra={"born": "own"})] = (
        "own"
    )
    """`synthetic`: of `shards` and `stream`, those of each sample's `syn.json`, as DataCompDR has
    them, in place of its own."""
    fingerprint: str | None = None
    """SHA-256 of the content; filled in from the data when a sweep is expanded."""
    resolution: Annotated[Int, Field(ge=8, le=512)] = 64
    """Pixels at which vector drawings (`openmoji`) are rendered; no effect on photographs."""
    weights: Annotated[
        tuple[Annotated[Float, Field(gt=0)], ...] | None, Field(json_schema_extra={"born": None})
    ] = None
    """Share of every batch that each source of `path` has (`shards` and `stream`; sources are
    separated by `::`), in whole samples.  null: each sample counts the same."""
    shuffle_window: Annotated[
        int | Literal["wide"], BeforeValidator(_window), Field(json_schema_extra={"born": 10_000})
    ] = 10_000
    """`stream`: places by which a sample may be put off from where its shard has it, in each of up
    to eight rows of shards that are read side by side.  `wide`: up to 64 rows and 1,250 places, so
    that a batch is of 64 shards at least, where there are as many; for shards that are sorted."""
    decode: Annotated[Literal["full", "scaled"], Field(json_schema_extra={"born": "full"})] = "full"
    """`scaled`: a JPEG for training is decoded at 1/2, 1/4 or 1/8 where its crop stays as large as
    the model's input, which is faster and filters a little differently."""
    decoder: Annotated[Literal["pillow", "turbo"], Field(json_schema_extra={"born": "pillow"})] = (
        "pillow"
    )
    """`turbo`: a plain JPEG for training is decoded by libjpeg-turbo itself (simplejpeg), to the
    same pixels and faster, and views are resized by torch's filter in place of Pillow's, which
    rounds a little differently.  Anything else is Pillow's, and so is what is refused.  Elsewhere:
    turbojpeg, image_backend, accimage, decoder_backend."""
    crop_scale: tuple[Float, Float] = (0.5, 1.0)
    """Range of the area of the random resized crop (SLIP's CLIP branch).  Elsewhere: aug_scale,
    scale, random_resized_crop, augmentation."""
    flip: bool = False
    """Mirror half of the training pictures; off because captions name left and right.
    Elsewhere: hflip, horizontal_flip."""

    @classmethod
    def sections(cls) -> dict[str, type[Source]]:
        """Name -> class of each source that has options."""
        found = {name: SOURCES.get(name) for name in SOURCES}
        with_options = {n: s for n, s in found.items() if getattr(s, "model_fields", None)}
        for name in with_options.keys() & cls.model_fields.keys():
            raise ConfigError(f"data source {name!r} has options and is called as data.{name} is")
        return with_options

    def section(self, name: str) -> Source:
        """The options of a registered source: those that were given, else its defaults."""
        given = (self.__pydantic_extra__ or {}).get(name, {})
        source: type[Source] = SOURCES.get(name)
        return validate(source, tree_of(given))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # A configuration may be older than the registration of a source.
            if name.startswith("_") or name not in self.sections():
                raise AttributeError(f"data has no field {name!r}")
            return self.section(name)

    @model_serializer(mode="wrap")
    def _with_sections(self, fields: Any, info: SerializationInfo) -> dict[str, Any]:
        sections = {name: self.section(name).model_dump(mode=info.mode) for name in self.sections()}
        return {**fields(self), **sections}

    def idle(self) -> set[str]:
        """Fields that the source does not use."""
        source = SOURCES.get(self.source) if self.source in SOURCES else None
        return set(getattr(source, "unused", ()))

    def identity(self) -> dict[str, Any]:
        """See Strict; with all options of the source, if it has any."""
        options = (self.__pydantic_extra__ or {}).get(self.source)
        if self.source in SOURCES:
            has_options = self.source in self.sections()
            options = self.section(self.source).model_dump() if has_options else None
        # Of a source that is not registered here (in a report without its sweep file) they are as
        # they were written down.
        return super().identity() | ({} if options is None else {self.source: identity_of(options)})

    @model_validator(mode="before")
    @classmethod
    def _by_source(cls, given: object) -> object:
        """Each section read by its source; that of a source unknown here stays if it is in use."""
        if not isinstance(given, Mapping):
            return given
        more = {name: value for name, value in given.items() if name not in cls.model_fields}
        if not more:
            return given
        sections = cls.sections()
        absent = {name for name, value in more.items() if name not in sections}
        for name in absent:
            if name in SOURCES or not isinstance(more[name], Mapping):
                raise ValueError(unknown_field(f"data.{name}", declared_fields(RunConfig)))
        known = {name: tree_of(more[name]) for name in more.keys() & sections.keys()}
        read = reader_of(tuple((name, sections[name]) for name in known)).model_validate(known)
        in_use = {name: more[name] for name in absent & {given.get("source")}}
        fields = {name: value for name, value in given.items() if name in cls.model_fields}
        return {**fields, **in_use, **{name: getattr(read, name) for name in known}}

    @field_validator("crop_scale")
    @classmethod
    def _a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("0 < low <= high <= 1 is wanted")
        return value


# --------------------------------------------------------------------------- the run


class RunConfig(Strict):
    """Everything that defines one run and the numbers reported for it."""

    model: Model = Model()
    objective: Objective = Field(default_factory=Objective)
    data: Data = Data()
    train: Train = Train()
    teacher: Annotated[Teacher, Field(json_schema_extra={"born": {}})] = Teacher()
    seed: Annotated[Int, Field(ge=0)] = 0
    """Of all that is drawn: initial weights, order, crops, masks.  A sweep sets it, by its `seeds`
    or by --seeds.  Elsewhere: random_seed, random_state, manual_seed."""
    evaluate: Annotated[Evaluate, Field(json_schema_extra=NOT_IDENTITY)] = Evaluate()

    def idle(self) -> set[str]:
        """Teachers that nobody imitates."""
        taught = any(term.needs_teacher for term in self.objective.active.values())
        return set() if taught else {"teacher"}

    @model_validator(mode="after")
    def _terms_fit(self) -> RunConfig:
        for name, term in self.objective.active.items():
            try:
                term.check(self)
            except (ConfigError, ValueError) as error:
                fields = declared_fields(RunConfig)
                raise ConfigError(in_section(f"objective.{name}", str(error), fields)) from None
        return self

    def form_key(self, form: str) -> str:
        """Names the outcomes of a deployed form, as `evaluation_key` those of the model."""
        return f"{self.evaluation_key}-{form}"

    @property
    def run_key(self) -> str:
        """Identity of the training: 12 hex digits; the evaluation half is not in it."""
        return content_key(self)

    @property
    def evaluation_key(self) -> str:
        """Identity of the protocol that was asked for (`Evaluate`)."""
        return content_key({"evaluate": self.evaluate.identity(), "metrics": _KEYS})


def parts_of_a_batch(batch_size: int, processes: int, micro_batch: int | None) -> int:
    """In how many parts each process takes its share of a batch; see Runtime.micro_batch."""
    share = batch_size // processes
    return -(-share // (micro_batch or share))
