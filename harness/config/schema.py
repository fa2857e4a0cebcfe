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
    ConfigDict,
    Field,
    SerializationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.config.fields import (
    SOURCES,
    TERMS,
    declared_fields,
    reader_of,
    tree_of,
    unknown_field,
    validate,
)
from harness.config.identity import NOT_IDENTITY, Float, Int, Strict, content_key, identity_of
from harness.config.model import Model
from harness.config.values import divisors_near
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
    shuffle_window: Annotated[Int, Field(ge=1), Field(json_schema_extra={"born": 10_000})] = 10_000
    """`stream`: places by which a sample may be put off from where its shard has it, in each of up
    to eight rows of shards that are read side by side."""
    decode: Annotated[Literal["full", "scaled"], Field(json_schema_extra={"born": "full"})] = "full"
    """`scaled`: a JPEG for training is decoded at 1/2, 1/4 or 1/8 where its crop stays as large as
    the model's input, which is faster and filters a little differently."""
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


# --------------------------------------------------------------------------- training


class Train(Strict):
    """The budget and the optimiser; every length is in samples seen, never in steps."""

    samples: Annotated[Int, Field(ge=1)] = 1_000_000
    """Pairs seen in all, a picture counted each time it is shown: epochs x training pictures, or
    steps x batch size.  Elsewhere: epochs, steps, iterations, max_steps, num_epochs, num_steps,
    train_num_samples, samples_seen, n_epochs, iters, budget."""
    batch_size: Annotated[Int, Field(ge=2)] = 128
    """Global batch: pairs contrasted with one another, on however many processes.
    Elsewhere: batch, bs, batchsize, global_batch_size, train_batch_size."""
    lr: Annotated[Float, Field(gt=0)] = 1e-3
    """Highest learning rate of AdamW: at the end of the warm-up, from where it falls along half a
    cosine to 0.  Elsewhere: learning_rate, base_lr, peak_lr, max_lr."""
    warmup_samples: Annotated[Int, Field(ge=0)] = 0
    """Pairs over which the learning rate grows linearly from 0: warm-up steps x batch size.
    Elsewhere: warmup, warmup_steps, warmup_epochs, warmup_ratio."""
    weight_decay: Annotated[Float, Field(ge=0)] = 0.1
    """Not applied to biases, norms, one-dimensional parameters and logit_scale.  Elsewhere: wd,
    decay, l2."""
    beta1: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's mean of gradients.  Elsewhere: betas, momentum, adam_beta1."""
    beta2: Annotated[Float, Field(ge=0, lt=1)] = 0.98
    """Decay of AdamW's mean of squared gradients; CLIP's of its ViTs.  Elsewhere: adam_beta2."""
    eps: Annotated[Float, Field(gt=0)] = 1e-8
    """Added to the root of that mean before AdamW divides by it.  Elsewhere: epsilon, adam_eps,
    adam_epsilon."""
    grad_clip: Annotated[Float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient over all parameters; null: not clipped.  Elsewhere: clip_grad,
    grad_clip_norm, max_grad_norm, clip, gradient_clip, gradient_clip_val."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bfloat16 autocast on a GPU that has it, fp32 elsewhere.  Elsewhere: amp, dtype, fp16,
    bf16, mixed_precision."""
    tf32: Annotated[
        Literal["none", "convolutions", "all"], Field(json_schema_extra={"born": "convolutions"})
    ] = "convolutions"
    """What a GPU does in TF32 in place of fp32: `convolutions`, as torch of itself, or `all`
    products.  Evaluation never does.  Elsewhere: allow_tf32, float32_matmul_precision."""
    norm_batch: Annotated[
        Annotated[Int, Field(ge=2)] | None, Field(json_schema_extra={"born": None})
    ] = None
    """Pairs whose statistics a BatchNorm normalises by ("ghost batch normalisation", Hoffer et al.,
    2017), on however many processes; they pass through the towers at once.  null: all of them."""

    @model_validator(mode="after")
    def _whole_norm_batches(self) -> Train:
        if self.norm_batch is not None and self.batch_size % self.norm_batch:
            near = ", ".join(map(str, divisors_near(self.batch_size, self.norm_batch, least=2)))
            raise ValueError(
                f"norm_batch {self.norm_batch} does not divide batch_size {self.batch_size}; "
                f"nearest that do: {near}"
            )
        return self


# --------------------------------------------------------------------------- evaluation


class ClassFolder(Strict):
    """Pictures with a class each as a zero-shot test set.

    `path` is a folder, zip or tar with a sub-folder of pictures a class, an export of
    clip-benchmark, or a table of pictures and labels.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """What its metrics are called by: `name/zeroshot/acc1`."""
    path: Annotated[str, Field(json_schema_extra=NOT_IDENTITY)]
    """Where it is; its content is identity, the place is not."""
    fingerprint: str | None = None
    """SHA-256 of pictures, classes and prompts; filled in when a sweep is expanded."""
    templates: tuple[str, ...] = ("a photo of a {c}.",)
    """Prompts with `{c}` for the class name; a set's own stand in the place of this default."""
    classnames: Annotated[tuple[str, ...] | str | None, Field(json_schema_extra=NOT_IDENTITY)] = (
        None
    )
    """What classes are called in prompts: names in the order of the folders (numbers by value), a
    file of them (a line a class, or JSON), or `wordnet`; null: classnames.txt beside the classes,
    or else the folders.  The fingerprint has the names, and so has every key."""

    @field_validator("templates")
    @classmethod
    def _have_placeholder(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _templates_with_placeholder(value)


class BenchmarkData(Strict):
    """One data set of a suite as it is on disk; filled in when a sweep is expanded."""

    name: str
    """As the suite calls it."""
    fingerprint: str | None = None
    """SHA-256 of its definition and content; null: it is not there, and a hole in every table."""


VALIDATION = "validation"
"""The split that choices are made on: a search's, and what is told of the terms of the loss; what
is reported is another."""


DeployedForm = Literal["onnx", "onnx-int8"]
FORMS = "deploy"  # of a run's directory: the folder of its deployed forms


class Evaluate(Strict):
    """The protocol: changing it re-evaluates a finished run and never retrains it."""

    splits: tuple[str, ...] = ("test",)
    """Splits of the data set whose retrieval, and classes if it has any, are measured.
    Elsewhere: split, eval_split, test_split."""
    fingerprint: str | None = None
    """SHA-256 of the evaluated splits and tasks; filled in when a sweep is expanded."""
    templates: tuple[str, ...] | None = None
    """Prompt templates with `{c}` for the class name; null: those of the data set.
    Elsewhere: prompts, prompt, prompt_templates."""
    class_folders: tuple[ClassFolder, ...] = ()
    """Zero-shot test sets of one's own, a folder or zip each, as
    `[{"name": "pets", "path": "/data/pets"}]`.  Elsewhere: zeroshot, imagenet_val, class_folder."""
    suites: Annotated[tuple[str, ...], Field(json_schema_extra={"born": []})] = ()
    """Suites of public benchmarks, or single ones of them, found below `runtime.data_root`.
    Elsewhere: suite, benchmark, eval_datasets."""
    benchmarks: Annotated[tuple[BenchmarkData, ...], Field(json_schema_extra={"born": []})] = ()
    """Their data sets; filled in when a sweep is expanded."""
    batch_size: Annotated[Int, Field(ge=1)] = 256
    """Pictures or texts embedded at once.  Elsewhere: eval_batch_size, val_batch_size,
    test_batch_size."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the encoders; scores are always computed in fp32."""
    deploy: Annotated[tuple[DeployedForm, ...], Field(json_schema_extra={"born": []})] = ()
    """Forms for devices that are written, measured and evaluated beside the model as trained, both
    by ONNX Runtime: `onnx` in fp32, `onnx-int8` in 8 bits.
    Elsewhere: export, quantize, quantization, int8, onnx."""

    @field_validator("templates")
    @classmethod
    def _have_placeholder(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _templates_with_placeholder(value)

    @model_validator(mode="after")
    def _names_differ(self) -> Evaluate:
        names = [*self.splits, *(folder.name for folder in self.class_folders)]
        if not names and not self.suites:
            raise ValueError("neither a split nor a class folder to evaluate")
        names += [benchmark.name for benchmark in self.benchmarks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is the name of two things that are evaluated")
        return self


def _templates_with_placeholder(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("at least one template is wanted")
    for template in value:
        if "{c}" not in template:
            raise ValueError(f"template {template!r} has no {{c}} for the class name")
    return value


# --------------------------------------------------------------------------- the run


class RunConfig(Strict):
    """Everything that defines one run and the numbers reported for it."""

    model: Model = Model()
    objective: Objective = Field(default_factory=Objective)
    data: Data = Data()
    train: Train = Train()
    seed: Annotated[Int, Field(ge=0)] = 0
    """Of all that is drawn: initial weights, order, crops, masks.  A sweep sets it, by its `seeds`
    or by --seeds.  Elsewhere: random_seed, random_state, manual_seed."""
    evaluate: Annotated[Evaluate, Field(json_schema_extra=NOT_IDENTITY)] = Evaluate()

    @model_validator(mode="after")
    def _terms_fit(self) -> RunConfig:
        for term in self.objective.active.values():
            term.check(self)
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
