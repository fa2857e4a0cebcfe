"""What each objective adds to a training step: LightCLIP's, those it is compared with, teachers.

    python tests/benchmarks/objectives.py [--batch 64] [--size 112] [--layers 4] [--turns 3]
        [--only lightclip] [--set train.unpadded=true train.fused=true] [--json FILE]

The same towers, batch and optimiser, a step of CLIP and one of the objective in turns; medians of
CPU and wall seconds, their ratio turn by turn, and the peak memory of a process that takes the
same steps alone.  Each has processes of its own, as two models at a time are all that memory holds;
one that takes longer than `--limit` seconds, or fails, is a line that says so, and the exit status
is 1.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Sheet, in_turns, parser_of

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
FORK = multiprocessing.get_context("fork")


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


def in_child(work: Callable[[], object], limit: float) -> Any:
    """What `work` gives, in a process forked off; raises RuntimeError if it fails or takes long."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: sender.send(work()))
    child.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            child.kill()
            raise RuntimeError(f"took longer than {limit:.0f} s")
        return receiver.recv()
    except EOFError:
        raise RuntimeError("failed") from None
    finally:
        child.join()


def peak_mb(step: Callable[[], Callable[[], None]]) -> float:
    """What two steps add at their peak to this process, which has done nothing before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory("VmRSS")
    made = step()
    made()
    made()
    return (_memory("VmHWM") - before) / 1024


def _memory(which: str) -> int:
    """In kB, of this process; not ru_maxrss, which a child inherits."""
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if which in s]
    return int(line.split()[1])


def main() -> int:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of one of them")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
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

    def step(name: str) -> Callable[[], None]:
        return make_step(override(base, VARIANTS[name]), pictures)

    failures = 0
    with Sheet(given.json) as sheet:
        sheet.say(
            f"{given.backbone} {given.size} px, text {given.layers} x {base.model.text.width}, "
            f"batch {given.batch}, 1 thread, {given.turns} turns"
        )
        plain = in_child(lambda: peak_mb(lambda: step("clip")), given.limit)
        for name in given.only:
            try:
                peak = in_child(lambda n=name: peak_mb(lambda: step(n)), given.limit)
                works = ("clip", name)
                times = in_child(
                    lambda w=works: in_turns({k: step(k) for k in w}, given.turns), given.limit
                )
            except RuntimeError as error:
                failures += 1
                sheet.say(f"{name:>17}: {error}", name=name, failed=str(error))
                continue
            ratios = times["clip"].ratios(times[name])
            sheet.say(
                f"{name:>17}: {times[name]}, {ratios['cpu']:.2f} x CLIP's CPU s, "
                f"{ratios['wall']:.2f} x its wall s; peak {peak:5.0f} MB, {peak / plain:.2f} x",
                name=name,
                **times[name].medians(),
                ratios=ratios,
                megabytes=peak,
            )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
