"""The protocol of a run's evaluation: what is measured, on which data, in which forms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.config.identity import NOT_IDENTITY, Int, Strict


def _with_placeholder(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("at least one template is wanted")
    for template in value:
        if "{c}" not in template:
            raise ValueError(f"template {template!r} has no {{c}} for the class name")
    return value


Templates = Annotated[tuple[str, ...], AfterValidator(_with_placeholder)]


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
    templates: Templates = ("a photo of a {c}.",)
    """Prompts with `{c}` for the class name; a set's own stand in the place of this default."""
    classnames: Annotated[tuple[str, ...] | str | None, Field(json_schema_extra=NOT_IDENTITY)] = (
        None
    )
    """What classes are called in prompts: names in the order of the folders (numbers by value), a
    file of them (a line a class, or JSON), or `wordnet`; null: classnames.txt beside the classes,
    or else the folders.  The fingerprint has the names, and so has every key."""


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
    templates: Templates | None = None
    """Prompt templates with `{c}` for the class name; null: those of the data set.
    Elsewhere: prompts, prompt, prompt_templates."""
    class_folders: tuple[ClassFolder, ...] = ()
    """Zero-shot test sets of one's own, a folder or zip each, as
    `[{"name": "pets", "path": "/data/pets"}]`.  Elsewhere: zeroshot, imagenet_val, class_folder."""
    suites: Annotated[tuple[str, ...], Field(json_schema_extra={"born": []})] = ()
    """Suites of public benchmarks, or single ones of them, found below `runtime.data_root`; or of a
    run's own splits: `probe` (neighbours, linear probes), `geometry`, `calibration`, `length`.
    Elsewhere: suite, benchmark, eval_datasets, linear_probe, knn."""
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
