"""Runs that imitate live teachers: processes, parts and interruptions are nothing to them, and what
cannot teach is told before a step is taken."""

import hashlib
import json

import open_clip
import pytest
import safetensors.torch
import torch

from harness.config import override
from harness.data.text import corpus_rows
from harness.errors import ConfigError, RecordError
from harness.models import teachers
from harness.models.export import load_model, open_clip_config, write_open_clip
from harness.models.training import TrainingModel
from harness.store.record import RunDir
from harness.train.checkpoint import load_weights, save_final
from harness.train.distributed import SINGLE_PROCESS
from harness.train.teacher import load_teacher, read_teacher
from tests.train import rank_cases
from tests.train.rank_cases import (
    CLIP,
    VIT,
    after,
    assert_same,
    gradients,
    on_ranks,
    uneven_data,
    weights,
)

TEACHERS = {
    "wide": override(CLIP, {"model.embed_dim": 6, "model.image.size": 48, "seed": 3}),
    "own": override(CLIP, {"model.text.layers": 3, "model.text.vocabulary": "full"}),
}
IMITATED = {
    "objective.affinity.weight": 0.7,
    "objective.feature.weight": 0.3,
    "objective.interactive.weight": 0.2,
    "objective.interactive.schedule": "linear",
}


def finish(folder, config):
    """A finished run that was never trained, as far as a teacher needs one."""
    captions = (c for captions in uneven_data().split("train").captions for c in captions)
    rows = corpus_rows(captions) if config.model.text.vocabulary == "corpus" else None
    model = TrainingModel(config, rows).model.float()
    directory = RunDir(folder / config.run_key)
    directory.write_intent(config, {})
    file, sha256 = save_final(directory.checkpoints, model)
    return rewrite(directory, {"file": f"checkpoints/{file.name}", "sha256": sha256})


def rewrite(directory, checkpoint):
    training = {"samples_seen": 48, "seconds": 1.0}
    about = {"code": "", "training": training, "cost": {}, "evaluations": {}}
    directory.write_result({**about, "checkpoint": checkpoint})
    return directory


def taught_by(*configs, base=CLIP, **values):
    return override(
        base,
        {
            **IMITATED,
            "teacher.models": [f"run {config.run_key}" for config in configs],
            "teacher.content": [f"run {config.run_key}" for config in configs],
            "teacher.widths": [config.model.embed_dim for config in configs],
            **values,
        },
    )


def trainer(folder, config, ranks=SINGLE_PROCESS, **runtime):
    """As of a run that has begun an attempt."""
    if ranks.rank == 0:
        RunDir(folder / config.run_key).add_provenance({})
    return rank_cases.trainer(folder, config, ranks, **runtime)


TAUGHT = taught_by(*TEACHERS.values())


@pytest.fixture
def runs(tmp_path):
    """A folder of runs in which the teachers have finished."""
    folder = tmp_path / "runs"
    for config in TEACHERS.values():
        finish(folder, config)
    return folder


def to_the_end(folder, config=TAUGHT, ranks=SINGLE_PROCESS, **runtime):
    t = trainer(folder, config, ranks, **runtime)
    t.train(lambda: False)
    return weights(t)


def away(runs, config=TAUGHT):
    """What a run left is taken away, the teachers stay."""
    RunDir(runs / config.run_key).set_aside()


# --------------------------------------------------------------------------- one training


@pytest.mark.usefixtures("in_64_bits")
def test_two_processes_train_the_weights_of_one(runs, tmp_path):
    alone = to_the_end(runs)
    away(runs)
    first, second = on_ranks(tmp_path, 2, lambda ranks: to_the_end(runs, ranks=ranks))
    assert_same(first, alone, 1e-8)
    for name, value in first.items():
        assert torch.equal(second[name], value), name


@pytest.mark.usefixtures("in_64_bits")
def test_parts_have_the_gradients_of_the_whole(runs):
    config = taught_by(*TEACHERS.values(), base=override(CLIP, VIT))
    whole = gradients(after(trainer(runs, config), 1))
    away(runs, config)
    parts = gradients(after(trainer(runs, config, micro_batch=3), 1))
    assert whole["feature.image_0.weight"].abs().max() > 0
    assert_same(parts, whole, 1e-9)


def test_a_run_cut_off_and_resumed_has_the_same_bits(runs):
    whole = to_the_end(runs)
    away(runs)
    for _ in range(2):
        after(trainer(runs, TAUGHT), 2)
    resumed = to_the_end(runs)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_teachers_learn_nothing_and_are_nowhere_counted(runs):
    t = trainer(runs, TAUGHT)
    before = [p.clone() for each in t.teachers._teachers for p in each.model.parameters()]
    t.train(lambda: False)
    after_it = [p for each in t.teachers._teachers for p in each.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after_it, strict=True))
    assert set(t.model.training_only()) == {
        f"{term}.{tower}_0.weight"
        for term in ("feature", "interactive")
        for tower in ("image", "text")
    }
    noted = RunDir(runs / TAUGHT.run_key).noted("teachers")
    assert [entry["run"] for entry in noted] == [c.run_key for c in TEACHERS.values()]


def test_a_batch_is_the_same_with_and_without_teachers(runs):
    plain = next(trainer(runs, CLIP).batches.start())
    taught = next(trainer(runs, TAUGHT).batches.start())
    assert torch.equal(plain.pictures, taught.pictures)
    assert plain.lesson is None
    assert list(taught.lesson.pictures) == [48]
    big = trainer(runs, override(CLIP, {"model.image.size": 48})).batches
    assert torch.equal(next(big.start()).pictures, taught.lesson.pictures[48])


# --------------------------------------------------------------------------- files as teachers


def embedded(teacher, pictures, captions):
    return torch.cat(teacher.embed(pictures, captions, "fp32"))


@pytest.fixture
def exported(tmp_path):
    """A finished run and its export's folder."""
    values = {"model.image.output_stride": None, "model.text.vocabulary": "full"}
    directory = finish(tmp_path / "runs", override(CLIP, values))
    model = load_model(
        directory.read_config().model,
        load_weights(directory.path, directory.finished()["checkpoint"]),
    )
    write_open_clip(model, tmp_path / "clip")
    return directory, tmp_path / "clip"


def test_an_export_and_a_checkpoint_teach_what_the_run_does(exported, tmp_path, monkeypatch):
    run, folder = exported
    own = load_teacher(read_teacher("run 1a2b"), f"run {run.key}", run.path.parent)
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    captions = ["a red bar", "a blue frame and on and on"]
    description = tmp_path / "tiny.json"
    description.write_text(json.dumps(open_clip_config(run.read_config().model)["model_cfg"]))
    monkeypatch.setattr(teachers, "_described", lambda name: description)
    open_clip.add_model_config(description)
    for text in (f"{folder}/", f"tiny:{folder / 'open_clip_model.safetensors'}"):
        name = read_teacher(text)
        content, width = teachers.content_of(name)
        assert width == 8
        found = embedded(load_teacher(name, content, folder), pictures, captions)
        torch.testing.assert_close(found, embedded(own, pictures, captions), rtol=0, atol=2e-5)


def test_a_file_is_known_by_what_it_holds(exported):
    _, folder = exported
    base = override(CLIP, {**IMITATED, "teacher.models": f"{folder}/"})
    filled = override(base, teachers.with_teacher_files(base))
    assert filled.teacher.content[0].startswith("export ")
    assert filled.teacher.widths == (8,)
    assert filled.run_key != base.run_key
    weights_file = folder / "open_clip_model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="its content has changed since"):
        teachers.with_teacher_files(filled)
    with pytest.raises(ConfigError, match="its content has changed since"):
        load_teacher(read_teacher(f"{folder}/"), filled.teacher.content[0], folder)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("./nowhere", r"'nowhere' is no export: it holds no open_clip_config\.json and 0 files"),
        ("ViT-B-33:w.pt", r"unknown open_clip architecture 'ViT-B-33'; nearest: ViT-B-32"),
        ("ViT-B-32:nowhere.pt", r"'nowhere\.pt' cannot be read: No such file"),
    ],
)
def test_a_file_that_is_none_is_told(text, line):
    with pytest.raises(ConfigError, match=line):
        teachers.content_of(read_teacher(text))


# --------------------------------------------------------------------------- what cannot teach


def test_a_run_that_has_not_finished_teaches_nobody(tmp_path):
    other = override(CLIP, {"seed": 9})
    RunDir(tmp_path / other.run_key).write_intent(other, {})
    with pytest.raises(RecordError, match=f"run {other.run_key} is new at 0 of 48 samples"):
        trainer(tmp_path, taught_by(other))


def test_numbers_that_are_none_are_told_before_training(runs):
    config = TEACHERS["own"]
    directory = RunDir(runs / config.run_key)
    state = load_weights(directory.path, directory.finished()["checkpoint"])
    state["text.token_embedding.weight"][77] = float("nan")  # of a token that no probe has
    data = safetensors.torch.save(state)
    (directory.checkpoints / "bad.safetensors").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    rewrite(directory, {"file": "checkpoints/bad.safetensors", "sha256": sha256})
    with pytest.raises(ConfigError, match="gives embeddings that are no numbers"):
        trainer(runs, TAUGHT)


def test_a_teacher_that_cuts_captions_is_told_before_training(tmp_path):
    short = override(CLIP, {"model.text.context_length": 5, "seed": 4})
    finish(tmp_path, short)
    with pytest.raises(ConfigError, match=r"cuts \d+ of \d+ captions that this run reads whole"):
        trainer(tmp_path, taught_by(short))
    trainer(tmp_path, taught_by(short, base=override(CLIP, {"model.text.context_length": 5})))


def test_a_run_goes_on_with_the_teachers_that_it_began_with(runs):
    after(trainer(runs, TAUGHT), 2)
    config = TEACHERS["own"]
    RunDir(runs / config.run_key).set_aside()
    finish(runs, override(config, {"seed": config.seed}))
    after(trainer(runs, TAUGHT), 1)  # the same weights again
    directory = RunDir(runs / config.run_key)
    state = load_weights(directory.path, directory.finished()["checkpoint"])
    state["logit_scale"] += 1
    data = safetensors.torch.save(state)
    (directory.checkpoints / "other.safetensors").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    rewrite(directory, {"file": "checkpoints/other.safetensors", "sha256": sha256})
    with pytest.raises(RecordError, match="began with teachers that are not these any more"):
        trainer(runs, TAUGHT)
