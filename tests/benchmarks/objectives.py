"""What each objective adds to a training step: LightCLIP's, those it is compared with, teachers.

    python tests/benchmarks/objectives.py [--batch 128] [--size 112] [--layers 4] [--turns 3]
        [--only lightclip] [--set train.unpadded=true train.fused=true]

The same towers, batch and optimiser in one run, a step each in turn; medians of CPU seconds, their
ratio to CLIP's turn by turn, and the peak memory of a process that takes the same steps alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.bases import GROUNDED, LIGHTCLIP
from harness.config import RunConfig, Runtime, override
from harness.config.overrides import parse_assignments
from harness.data import taught
from harness.data.loader import Batch, Lesson
from harness.data.taught import Whole
from harness.data.transforms import normalise
from harness.device import autocast, set_up
from harness.models.text import unpadded
from harness.models.training import UNPADDED, TrainingModel
from harness.models.two_tower import TwoTower
from harness.objectives.terms import BatchPlace, StepTensors, compute_loss
from harness.train.optimiser import make_optimiser
from harness.train.teacher import LiveTeachers, LoadedTeacher, StoredTeachers, Teachers

CAPTIONS = [
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "A black dog and a spotted dog are fighting",
    "Two people are standing on a snowy hill .",
    "A man in a blue shirt is riding a bicycle down a dirt road .",
]
WITHOUT_CLIP = {"objective.instance.weight": 0.0}
TOKEN = {"objective.token.weight": 0.5}
MLM = {"objective.mlm.weight": 0.5}
TAUGHT = {
    "objective.affinity.weight": 1.0,
    "teacher.models": "12 layers",
    "teacher.content": ["run it"],
    "teacher.widths": [512],
}
VARIANTS: dict[str, dict[str, object]] = {
    "clip": {},
    "token": TOKEN,
    "token, 8 pictures": {**GROUNDED, **TOKEN},
    "mlm": MLM,
    "mlm, gates open": {**GROUNDED, **MLM},
    "lightclip": {name: v for name, v in LIGHTCLIP.items() if name.startswith("objective.")},
    "label smoothing": {"objective.instance.a_max": 0.1, "objective.instance.weighting": "uniform"},
    "sigmoid": {"objective.sigmoid.weight": 1.0, **WITHOUT_CLIP},
    "self_similarity": {"objective.self_similarity.weight": 1.0, **WITHOUT_CLIP},
    "grouped": {"objective.grouped.weight": 1.0},
    "late": {"objective.late.weight": 1.0},
    "late, all tokens": {"objective.late.weight": 1.0, "objective.late.keep": 1.0},
    "nearest": {"objective.nearest.weight": 1.0},
    "views": {"objective.views.weight": 1.0},
    "views, one more": {"objective.views.weight": 1.0, "objective.views.count": 1},
    "taught, live": TAUGHT,
    "taught, stored": {**TAUGHT, "teacher.views": 1},
}
TEACHER_LAYERS = 12


def teachers_of(config: RunConfig) -> Teachers | None:
    """A teacher of the same towers at `TEACHER_LAYERS`, live or with the batch stored."""
    if "teacher" in config.idle():
        return None
    above = override(config, {"model.text.layers": TEACHER_LAYERS}).model
    image = config.model.image
    teacher = LoadedTeacher("it", TwoTower(above, None, 1).eval(), image.size, image, {})
    if config.teacher.views is None:
        return LiveTeachers([teacher], image.size, "fp32")
    count = config.train.batch_size
    rows = np.random.default_rng(0).normal(size=(count, 2, config.model.embed_dim))
    folder = Path(tempfile.mkdtemp())
    taught.write_part(folder, 0, 0, rows.astype(np.float16), {})
    whole = Whole(folder, count, config.model.embed_dim, 1, teacher.scale, {}, ())
    return StoredTeachers([whole], 1, str)


def make_step(config: RunConfig, pictures: torch.Tensor) -> Callable[[], None]:
    """A step of the objectives of `config`, as the training loop takes it."""
    model = TrainingModel(config, None).train()
    optimiser = make_optimiser(model, config.train)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(pictures))]
    tokenizer, teachers = model.model.tokenizer, teachers_of(config)
    places = torch.arange(len(pictures))
    lesson = Lesson(places, torch.zeros_like(places), tuple(captions), {})
    further = torch.stack([pictures.flip(2), pictures.flip(1)], dim=1)

    def step() -> None:
        tokens = tokenizer(captions)
        place = BatchPlace(
            seed=0,
            step=0,
            first=0,
            size=len(tokens),
            context_length=tokenizer.context_length,
            vocab_size=tokenizer.vocab_size,
            taught=teachers and teachers.embed(Batch(pictures, tokens, (), {}, lesson)),
        )
        drawn = {
            name: term.inputs(tokens, replace(place, views=further[:, : term.further_views]))
            for name, term in model.terms.items()
        }
        inputs: dict[str, Any] = {n: i for n, i in drawn.items() if i is not None}
        if config.train.unpadded:
            inputs[UNPADDED] = unpadded(tokens)
        with autocast(config.train.precision, "cpu"):
            outputs = model(normalise(pictures, config.model.image), tokens, inputs)
        tensors = StepTensors(
            outputs.image,
            outputs.text,
            model.model.logit_scale,
            progress=0.5,
            of_terms=outputs.of_terms,
            modules=model.term_modules(),
            towers=model.model,
        )
        optimiser.zero_grad(set_to_none=True)
        compute_loss(tensors, config.objective).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--alone", choices=VARIANTS, help="take two steps and print peak memory")
    parser.add_argument("--set", nargs="*", default=[], help="such as train.unpadded=true")
    given = parser.parse_args()
    base = override(
        RunConfig(),
        {
            "model.image.backbone": given.backbone,
            "model.image.size": given.size,
            "model.text.layers": given.layers,
            "train.batch_size": given.batch,
            **parse_assignments(given.set)[0],
        },
    )
    set_up(Runtime(), torch.device("cpu"))
    size = (given.batch, given.size, given.size, 3)
    drawn = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    pictures = torch.from_numpy(drawn)
    if given.alone:
        step = make_step(override(base, VARIANTS[given.alone]), pictures)
        step()
        step()
        print(_peak_mb())
        return
    steps = {
        name: make_step(override(base, v), pictures)
        for name, v in VARIANTS.items()
        if name in {"clip", *given.only}
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(given.turns + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - began)
    print(
        f"{given.backbone} {given.size} px, text {given.layers} x {base.model.text.width}, "
        f"batch {given.batch}, 1 thread, {given.turns} turns"
    )
    memory = {name: _memory_alone(name) for name in steps}
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["clip"], strict=True))
        print(
            f"{name:>17}: {statistics.median(times):6.2f} CPU s a step, {ratio:.2f} x CLIP; "
            f"peak {memory[name]:5.0f} MB, {memory[name] / memory['clip']:.2f} x"
        )


def _peak_mb() -> float:
    """Peak resident memory of this process; not ru_maxrss, which a child inherits (Linux)."""
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s]
    return int(line.split()[1]) / 1024


def _memory_alone(name: str) -> float:
    command = [sys.executable, *sys.argv, "--alone", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
