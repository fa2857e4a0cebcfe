"""The training of a run: its budget, its optimiser, its arithmetic, and whom it imitates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.identity import NOT_IDENTITY, Float, Int, Strict
from harness.config.inheritance import read_teacher
from harness.config.values import divisors_near
from harness.errors import ConfigError


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
    """`auto`: bfloat16 autocast on a GPU that has it, fp32 elsewhere.  `bf16` on a CPU wants its
    instructions (AVX512_BF16, AMX, or Arm's).  Elsewhere: amp, dtype, fp16, bf16,
    mixed_precision."""
    tf32: Annotated[
        Literal["none", "convolutions", "all"], Field(json_schema_extra={"born": "convolutions"})
    ] = "convolutions"
    """What a GPU does in TF32 in place of fp32: `convolutions`, as torch of itself, or `all`
    products.  Evaluation never does.  Elsewhere: allow_tf32, float32_matmul_precision."""
    fused: Annotated[bool, Field(json_schema_extra={"born": False})] = False
    """Whether AdamW goes through each parameter once, by torch's fused kernel, and not once for
    each of its operations: the same step up to rounding.  Elsewhere: fused_adam, optim,
    adamw_torch_fused."""
    unpadded: Annotated[bool, Field(json_schema_extra={"born": False})] = False
    """Whether the text tower passes over the pads behind a batch's shorter captions, and makes of
    its last block only what the loss looks at: the same step up to rounding.  Elsewhere:
    unpad_inputs, varlen, packing, padding_free."""
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


class Teacher(Strict):
    """Finished models that terms of the loss imitate; they learn nothing and are nowhere counted.

    Without such a term it is in no run's key.
    """

    models: Annotated[tuple[str, ...], Field(json_schema_extra=NOT_IDENTITY)] = ()
    """One, or an ensemble: `12 layers` of the same run at that depth without a teacher, `run KEY`,
    the path of an export's folder, or `ViT-B-32:PATH` of an open_clip checkpoint.  How they are
    named is not identity; what they are is, below.  Elsewhere: distill_model, teacher_model."""
    content: Annotated[tuple[str, ...] | None, Field(json_schema_extra={"born": None})] = None
    """`run KEY`, or what a file holds (SHA-256); filled in when a sweep is expanded."""
    widths: Annotated[tuple[Int, ...] | None, Field(json_schema_extra=NOT_IDENTITY)] = None
    """Dimension of each one's embeddings; filled in with it."""
    views: Annotated[
        Annotated[Int, Field(ge=1)] | None, Field(json_schema_extra={"born": None})
    ] = None
    """Epochs whose crops were embedded beforehand (`python -m harness.data teach`): the run then
    sees these crops alone, again after so many epochs.  null: teachers embed each batch live."""

    @field_validator("models", mode="before")
    @classmethod
    def _one_wording(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
            return value
        try:
            return tuple(str(read_teacher(one)) for one in given)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_of_each(self) -> Teacher:
        for name, given in (("content", self.content), ("widths", self.widths)):
            if given is not None and len(given) != len(self.models):
                raise ValueError(
                    f"{name} is of {len(given)} and there are {len(self.models)} models"
                )
        return self
