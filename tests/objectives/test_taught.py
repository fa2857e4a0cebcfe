"""The terms that imitate teachers: against open_clip's, by hand, and what is in a run's key."""

import math

import open_clip
import pytest
import torch
from torch.nn import functional as F

from harness.bases import SMALL
from harness.config import override
from harness.config.inheritance import TeacherName, read_teacher
from harness.config.sweep import expand
from harness.errors import ConfigError, SweepError
from harness.launch.slurm.rehearse import short_runs
from harness.models.training import TrainingModel
from harness.objectives.affinity import AffinityLoss
from harness.objectives.feature import FeatureLoss
from harness.objectives.interactive import InteractiveLoss
from harness.objectives.taught import TaughtPairs
from harness.objectives.terms import StepTensors
from harness.planning.costs import STEP_OVER_FORWARD, training_gmacs
from harness.planning.plan import Rerun, make_plan
from harness.space import Show, Sweep, points
from harness.store.record import Store
from tests.train.rank_cases import CLIP

TERMS = {"affinity": AffinityLoss, "feature": FeatureLoss, "interactive": InteractiveLoss}
MODELS, VIEWS = "teacher.models", "teacher.views"
AFFINITY = "objective.affinity.weight"
LAYERS, INIT = "model.text.layers", "model.text.init"


def unit(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=rng), dim=-1)


def student(seed=0, n=6, d=5):
    image, text = (
        unit(n, d, seed=seed).requires_grad_(),
        unit(n, d, seed=seed + 50).requires_grad_(),
    )
    return image, text, torch.tensor(math.log(7.0)).requires_grad_()


def taught(seed=9, n=6, d=5, scale=11.0):
    return (unit(n, d, seed=seed), unit(n, d, seed=seed + 70), torch.full((n,), scale))


def loss_of(name, student, *teachers, module=None):
    image, text, scale = student
    step = StepTensors(image, text, scale, progress=0.0)
    pairs = TaughtPairs([tensor for teacher in teachers for tensor in teacher])
    return TERMS[name](weight=1.0).loss(step, pairs, module)


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize("seed", range(3))
def test_affinity_is_open_clips_distillation_in_value_and_gradient(seed):
    ours, theirs = student(seed), student(seed)
    teacher = taught(seed + 9, d=8)
    loss = loss_of("affinity", ours, teacher)
    image, text, scale = theirs
    _, expected = open_clip.loss.DistillClipLoss()(
        image, text, scale.exp(), teacher[0], teacher[1], teacher[2][0]
    )
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-6)


def test_an_ensemble_is_averaged_after_the_softmax():
    own, first, second = student(), taught(1, scale=3.0), taught(2, d=9, scale=20.0)
    image, text, scale = (tensor.detach() for tensor in own)
    expected = 0.0
    for turn in (0, 1):
        targets = [
            (s[0] * (pair[turn] @ pair[1 - turn].T)).softmax(dim=1) for *pair, s in (first, second)
        ]
        one, other = (image, text) if turn == 0 else (text, image)
        own_log = (scale.exp() * one @ other.T).log_softmax(dim=1)
        expected -= ((targets[0] + targets[1]) / 2 * own_log).sum(dim=1).mean() / 2
    assert loss_of("affinity", own, first, second).item() == pytest.approx(
        expected.item(), abs=1e-6
    )


def test_feature_by_hand():
    # a picture at a right angle to the teacher's is |(1, -1)|^2 = 2 away, the text 0
    e1, e2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    scale = torch.ones(1)
    found = loss_of("feature", (e1, e1, torch.tensor(0.0)), (e2, e1, scale), (e1, e1, scale))
    assert found.item() == pytest.approx((2 + 0) / 2, abs=1e-6)


def test_interactive_with_oneself_is_clips_loss_and_knows_no_other_temperature():
    image, text, scale = student()
    own = (image.detach(), text.detach(), torch.full((6,), 99.0))
    expected = open_clip.loss.ClipLoss()(image, text, scale.exp())
    assert loss_of("interactive", (image, text, scale), own).item() == pytest.approx(
        expected.item(), abs=1e-6
    )


@pytest.mark.parametrize("name", ["affinity", "feature"])
def test_the_gradient_is_0_where_the_run_is_its_teacher(name):
    image, text = unit(6, 5).double(), unit(6, 5, seed=1).double()
    scale = torch.tensor(7.0, dtype=torch.float64)
    own = [tensor.clone().requires_grad_() for tensor in (image, text, scale.log())]
    loss_of(name, own, (image, text, scale.expand(6))).backward()
    assert all(tensor.grad is None or tensor.grad.abs().max() < 1e-12 for tensor in own)


@pytest.mark.parametrize("name", ["feature", "interactive"])
def test_a_teacher_of_another_width_has_projections_that_no_tower_has(name):
    values = {f"objective.{name}.weight": 1.0, MODELS: ["run 1a2b", "run 3c4d"]}
    config = override(CLIP, {**values, "teacher.widths": [8, 6], "model.text.vocabulary": "full"})
    model = TrainingModel(config, None)
    shapes = {n: tuple(tensor.shape) for n, tensor in model.training_only().items()}
    assert shapes == {f"{name}.image_1.weight": (6, 8), f"{name}.text_1.weight": (6, 8)}
    module = model.term_modules()[name]
    own = student(d=8)
    loss_of(name, own, taught(1, d=8), taught(2, d=6), module=module).backward()
    assert module["text_1"].weight.grad.abs().max() > 0
    plain = TrainingModel(override(CLIP, {"model.text.vocabulary": "full"}), None)
    assert set(model.model.state_dict()) == set(plain.model.state_dict())


# --------------------------------------------------------------------------- names and keys


def test_names_are_read_whatever_their_spaces_and_written_in_one_way():
    assert read_teacher(" 12  layers") == TeacherName(layers=12)
    assert read_teacher("run1a2b") == TeacherName(run="1a2b")
    assert read_teacher("./clip") == TeacherName(path="./clip")
    assert read_teacher("ViT-B-32:w.pt") == TeacherName(path="w.pt", architecture="ViT-B-32")
    assert override(SMALL, {MODELS: "12layers"}).teacher.models == ("12 layers",)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({MODELS: "even of 12"}, "'even of 12' is not understood; allowed are '12 layers' of"),
        ({MODELS: [3]}, r"teacher\.models"),
        ({AFFINITY: 1.0}, r"objective\.affinity\.weight = 1 without teacher\.models; allowed are"),
        ({VIEWS: 0}, "greater than or equal to 1"),
        (
            {"teacher.model": "12 layers"},
            r"unknown field 'teacher\.model'; nearest: teacher\.models",
        ),
        ({MODELS: "12 layers", "teacher.content": ["a", "b"]}, "content is of 2 .* 1 models"),
    ],
)
def test_what_cannot_be_is_refused(values, line):
    with pytest.raises(ConfigError, match=line):
        override(SMALL, values)


def sweep_of(*chosen, base=SMALL):
    return Sweep(base=base, points=points(*chosen), seeds=[0], show=Show(x=LAYERS, metrics=[]))


def test_the_key_covers_who_teaches_and_the_views_and_not_the_wording():
    taught = {LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers"}
    (run,) = expand(sweep_of(taught))
    elder = override(SMALL, {LAYERS: 4})
    assert run.config.teacher.content == (f"run {elder.run_key}",)
    assert run.config.teacher.widths == (SMALL.model.embed_dim,)
    assert [(p.label, p.config) for p in run.parents] == [("layers=4", elder)]
    named = sweep_of({**taught, MODELS: f"run {elder.run_key[:6]}"})
    (same,) = expand(named, finished={elder.run_key[:6]: elder}.__getitem__)
    assert same.key == run.key
    keys = {run.key}
    for other in ({MODELS: "5 layers"}, {VIEWS: 3}, {MODELS: ["4 layers", "5 layers"]}):
        keys.add(expand(sweep_of({**taught, **other}))[0].key)
    assert len(keys) == 4
    assert override(SMALL, {MODELS: "4 layers", VIEWS: 3}).run_key == SMALL.run_key


def test_what_a_taught_run_starts_from_was_not_taught():
    both = {LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers", INIT: "first of 4"}
    (run,) = expand(sweep_of(both))
    (parent,) = run.parents
    assert parent.key == override(SMALL, {LAYERS: 4}).run_key
    assert run.config.model.text.init_parent == parent.key


def test_a_teacher_that_would_have_no_loss_of_its_own_is_refused():
    alone = {AFFINITY: 1.0, "objective.instance.weight": 0.0, MODELS: "4 layers"}
    with pytest.raises(ConfigError, match="no term of its loss would be left; name a finished run"):
        expand(sweep_of(alone))
    with pytest.raises(SweepError, match="teacher 'run 1a2b': there is no store"):
        expand(sweep_of({**alone, MODELS: "run 1a2b"}))


def test_the_plan_has_a_live_teacher_first_and_a_stored_one_not_at_all(tmp_path):
    runs = expand(sweep_of({LAYERS: 1}, {LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers"}))
    plan = [(s.run.label, s.note, s.waits_for) for s in make_plan(runs, Store(tmp_path))]
    teacher = override(SMALL, {LAYERS: 4}).run_key
    assert [line[1:] for line in plan] == [("parent", ()), ("", ()), ("", (teacher,))]
    stored = expand(sweep_of({LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers", VIEWS: 2}))
    assert [step.waits_for for step in make_plan(stored, Store(tmp_path))] == [()]


def test_a_rehearsal_has_no_teacher_that_is_a_run():
    alone = {LAYERS: 1, AFFINITY: 1.0, "objective.instance.weight": 0.0, MODELS: "run 1a2b"}
    elder = override(SMALL, {LAYERS: 4})
    runs = expand(sweep_of(alone), finished={"1a2b": elder}.__getitem__)
    runs += expand(sweep_of({LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers", INIT: "first of 4"}))
    short = short_runs(runs)
    assert [run.parents for run in short] == [()]
    assert short[0].config.teacher.models == ()
    assert list(short[0].config.objective.active) == ["instance"]


def test_a_live_teachers_forward_passes_are_in_the_estimate():
    plain = override(SMALL, {LAYERS: 1})
    taught = override(plain, {AFFINITY: 1.0, MODELS: "1 layers"})
    ratio = training_gmacs(taught, 64) / training_gmacs(plain, 64)
    assert ratio == pytest.approx((STEP_OVER_FORWARD + 1) / STEP_OVER_FORWARD)
    stored = override(taught, {VIEWS: 2})
    assert training_gmacs(stored, 64) == training_gmacs(plain, 64)
    deeper = override(taught, {MODELS: "12 layers"})
    assert training_gmacs(deeper, 64) > training_gmacs(taught, 64)


def test_a_cut_off_run_has_need_of_its_teacher_still(tmp_path):
    store = Store(tmp_path)
    (run,) = expand(sweep_of({LAYERS: 1, AFFINITY: 1.0, MODELS: "4 layers", INIT: "first of 3"}))
    directory = store.run_dir(run.key)
    directory.write_intent(run.config, {})
    assert len(make_plan([run], store)) == 3
    directory.checkpoints.mkdir()
    (directory.checkpoints / "step-00000002-0123456789abcdef.pt").touch()
    teacher, own = make_plan([run], store)
    assert own.waits_for == (teacher.run.key,)
    assert teacher.run.config.model.text.layers == 4
    assert len(make_plan([run], store, Rerun.ALL)) == 2
