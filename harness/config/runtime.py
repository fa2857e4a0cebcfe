"""Where and how a run happens, which is no part of what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import (
    Field,
)

from harness.config.identity import Float, Int, Strict
from harness.config.values import divisors_near
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.config.training import Train


class Runtime(Strict):
    """Where and how a run happens; never part of its identity."""

    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`.  Elsewhere: gpu, accelerator."""
    threads: Annotated[Int, Field(ge=1)] = 1
    """Torch threads of each process of a run.  A run's last bits depend on them, so it has no more
    or fewer for what slots, cores or a profile leave free.  Elsewhere: num_threads, cpus,
    omp_threads."""
    workers: Annotated[Int, Field(ge=0)] | None = None
    """Processes that decode pictures for one run; 0: in the run's own process.  With several
    `processes`, for each of them.  null: for a run on a GPU its share of the machine's cores, up to
    12; else none.  Elsewhere: num_workers, dataloader_workers, n_workers."""
    processes: Annotated[Int, Field(ge=1)] = 1
    """Processes that train one run together, each on its share of every batch, with a GPU or
    `threads` of its own.  The batch, and so the run, is the same for any number.
    Elsewhere: gpus, world_size, nproc_per_node, num_gpus, ranks, n_gpus."""
    process_timeout: Annotated[Float, Field(gt=0)] = 600.0
    """Seconds that the processes of a run wait for one another before it fails."""
    micro_batch: Annotated[Int, Field(ge=1)] | None = None
    """Pairs that pass through the towers at once on a process, to save memory at the price of a
    second forward pass; the loss is that of the whole batch.  null: all at once.
    Elsewhere: accum_freq, grad_accum, gradient_accumulation_steps, accumulation_steps, microbatch,
    per_device_batch_size, local_batch_size, grad_cache."""
    checkpoint_activations: bool = False
    """Whether the blocks of both towers are computed again in the backward pass, to save memory at
    the price of a second forward pass; the bits stay the same.  A run that was out of memory goes
    on so by itself.  Elsewhere: grad_checkpointing, gradient_checkpointing,
    activation_checkpointing."""
    checkpoint_seconds: Annotated[Float, Field(gt=0)] = 60.0
    """Least time between two states on disk that a stopped run goes on from; on a GPU it is 50
    times as long as a state keeps the training waiting, if that is more.  Elsewhere: save_every,
    save_frequency, save_interval, save_steps, checkpoint_every."""
    log_seconds: Annotated[Float, Field(gt=0)] = 1.0
    """Least time between two rewrites of status.json."""
    log_samples: Annotated[Int, Field(ge=1)] = 2_000
    """Samples between two lines of metrics.jsonl; on a GPU 50 steps or more.
    Elsewhere: log_every, log_interval, log_steps, log_every_n_steps, logging_steps, print_freq."""
    log: tuple[str, ...] = ()
    """Loggers that get each line of metrics.jsonl and progress.jsonl too: `tensorboard`, `wandb`,
    or one that a sweep file registers.  Elsewhere: report_to, logger, loggers, wandb, tensorboard,
    use_wandb."""
    validate_at: tuple[Int, ...] = ()
    """Samples seen at which the split `validation` is evaluated, between two steps; a line of
    progress.jsonl each.  A search sets it; what is trained stays the same, bit by bit.
    Elsewhere: eval_every, val_frequency, eval_interval, validate_every, eval_steps."""
    compile: bool = False
    """Whether the forward pass is compiled (torch.compile): slower to start, faster a step.
    Elsewhere: torch_compile, torchcompile."""
    deterministic: bool = False
    """On a GPU: only algorithms that give the same bits each time, some of them slower; an
    operation that has none fails the run.  A CPU has no others.  Elsewhere: cudnn_deterministic,
    use_deterministic_algorithms."""
    max_bad_fraction: Annotated[Float, Field(ge=0, le=1)] = 0.01
    """Share of unusable samples past which a run fails instead of training on the rest."""
    max_pixels: Annotated[Int, Field(ge=1)] = 64_000_000
    """Pictures with more pixels (read from the header) are not decoded but counted as bad."""
    decode_cache_mb: Annotated[Int, Field(ge=0)] = 512
    """Decoded pictures kept in memory by one run, in MB."""
    cache: str | None = None
    """Folder for drawings, indexes, fetched shards and text embeddings; null:
    ~/.cache/lightclip-harness.  Elsewhere: cache_dir."""
    spool_mb: Annotated[Int, Field(ge=1)] = 50_000
    """Fetched shards kept in `cache`, in MB, for all processes of a machine."""
    data_root: str | None = None
    """Folder that holds the data sets of `evaluate.suites`, each in a folder of its name.
    Elsewhere: benchmark_root, eval_data, dataset_root."""


def check_processes(train: Train, runtime: Runtime) -> None:
    """Raise ConfigError unless every process gets the same share of every batch.

    Also where ways to save memory exclude one another.
    """
    if runtime.compile and runtime.checkpoint_activations:
        raise ConfigError(
            "runtime.checkpoint_activations with runtime.compile: a compiled pass chooses by "
            "itself what it keeps; leave one of them out"
        )
    processes, batch_size, norm_batch = runtime.processes, train.batch_size, train.norm_batch
    if batch_size % processes:
        near = ", ".join(map(str, divisors_near(batch_size, processes)))
        raise ConfigError(
            f"runtime.processes = {processes} does not divide train.batch_size = {batch_size}; "
            f"nearest that do: {near}"
        )
    if norm_batch is None:
        return
    if batch_size % (norm_batch * processes):
        near = ", ".join(map(str, divisors_near(batch_size // norm_batch, processes)))
        raise ConfigError(
            f"train.batch_size = {batch_size} holds {batch_size // norm_batch} times "
            f"train.norm_batch = {norm_batch}, which runtime.processes = {processes} does not "
            f"divide; nearest that do: {near}"
        )
    if runtime.micro_batch is not None:
        raise ConfigError(
            f"runtime.micro_batch = {runtime.micro_batch} with train.norm_batch = {norm_batch}: "
            "the towers take norm_batch pairs at once already; leave micro_batch out"
        )
