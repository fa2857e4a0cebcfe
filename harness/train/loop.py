"""The training loop: reads top to bottom.

Everything is a function of the step: the batch, the learning rate, the softened mass and the torch
generators, so a run that is cut off anywhere and goes on from its checkpoint ends with the same
bits (on a CPU, with the same threads) as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.config import RunConfig, Runtime
from harness.data.dataset import DataSet, Problem
from harness.data.loader import Batches
from harness.data.transforms import normalise
from harness.device import autocast, resolve_precision
from harness.errors import DataError, DivergedError, InterruptedRun
from harness.models.training import MaskedTexts, Outputs, TrainingModel
from harness.objectives.instance import soft_label_mass
from harness.objectives.masking import Masked, mask_words, masking_noise
from harness.objectives.terms import Loss, StepTensors, compute_loss
from harness.record import RunDir, State
from harness.seeding import derive_seed
from harness.train.checkpoint import load_newest, save_step
from harness.train.optimiser import learning_rate, make_optimiser

_CHECK_EVERY_ON_GPU = 50
"""Steps between two looks at the losses on a GPU, where each look waits for the device."""


@dataclass(frozen=True)
class Trained:
    """What a finished training says of itself; seconds are summed over attempts."""

    samples_seen: int
    steps: int
    epochs: float
    seconds: float
    wait_seconds: float
    final_loss: float
    problems: tuple[Problem, ...]


@dataclass
class _Meter:
    """Sums since the last line of metrics.jsonl; part of the checkpoint, so no line is lost."""

    steps: int = 0
    loss: float = 0.0
    terms: dict[str, float] | None = None
    weighted: dict[str, float] | None = None
    grad_norm: float = 0.0

    def add(
        self, loss: float, raw: dict[str, float], weighted: dict[str, float], norm: float
    ) -> None:
        self.steps += 1
        self.loss += loss
        self.grad_norm += norm
        self.terms = {k: (self.terms or {}).get(k, 0.0) + v for k, v in raw.items()}
        self.weighted = {k: (self.weighted or {}).get(k, 0.0) + v for k, v in weighted.items()}

    def means(self) -> dict[str, Any]:
        n = max(1, self.steps)
        return {
            "loss": self.loss / n,
            "terms": {k: v / n for k, v in (self.terms or {}).items()},
            "weighted": {k: v / n for k, v in (self.weighted or {}).items()},
            "grad_norm": self.grad_norm / n,
        }


@dataclass
class _Pending:
    """Scalars of steps whose values have not been read from the device yet."""

    steps: list[int]
    losses: list[Loss]
    norms: list[Tensor]


class Trainer:
    """One run's training, from its newest checkpoint to its budget."""

    def __init__(
        self,
        model: TrainingModel,
        data: DataSet,
        config: RunConfig,
        runtime: Runtime,
        directory: RunDir,
        device: torch.device,
        attempt: int,
    ) -> None:
        self.model, self.towers = model, model.model
        self.config, self.runtime = config, runtime
        self.directory, self.device, self.attempt = directory, device, attempt
        self.batches = Batches(data, self.towers.tokenizer, config, runtime)
        self.bad_limit = runtime.max_bad_fraction * max(1, data.indexed)
        self.problems = {problem.where: problem for problem in data.problems}
        self.optimiser = make_optimiser(model, config.train)
        self.precision = resolve_precision(config.train.precision, device, "train.precision")
        self.forward: Callable[[Tensor, Tensor, MaskedTexts | None], Outputs] = (
            torch.compile(model) if runtime.compile else model
        )
        self.step = 0
        self.seconds = self.wait_seconds = 0.0
        self.meter = _Meter()
        self.pending = _Pending([], [], [])
        self.last_loss: float | None = None

    # ---------------------------------------------------------------- the run of it

    def train(self, stop: Callable[[], bool]) -> Trained:
        """Train to the budget.

        Raises:
            InterruptedRun: `stop()` turned true; the state is on disk.
            DivergedError: the loss or the gradient is not finite, with the step.
            DataError: more samples are unusable than `runtime.max_bad_fraction` allows.
        """
        self._resume()
        self._bound_problems()
        self.model.train()
        stream = self.batches.start(self.step)
        saved = logged = time.monotonic()
        while self.step < self.batches.steps:
            if stop():
                self._look()
                self._save()
                self._beat("train")
                raise InterruptedRun(f"stopped at {self.samples_seen} samples; state saved")

            # ---- data
            began = time.monotonic()
            batch = next(stream)
            self._note(batch.problems)
            waited = time.monotonic()

            # ---- step
            self._step(batch.pictures, batch.tokens)
            self._look_if_due()
            ended = time.monotonic()
            self.seconds += ended - began
            self.wait_seconds += waited - began

            # ---- write down
            if self._log_is_due():
                self._look()
                self._log()
            if ended - logged >= self.runtime.log_seconds:
                self._beat("train")
                logged = ended
            if ended - saved >= self.runtime.checkpoint_seconds:
                self._look()
                self._save()
                saved = time.monotonic()
        self._look()
        self._save()
        assert self.last_loss is not None  # the budget is at least one step
        return Trained(
            samples_seen=self.samples_seen,
            steps=self.step,
            epochs=self.step / self.batches.per_epoch,
            seconds=self.seconds,
            wait_seconds=self.wait_seconds,
            final_loss=self.last_loss,
            problems=tuple(self.problems.values()),
        )

    @property
    def samples_seen(self) -> int:
        """Pairs seen so far, a picture counted each time it is shown."""
        return self.step * self.config.train.batch_size

    # ---------------------------------------------------------------- one step

    def _step(self, pictures: Tensor, tokens: Tensor) -> None:
        torch.manual_seed(derive_seed(self.config.seed, "step", self.step))
        train = self.config.train
        rate = learning_rate(train, self.samples_seen)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        pixels = normalise(pictures.to(self.device, non_blocking=True), self.config.model.image)
        masked = self._mask(tokens)
        with autocast(self.precision):
            hidden = None if masked is None else MaskedTexts(*masked[:3])
            outputs = self.forward(pixels, tokens.to(self.device, non_blocking=True), hidden)
        loss = compute_loss(self._tensors(outputs, masked), self.config.objective)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), train.grad_clip or float("inf")
        )
        self.optimiser.step()
        self.towers.clamp_logit_scale()
        self.step += 1
        self.pending.steps.append(self.step)
        self.pending.losses.append(_detached(loss))
        self.pending.norms.append(norm)

    def _mask(self, tokens: Tensor) -> Masked | None:
        """The batch's captions with words hidden, if the MLM term is on; a function of the step."""
        mlm = self.config.objective.mlm
        if mlm.weight == 0:
            return None
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "mask", self.step))
        noise = masking_noise(generator, len(tokens), self.config.model.text.context_length)
        vocab_size = self.towers.tokenizer.vocab_size
        masked = mask_words(tokens, noise, ratio=mlm.mask_ratio, vocab_size=vocab_size)
        return Masked(*(part.to(self.device, non_blocking=True) for part in masked))

    def _tensors(self, outputs: Outputs, masked: Masked | None) -> StepTensors:
        tensors = StepTensors(
            outputs.image,
            outputs.text,
            self.towers.logit_scale,
            progress=min(1.0, self.samples_seen / self.config.train.samples),
        )
        if outputs.tokens is not None:
            patches, words, mask = outputs.tokens
            tensors = replace(tensors, patches=patches, words=words, word_mask=mask)
        masked_pass = self.model.masked_pass
        if masked is not None and masked_pass is not None:
            tensors = replace(
                tensors,
                states=outputs.states,
                table=masked_pass.table(self.towers.text),
                bias=masked_pass.bias,
                targets=masked.targets,
            )
        return tensors

    # ---------------------------------------------------------------- looking at values

    def _look_if_due(self) -> None:
        every = 1 if self.device.type == "cpu" else _CHECK_EVERY_ON_GPU
        if len(self.pending.steps) >= every:
            self._look()

    def _look(self) -> None:
        """Read the pending scalars; DivergedError at the first that is not finite."""
        for step, loss, norm in zip(
            self.pending.steps, self.pending.losses, self.pending.norms, strict=True
        ):
            raw = {name: float(value) for name, value in loss.raw.items()}
            weighted = {name: float(value) for name, value in loss.weighted.items()}
            total, length = float(loss.total), float(norm)
            for what, value in {**raw, "total": total, "gradient norm": length}.items():
                if not abs(value) < float("inf"):
                    seen = step * self.config.train.batch_size
                    raise DivergedError(
                        f"{what} is {value} at step {step} ({seen} samples seen, "
                        f"lr {learning_rate(self.config.train, seen):.3g})"
                    )
            self.meter.add(total, raw, weighted, length)
            self.last_loss = total
        self.pending = _Pending([], [], [])

    # ---------------------------------------------------------------- unusable samples

    def _note(self, problems: tuple[Problem, ...]) -> None:
        if problems:
            self.problems.update({problem.where: problem for problem in problems})
            self._bound_problems()

    def _bound_problems(self) -> None:
        if len(self.problems) > self.bad_limit:
            shown = [f"{p.where} ({p.reason})" for p in list(self.problems.values())[:5]]
            more = f" and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
            raise DataError(
                f"{len(self.problems)} unusable samples, more than runtime.max_bad_fraction = "
                f"{self.runtime.max_bad_fraction:g} allows: {'; '.join(shown)}{more}"
            )

    # ---------------------------------------------------------------- files

    def _resume(self) -> None:
        state = load_newest(self.directory.checkpoints, self.device)
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            self.seconds, self.wait_seconds = state["seconds"], state["wait_seconds"]
            self.last_loss = state["last_loss"]
            self.meter = _Meter(**state["meter"])
            self.problems.update({w: Problem(w, r) for w, r in state["problems"]})
        self.directory.rewind_metrics(self.samples_seen)

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "wait_seconds": self.wait_seconds,
            "last_loss": self.last_loss,
            "meter": vars(self.meter),
            "problems": [(p.where, p.reason) for p in self.problems.values()],
        }
        save_step(self.directory.checkpoints, self.step, state)

    def _log_is_due(self) -> bool:
        every = self.runtime.log_samples
        before = self.samples_seen - self.config.train.batch_size
        return self.samples_seen // every > before // every or self.step == self.batches.steps

    def _log(self) -> None:
        progress = min(1.0, self.samples_seen / self.config.train.samples)
        line: Mapping[str, Any] = {
            "samples_seen": self.samples_seen,
            "step": self.step,
            **self.meter.means(),
            "lr": learning_rate(self.config.train, self.samples_seen),
            "logit_scale": float(self.towers.logit_scale.detach().exp()),
            "soft_label_mass": soft_label_mass(self.config.objective.instance, progress),
            "samples_per_second": self.samples_seen / self.seconds,
            "data_wait": self.wait_seconds / self.seconds,
        }
        self.directory.append_metrics(line)
        self.meter = _Meter()

    def _beat(self, phase: str) -> None:
        rate = self.samples_seen / self.seconds if self.step else None
        left = (self.batches.steps - self.step) * self.config.train.batch_size
        self.directory.write_status(
            State.RUNNING,
            attempt=self.attempt,
            phase=phase,
            samples_seen=self.samples_seen,
            samples=self.config.train.samples,
            samples_per_second=rate,
            data_wait=self.wait_seconds / self.seconds if self.step else None,
            loss=self.last_loss,
            eta_seconds=left / rate if rate else None,
        )


def _detached(loss: Loss) -> Loss:
    return Loss(
        loss.total.detach(),
        {name: value.detach() for name, value in loss.raw.items()},
        {name: value.detach() for name, value in loss.weighted.items()},
    )
