"""The loop on a few steps of a tiny model: resume, divergence, unusable data, logs."""

import contextlib
import copy
import itertools
import math
import os
import signal
import threading
import time

import pytest
import torch

from harness.config import RunConfig, Runtime, Train, override
from harness.data.text import corpus_rows
from harness.errors import DataError, DivergedError, InterruptedRun
from harness.files import read_jsonl
from harness.launch.processes import HELD_SIGNALS, Inbox, Stop, stop_on_signals
from harness.models.training import TrainingModel
from harness.store.record import RunDir
from harness.train import loop
from harness.train.checkpoint import load_newest
from harness.train.loop import Trainer
from harness.train.optimiser import learning_rate, make_optimiser, set_learning_rate
from tests.conftest import memory_data
from tests.train.rank_cases import stop_after, weights

CPU = torch.device("cpu")
CONFIG = override(
    RunConfig(),
    {
        "model.image.backbone": "test_convnext",
        "model.image.size": 32,
        "model.text.layers": 1,
        "model.text.width": 16,
        "model.text.heads": 2,
        "model.text.context_length": 12,
        "model.text.vocabulary": "corpus",
        "model.embed_dim": 8,
        "train.batch_size": 6,
        "train.samples": 42,
        "train.warmup_samples": 12,
        "objective.instance.a_max": 0.2,
    },
)
RUNTIME = Runtime(log_samples=12, checkpoint_seconds=1e-6)


def trainer(path, config=CONFIG, data=None, runtime=RUNTIME):
    data = data or memory_data()
    rows = corpus_rows(c for captions in data.split("train").captions for c in captions)
    model = TrainingModel(config, rows)
    directory = RunDir(path / config.run_key)
    directory.path.mkdir(exist_ok=True)
    return Trainer(model, data, config, runtime, directory, CPU, attempt=1)


def lines(t):
    timing = {"samples_per_second", "data_wait"}
    return [
        {k: v for k, v in line.items() if k not in timing}
        for line in read_jsonl(t.directory.metrics_file)
    ]


EVERYTHING = override(
    CONFIG,
    {
        "model.image.backbone": "test_vit",
        "model.text.layers": 2,
        "objective.token.weight": 0.5,
        "objective.token.dim": 8,
        "objective.token.schedule": "linear",
        "objective.mlm.weight": 0.5,
        "objective.mlm.start": 0.4,
        "objective.mlm.gate_init": 1.0,
        "objective.mlm.gate_lr_factor": 3.0,
    },
)


FAST = override(
    EVERYTHING, {"train.fused": True, "train.unpadded": True, "train.precision": "bf16"}
)


@pytest.fixture
def bf16_cpu(monkeypatch):
    """A CPU that says it has the instructions; another emulates them, here fast enough."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)


@pytest.mark.usefixtures("bf16_cpu")
@pytest.mark.parametrize("config", [CONFIG, EVERYTHING, FAST], ids=["clip", "everything", "fast"])
def test_interrupted_at_every_step_and_resumed_gives_the_same_bits_and_the_same_log(
    tmp_path, config
):
    (tmp_path / "whole").mkdir()
    whole = trainer(tmp_path / "whole", config)
    done = whole.train(lambda: False)
    (tmp_path / "cut").mkdir()
    for _ in range(6):
        cut = trainer(tmp_path / "cut", config)
        with pytest.raises(InterruptedRun):
            cut.train(stop_after(1))
    cut = trainer(tmp_path / "cut", config)
    resumed = cut.train(lambda: False)
    assert done.samples_seen == resumed.samples_seen == 42
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(cut)[name]), name
    assert lines(whole) == lines(cut)
    assert resumed.final_loss == done.final_loss


def test_time_of_forward_and_backward_is_summed_over_attempts(tmp_path):
    first = trainer(tmp_path)
    with pytest.raises(InterruptedRun):
        first.train(stop_after(3))

    second = trainer(tmp_path)
    done = second.train(lambda: False)

    assert all(done.parts[part] > first.parts[part] > 0 for part in ("forward", "backward"))
    assert sum(done.parts.values()) < done.seconds


def test_time_of_a_part_that_one_attempt_did_not_tell_is_not_guessed(tmp_path):
    first = trainer(tmp_path)
    first.parts = None  # as on a GPU
    with pytest.raises(InterruptedRun):
        first.train(stop_after(3))

    assert trainer(tmp_path).train(lambda: False).parts is None


def test_twice_the_same_seed_is_the_same_bits_and_another_is_not(tmp_path):
    runs = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        (tmp_path / name).mkdir()
        t = trainer(tmp_path / name, override(CONFIG, {"seed": seed}))
        t.train(lambda: False)
        runs.append(t.towers.image.projection.weight)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    t = trainer(tmp_path)
    with pytest.raises(InterruptedRun):
        t.train(stop_after(3))
    newest, before = sorted(t.directory.checkpoints.glob("step-*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-100])
    state = load_newest(t.directory.checkpoints)
    assert state["step"] == int(before.name.split("-")[1])
    assert not newest.exists()


def test_nan_stops_the_run_with_the_step_and_saves_no_state_after_it(tmp_path):
    t = trainer(tmp_path, runtime=Runtime())
    inner = t.forward

    def poisoned(pixels, tokens, masked):
        outputs = inner(pixels, tokens, masked)
        factor = math.nan if t.step == 2 else 1.0
        return outputs._replace(image=outputs.image * factor)

    t.forward = poisoned
    with pytest.raises(DivergedError, match=r"instance is nan at step 3 \(18 samples seen"):
        t.train(lambda: False)
    assert load_newest(t.directory.checkpoints) is None


def test_an_infinite_gradient_stops_the_run(tmp_path):
    t = trainer(tmp_path)
    t.towers.image.projection.weight.register_hook(lambda g: g * math.inf)
    with pytest.raises(DivergedError, match=r"gradient norm is (inf|nan) at step 1 "):
        t.train(lambda: False)


def test_unusable_pictures_are_counted_once_and_listed(tmp_path):
    data = memory_data()
    data.files["003.png"] = b"<html>"
    done = trainer(tmp_path, data=data, runtime=Runtime(max_bad_fraction=0.05)).train(lambda: False)
    assert [p.where for p in done.problems] == ["003.png"]


def test_past_the_allowed_fraction_the_run_fails_with_the_list(tmp_path):
    data = memory_data()
    for name in ("003.png", "004.png"):
        data.files[name] = b"\x89PNG cut off"
    with pytest.raises(DataError, match=r"2 unusable samples, more than .* 0\.05 .* 00[34]\.png"):
        trainer(tmp_path, data=data, runtime=Runtime(max_bad_fraction=0.05)).train(lambda: False)


def test_the_softened_mass_in_the_log_follows_samples_seen(tmp_path):
    t = trainer(tmp_path)
    t.train(lambda: False)
    assert [(m["samples_seen"], round(m["soft_label_mass"], 6)) for m in lines(t)] == [
        (12, round(0.2 * 12 / 42, 6)),
        (24, round(0.2 * 24 / 42, 6)),
        (36, round(0.2 * 36 / 42, 6)),
        (42, 0.2),
    ]


def test_every_term_is_logged_raw_and_weighted_by_its_ramp(tmp_path):
    t = trainer(tmp_path, EVERYTHING, runtime=Runtime(log_samples=6))
    t.train(lambda: False)
    for line in lines(t):
        seen = line["samples_seen"] - 6  # weights are those of the step's beginning
        assert set(line["terms"]) == set(line["weighted"]) == {"instance", "token", "mlm"}
        weights = {"instance": 1.0, "token": 0.5 * seen / 42, "mlm": 0.5 * (seen / 42 >= 0.4)}
        for name, weight in weights.items():
            expected = pytest.approx(weight * line["terms"][name], rel=1e-5)
            assert line["weighted"][name] == expected
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), rel=1e-5)


# --------------------------------------------------------------------------- optimiser


@pytest.mark.usefixtures("bf16_cpu")
def test_bf16_on_a_cpu_multiplies_in_16_bits_and_keeps_embeddings_and_weights_in_32(tmp_path):
    t = trainer(tmp_path, FAST)
    kinds = {}
    for name in ("image.projection", "text.transformer.resblocks.0.mlp.c_fc"):
        module = t.towers.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: kinds.update({name: out.dtype}))
    batch = next(t.batches.start())
    pixels = loop.normalise(batch.pictures, FAST.model.image)
    outputs = t._outputs(pixels, batch.tokens, {})
    assert set(kinds.values()) == {torch.bfloat16}
    assert outputs.image.dtype == outputs.text.dtype == torch.float32
    assert {p.dtype for p in t.model.parameters()} == {torch.float32}


def test_the_fused_step_is_adamws_up_to_rounding():
    start = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.LayerNorm(5)).double()
    ends = []
    for fused in (False, True):
        model = copy.deepcopy(start)
        optimiser = make_optimiser(model, Train(lr=0.1, fused=fused), {"0.bias": 3.0})
        for step in range(5):
            set_learning_rate(optimiser, 0.1 / (step + 1))
            for place, parameter in enumerate(model.parameters()):
                parameter.grad = torch.sin(parameter.detach() * (step + place + 1))
            optimiser.step()
        ends.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert not torch.allclose(ends[0], torch.nn.utils.parameters_to_vector(start.parameters()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("fused", [False, True])
def test_the_steps_are_those_of_torchs_adamw_to_the_bit(fused):
    def trained(again):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 1))
        optimiser = again(make_optimiser(model, Train(fused=fused)))
        for step in range(4):
            set_learning_rate(optimiser, 0.1 / (step + 1))
            model(torch.randn(8, 5)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
            optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        return [p.detach() for p in model.parameters()], optimiser.state_dict()

    weights, state = trained(lambda own: own)
    expected, known = trained(lambda own: torch.optim.AdamW(own.param_groups))
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert state["param_groups"] == known["param_groups"]
    assert state["state"].keys() == known["state"].keys()


def test_norms_biases_and_logit_scale_do_not_decay(tmp_path):
    model = trainer(tmp_path).model
    decay, no_decay = make_optimiser(model, Train()).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert decay["weight_decay"] == 0.1
    assert no_decay["weight_decay"] == 0.0
    assert "model.logit_scale" in {names[id(p)] for p in no_decay["params"]}
    assert all(p.ndim >= 2 for p in decay["params"])
    assert not any(names[id(p)].endswith("bias") for p in decay["params"])


def test_learning_rate_in_samples_by_hand():
    train = Train(lr=1.0, samples=1000, warmup_samples=200, batch_size=50)
    assert [learning_rate(train, s) for s in (0, 50, 150)] == [0.25, 0.5, 1.0]
    assert learning_rate(train, 200) == 1.0
    assert learning_rate(train, 600) == pytest.approx(0.5)
    assert learning_rate(train, 1000) == pytest.approx(0.0)


@pytest.mark.parametrize("how", ["signal", "end of the input"])
def test_a_stop_is_heard_while_the_pass_is_compiled(tmp_path, monkeypatch, how):
    begun = []

    def takes_a_minute(graph, inputs):
        begun.append(time.monotonic())
        try:
            time.sleep(60)
        except Exception as error:  # as the compiler does: a fault of the model
            raise RuntimeError("the backend failed") from error

    compiled_by(lambda graph, inputs: graph.forward)  # the first takes seconds by itself
    at_third_call(monkeypatch, lambda: compiled_by(takes_a_minute))
    runtime = Runtime(compile=True, checkpoint_seconds=1e-6)
    reading, writing = os.pipe()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = Stop()
    with listening(stop, reading, monkeypatch):
        ending = {
            "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
            "end of the input": lambda: os.close(writing),
        }[how]
        threading.Timer(0.1, lambda: wait_for(begun, 1) and ending()).start()
        with pytest.raises(InterruptedRun, match="stopped while its pass was compiled"):
            trainer(tmp_path, runtime=runtime).train(stop)
        assert time.monotonic() - begun[0] < 50
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert not torch._dynamo.callback.callback_handler.start_callbacks
    assert not torch._dynamo.callback.callback_handler.end_callbacks
    monkeypatch.undo()

    whole, cut = trainer(tmp_path), None
    (tmp_path / "whole").mkdir()
    cut = trainer(tmp_path / "whole")
    assert load_newest(whole.directory.checkpoints)["step"] == 2
    assert whole.train(lambda: False).final_loss == cut.train(lambda: False).final_loss
    assert all(torch.equal(v, weights(cut)[name]) for name, v in weights(whole).items())


@pytest.mark.parametrize("then_compiles", [False, True])
def test_a_stop_in_a_call_that_compiles_nothing_keeps_its_step(
    tmp_path, monkeypatch, then_compiles
):
    stop, graphs = Stop(), []

    def asked():
        os.kill(os.getpid(), signal.SIGTERM)
        if then_compiles:
            compiled_by(lambda graph, inputs: graphs.append(graph) or graph.forward)

    at_third_call(monkeypatch, asked)
    told = "stopped while its pass was compiled" if then_compiles else "stopped at 18 samples"
    with stop_on_signals(stop), pytest.raises(InterruptedRun, match=told):
        trainer(tmp_path, runtime=Runtime(compile=True, checkpoint_seconds=3600)).train(stop)
    assert not graphs
    assert then_compiles or load_newest(trainer(tmp_path).directory.checkpoints)["step"] == 3


def at_third_call(monkeypatch, action):
    """A stand-in for torch.compile, whose passes are plain; `action` comes before the third."""

    def compiling(model):
        calls = itertools.count()
        return lambda *given: (action() if next(calls) == 2 else None, model(*given))[1]

    monkeypatch.setattr(torch, "compile", compiling)


def compiled_by(backend, compiling=torch.compile):
    """Have torch compile a line."""
    compiling(lambda x: x + 1, backend=backend)(torch.ones(2))


def wait_for(calls, count):
    deadline = time.monotonic() + 120
    while len(calls) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def listening(stop, reading, monkeypatch):
    """As a worker does, of whose input `reading` is the end."""
    before = {number: signal.getsignal(number) for number in (*HELD_SIGNALS, signal.SIGINT)}
    kept = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    try:
        Inbox(stop)
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        for number, handler in before.items():
            signal.signal(number, handler)
