"""The training loop: reads top to bottom.

Everything is a function of the step: the batch, the learning rate, the softened mass and the torch
generators, so a run that is cut off anywhere and goes on from its checkpoint ends with the same
bits (on a CPU, with the same threads) as one that was not.  The processes of a run go through the
same loop side by side, each with its share of the batch; all hold the same state, and the one that
has a directory writes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.config import RunConfig, Runtime, check_processes
from harness.data.account import Problem
from harness.data.dataset import DataSet
from harness.data.loader import Batch, Batches
from harness.data.transforms import normalise
from harness.device import TRAINING, autocast, resolve_precision, tf32, upload
from harness.errors import DataError, InterruptedRun
from harness.models.text import unpadded
from harness.models.training import UNPADDED, Outputs, TrainingModel
from harness.objectives.terms import BatchInputs, BatchPlace, Loss, StepTensors, compute_loss
from harness.seeding import derive_seed
from harness.store.record import RunDir
from harness.store.state import State
from harness.train.activations import recomputed_activations
from harness.train.checkpoint import StateWriter, from_bytes, load_newest, to_bytes
from harness.train.compiled import compiled
from harness.train.distributed import SINGLE_PROCESS, ProcessGroup
from harness.train.exchange import GradientExchange
from harness.train.grad_cache import cached_backward
from harness.train.meter import Meter, Trained
from harness.train.norms import RunningStatistics, global_statistics, refuse_micro_batch
from harness.train.optimiser import learning_rate, make_optimiser, set_learning_rate
from harness.train.sharing import help_to_evaluate, shared_evaluation
from harness.train.teacher import open_teachers
from harness.train.validation import validate

_STEPS_BETWEEN_LOGS_ON_GPU = 50
"""At the least: reading what a log tells waits for the device."""
_STEPS_BETWEEN_TALKS_ON_GPU = 8
"""Of a stop and of unusable samples: the processes of a GPU run ahead of it, and talk waits."""
_TRAINED_TO_STALLED = 50
"""On a GPU: time trained for each time that a state on disk takes."""

_Inputs = Mapping[str, BatchInputs]
"""What the terms of the loss drew for a batch, by their names."""


class Trainer:
    """One run's training, from its newest checkpoint to its budget, in one of its processes.

    Args:
        directory: where this process writes; None for all but the first of several.
        group: the processes of the run.

    Raises:
        ConfigError: the batch cannot be shared out, or `runtime.micro_batch` would change the run.
    """

    def __init__(
        self,
        model: TrainingModel,
        data: DataSet,
        config: RunConfig,
        runtime: Runtime,
        directory: RunDir | None,
        device: torch.device,
        attempt: int,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        check_processes(config.train, runtime)
        if runtime.micro_batch is not None:
            refuse_micro_batch(model)
        self.model, self.towers, self.data = model, model.model, data
        self.config, self.runtime, self.group = config, runtime, group
        self.directory, self.device, self.attempt = directory, device, attempt
        self.on_gpu = device.type == "cuda"
        self.precision = resolve_precision(config.train.precision, device, TRAINING)
        self.teachers = open_teachers(
            config, data, runtime, directory, group, device, self.precision
        )
        lessons = None if self.teachers is None else self.teachers.lessons
        self.batches = Batches(data, self.towers.tokenizer, config, runtime, group.rank, lessons)
        self.writer = None if directory is None else StateWriter(directory.checkpoints, device)
        self.micro_batch_size = config.train.norm_batch or runtime.micro_batch
        model.whole_batches = self.micro_batch_size is None and not runtime.compile
        self.statistics = RunningStatistics(model)
        self.exchange = GradientExchange(model, group)
        known = (*data.problems, *self.batches.known_bad)
        self.untold: list[Problem] = []
        self.problems = {problem.where: problem for problem in known}
        self.optimiser = make_optimiser(model, config.train, model.lr_factors())
        if self.on_gpu and config.train.precision == "auto" and self.precision == "fp32":
            print("train.precision = auto: fp32, as this GPU has no bf16", file=sys.stderr)
        self.forward: Callable[[Tensor, Tensor, _Inputs], Outputs] = (
            compiled(model) if runtime.compile else model
        )
        self.step = 0
        self.seconds = self.wait_seconds = 0.0
        # A GPU works on after the call returns, and waiting for it would cost each step time; and
        # in micro-batches the two take turns.
        timed = not self.on_gpu and self.micro_batch_size is None
        self.parts: dict[str, float] | None = (
            dict.fromkeys(("forward", "backward"), 0.0) if timed else None
        )
        self.meter = Meter(config.train, device)

    # ---------------------------------------------------------------- the run of it

    def train(self, stop: Callable[[], bool]) -> Trained:
        """Train to the budget.

        Raises:
            InterruptedRun: `stop()` turned true in any process; the state is on disk.
            DivergedError: the loss or the gradient is not finite, with the step.
            DataError: more samples are unusable than `runtime.max_bad_fraction` allows.
            RankLost: another process of the run is gone.
        """
        self._resume()
        self._bound_problems()
        self.model.train()
        with ExitStack() as stack:
            stack.enter_context(tf32(self.config.train.tf32))
            if self.config.train.norm_batch is None:
                stack.enter_context(global_statistics(self.model, self.group))
            recomputed = self.runtime.checkpoint_activations
            stack.enter_context(recomputed_activations(self.towers, recomputed))
            if self.writer is not None:
                stack.callback(self.writer.wait)
            return self._train(stop)

    def _train(self, stop: Callable[[], bool]) -> Trained:
        stream = self.batches.start(self.step)
        saved = logged = time.monotonic()
        while self.step < self.batches.steps:
            # ---- data
            began = time.monotonic()
            batch = next(stream)
            waited = time.monotonic()

            # ---- what every process must know
            self.untold += batch.problems
            if self._talk_is_due() and self._talk(stop()):
                self.meter.read()
                self._save(wait=True)
                self._beat("train")
                raise InterruptedRun(f"stopped at {self.samples_seen} samples; state saved")

            # ---- step
            self._step(batch)
            ended = time.monotonic()
            self.seconds += ended - began
            self.wait_seconds += waited - began

            # ---- write down
            if self._log_is_due():
                self.meter.read()
                self._log()
            if self._validation_is_due():
                self.meter.read()
                self._validate()
            if ended - logged >= self.runtime.log_seconds:
                self._beat("train")
                logged = ended
            if ended - saved >= self._seconds_between_states():
                self.meter.read()
                self._save()
                saved = time.monotonic()
        self._talk(stop=False)
        self.meter.read()
        self._save(wait=True)
        assert self.meter.last_loss is not None  # the budget is at least one step
        return Trained(
            samples_seen=self.samples_seen,
            steps=self.step,
            epochs=self.step / self.batches.per_epoch,
            seconds=self.seconds,
            wait_seconds=self.wait_seconds,
            parts=self.parts,
            final_loss=self.meter.last_loss,
            problems=tuple(self.problems.values()),
        )

    @property
    def samples_seen(self) -> int:
        """Pairs seen so far, a picture counted each time it is shown."""
        return self.step * self.config.train.batch_size

    # ---------------------------------------------------------------- one step

    def _step(self, batch: Batch) -> None:
        torch.manual_seed(self._step_seed())
        train = self.config.train
        set_learning_rate(self.optimiser, learning_rate(train, self.samples_seen))
        pixels = normalise(upload(batch.pictures, self.device), self.config.model.image)
        inputs = self._inputs(batch)
        tokens = upload(batch.tokens, self.device)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._mean(self._backward(pixels, tokens, inputs))
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), train.grad_clip or float("inf")
        )
        self.optimiser.step()
        self.towers.clamp_logit_scale()
        self.step += 1
        self.meter.add(self.step, loss, norm)

    def _step_seed(self) -> int:
        """Of what the towers draw; every process has draws of its own for its own pairs."""
        others = [self.group.rank] if self.group.rank else []
        return derive_seed(self.config.seed, "step", self.step, *others)

    def _backward(self, pixels: Tensor, tokens: Tensor, inputs: _Inputs) -> Loss:
        """The loss of this process; its gradient is left with the parameters."""

        def loss_of(outputs: Outputs) -> Loss:
            return compute_loss(self._tensors(outputs), self.config.objective)

        if self.micro_batch_size is None:
            began = time.monotonic()
            loss = loss_of(self._outputs(pixels, tokens, inputs))
            turned = time.monotonic()
            with self.exchange.overlapped():
                loss.total.backward()  # type: ignore[no-untyped-call]
            if self.parts is not None:
                self.parts["forward"] += turned - began
                self.parts["backward"] += time.monotonic() - turned
            return loss
        micro_batches = self._micro_batches(pixels, tokens, inputs, self.micro_batch_size)
        return cached_backward(micro_batches, loss_of, self.statistics, self.exchange, self.group)

    def _outputs(self, pixels: Tensor, tokens: Tensor, inputs: _Inputs) -> Outputs:
        with autocast(self.precision, self.device.type):
            return self.forward(pixels, tokens, inputs)

    def _micro_batches(
        self, pixels: Tensor, tokens: Tensor, inputs: _Inputs, size: int
    ) -> Sequence[Callable[[], Outputs]]:
        """What makes the outputs of `size` pairs at a time, and draws the same at each call.

        The draws of one are those of its place in the global batch.
        """
        firsts = range(0, len(pixels), size)

        def micro_batch(index: int, first: int) -> Outputs:
            if self.config.train.norm_batch is not None:
                place = self.group.rank * len(firsts) + index
                seed = derive_seed(self.config.seed, "step", self.step, "part", place)
                torch.manual_seed(seed)
            last = first + size
            own = {name: drawn.rows(first, last) for name, drawn in inputs.items()}
            return self._outputs(pixels[first:last], tokens[first:last], own)

        return [partial(micro_batch, index, first) for index, first in enumerate(firsts)]

    def _mean(self, loss: Loss) -> Loss:
        """The loss without graph, and the gradients, as means over the processes."""
        detached = loss.detached()
        self.exchange.finish([detached.total, *detached.raw.values(), *detached.weighted.values()])
        return detached

    def _inputs(self, batch: Batch) -> _Inputs:
        """What the terms draw for this process's pairs, a function of the step."""
        tokens = batch.tokens
        place = BatchPlace(
            self.config.seed,
            self.step,
            self.group.rank * len(tokens),
            self.group.size * len(tokens),
            self.config.model.text.context_length,
            self.towers.tokenizer.vocab_size,
            None if self.teachers is None else self.teachers.embed(batch),
        )
        drawn: dict[str, BatchInputs | None] = {
            name: term.inputs(tokens, replace(place, views=batch.views.get(name)))
            for name, term in self.model.terms.items()
        }
        if self.config.train.unpadded:
            drawn[UNPADDED] = unpadded(tokens)
        return {name: i.to(self.device) for name, i in drawn.items() if i is not None}

    def _tensors(self, outputs: Outputs) -> StepTensors:
        return StepTensors(
            outputs.image,
            outputs.text,
            self.towers.logit_scale,
            progress=self._progress(),
            of_terms=outputs.of_terms,
            modules=self.model.term_modules(),
            towers=self.towers,
            gather=self.group.all_gather,
            first=self.group.rank * len(outputs.image),
        )

    def _progress(self) -> float:
        return min(1.0, self.samples_seen / self.config.train.samples)

    # ---------------------------------------------------------------- what all must know

    def _talk_is_due(self) -> bool:
        """The same on all processes; one that is alone need not wait for anybody."""
        several_on_gpu = self.on_gpu and self.group.size > 1
        return not several_on_gpu or self.step % _STEPS_BETWEEN_TALKS_ON_GPU == 0

    def _talk(self, stop: bool) -> bool:
        """Whether any process is to stop; what any could not use is on the list of all."""
        stopping, problems = self.group.all_reduce_stop(stop, self.untold)
        self.untold = []
        if problems:
            self.problems.update({problem.where: problem for problem in problems})
            self._bound_problems()
        return stopping

    def _bound_problems(self) -> None:
        pictures = len(self.problems) - len({problem.where for problem in self.data.problems})
        share = self.data.share_lost(pictures, len(self.data.split("train")))
        if share > self.runtime.max_bad_fraction:
            shown = [f"{p.where} ({p.reason})" for p in list(self.problems.values())[:5]]
            more = f" and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
            raise DataError(
                f"{len(self.problems)} unusable samples, more than runtime.max_bad_fraction = "
                f"{self.runtime.max_bad_fraction:g} allows: {'; '.join(shown)}{more}"
            )

    # ---------------------------------------------------------------- files

    def _resume(self) -> None:
        """Take up the newest state on disk; the other processes that of the first, whatever it is.

        So all start equal, from the same weights and with the same problems on their list.
        """
        state = None
        if self.directory is not None:
            state = load_newest(self.directory.checkpoints)
            self._take_up(state)
            self.directory.rewind_logs(self.samples_seen)
        received = self.group.broadcast(lambda: to_bytes(self._state()))
        if received is not None:
            self._take_up(from_bytes(received))

    def _take_up(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            self.seconds, self.wait_seconds = state["seconds"], state["wait_seconds"]
            self.parts = self._parts_so_far(state)
            self.meter.take_up(state["meter"], state["last_loss"])
            self.problems.update({w: Problem(w, r) for w, r in state["problems"]})

    def _parts_so_far(self, state: Mapping[str, Any]) -> dict[str, float] | None:
        """None once an attempt, on other hardware or of an older version, did not time them."""
        before = state.get("parts")
        return None if self.parts is None or before is None else dict(before)

    def _save(self, *, wait: bool = False) -> None:
        if self.writer is not None:
            self.writer.save(self.step, self._state())
            if wait:
                self.writer.wait()

    def _seconds_between_states(self) -> float:
        stalled = self.writer.stalled if self.on_gpu and self.writer is not None else 0.0
        return max(self.runtime.checkpoint_seconds, _TRAINED_TO_STALLED * stalled)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "wait_seconds": self.wait_seconds,
            "parts": self.parts,
            "last_loss": self.meter.last_loss,
            "meter": self.meter.state(),
            "problems": [(p.where, p.reason) for p in self.problems.values()],
        }

    def _log_is_due(self) -> bool:
        every = self.runtime.log_samples
        if self.on_gpu:
            every = max(every, _STEPS_BETWEEN_LOGS_ON_GPU * self.config.train.batch_size)
        before = self.samples_seen - self.config.train.batch_size
        return self.samples_seen // every > before // every or self.step == self.batches.steps

    def _log(self) -> None:
        means = self.meter.take_means()
        if self.directory is None:
            return
        modules, progress = self.model.term_modules(), self._progress()
        line: dict[str, Any] = {}
        for name, term in self.model.terms.items():
            line |= term.log(progress, modules[name])
        line |= {
            "samples_seen": self.samples_seen,
            "step": self.step,
            **means,
            "lr": learning_rate(self.config.train, self.samples_seen),
            "logit_scale": float(self.towers.logit_scale.detach().exp()),
            "samples_per_second": self.samples_seen / self.seconds,
            "data_wait": self.wait_seconds / self.seconds,
        }
        self.directory.append_metrics(line)

    def _validation_is_due(self) -> bool:
        """Whether the step passed one of `runtime.validate_at`; the end is evaluated anyway."""
        before = self.samples_seen - self.config.train.batch_size
        passed = any(before < at <= self.samples_seen for at in self.runtime.validate_at)
        return passed and self.step < self.batches.steps

    def _validate(self) -> None:
        """By the first process, for which the others embed their share."""
        if self.directory is None:
            settings = self.config.evaluate
            help_to_evaluate(self.group, self.towers, self.data, settings, self.runtime)
            return
        with shared_evaluation(self.group) as share:
            found = validate(self.model, self.data, self.config, self.runtime, share)
        self.directory.append_progress(
            {"samples_seen": self.samples_seen, "step": self.step, **found}
        )

    def _beat(self, phase: str) -> None:
        if self.directory is None:
            return
        rate = self.samples_seen / self.seconds if self.step else None
        left = (self.batches.steps - self.step) * self.config.train.batch_size
        self.directory.write_status(
            State.RUNNING,
            attempt=self.attempt,
            phase=phase,
            samples_seen=self.samples_seen,
            samples=self.config.train.samples,
            seconds=self.seconds,
            samples_per_second=rate,
            data_wait=self.wait_seconds / self.seconds if self.step else None,
            loss=self.meter.last_loss,
            eta_seconds=left / rate if rate else None,
        )
