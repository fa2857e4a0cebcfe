"""Several processes are one: the same loss, gradients, weights and log, whatever their number."""

import math
import os
from functools import partial

import pytest
import torch
import torch.distributed as dist

from harness.config import override
from harness.errors import ConfigError, DataError, DivergedError, InterruptedRun, RankLost
from harness.files import read_jsonl
from harness.train.distributed import SINGLE_PROCESS, ProcessGroup
from tests.train.rank_cases import (
    CASES,
    CLIP,
    after,
    assert_same,
    gradients,
    on_ranks,
    start_ranks,
    stop_after,
    trainer,
    uneven_data,
    weights,
)

pytestmark = pytest.mark.usefixtures("in_64_bits")


def of_each_case(folder, ranks=SINGLE_PROCESS):
    """What the first step of every case leaves."""
    return {
        name: gradients(after(trainer(folder / name, override(CLIP, values), ranks), 1))
        for name, values in CASES.items()
    }


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory):
    """Number of processes -> what each of them has after the first step of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    together = {
        size: on_ranks(folder / str(size), size, partial(of_each_case, folder / f"of {size}"))
        for size in (2, 4)
    }
    return {1: [of_each_case(folder / "of 1")], **together}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_processes_have_the_loss_and_gradients_of_one(first_steps, case, size):
    (alone,) = first_steps[1]
    assert len(alone[case]) > 50
    first, *others = first_steps[size]
    assert_same(first[case], alone[case], 1e-9)
    for other in others:
        for name, value in first[case].items():
            assert torch.equal(other[case][name], value), name


# --------------------------------------------------------------------------- a whole training


WHOLE = override(CLIP, CASES["everything"])


def to_the_end(folder, ranks=SINGLE_PROCESS):
    """Weights at the budget's end, wherever the state in `folder` left off."""
    t = trainer(folder, WHOLE, ranks)
    t.train(lambda: False)
    return weights(t)


def stopped(folder, steps, ranks=SINGLE_PROCESS):
    """Train for a while; the last process alone is asked to stop."""
    t = trainer(folder, WHOLE, ranks)
    last = ranks.rank == ranks.size - 1
    with pytest.raises(InterruptedRun):
        t.train(stop_after(steps) if last else lambda: False)
    return t.step


@pytest.fixture(scope="module")
def trained_alone(tmp_path_factory):
    return to_the_end(tmp_path_factory.mktemp("alone"))


def log_of(folder):
    (directory,) = folder.iterdir()
    return read_jsonl(directory / "metrics.jsonl")


def test_two_processes_train_the_weights_of_one(tmp_path, trained_alone):
    first, second = on_ranks(tmp_path, 2, partial(to_the_end, tmp_path / "runs"))
    assert_same(first, trained_alone, 1e-8)
    for name, value in first.items():
        assert torch.equal(second[name], value), name


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 4)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, trained_alone, before, after):
    runs = tmp_path / "runs"
    steps = on_ranks(tmp_path / "before", before, partial(stopped, runs, 3))
    assert steps == [3] * before
    first, *_ = on_ranks(tmp_path / "after", after, partial(to_the_end, runs))
    assert_same(first, trained_alone, 1e-8)
    assert [line["samples_seen"] for line in log_of(runs)] == [8, 16, 24, 32, 40, 48]


def test_the_softened_mass_does_not_know_the_processes(tmp_path):
    linear = override(CLIP, {"objective.instance.a_max": 0.3})

    def train(folder, ranks=SINGLE_PROCESS):
        trainer(folder, linear, ranks).train(lambda: False)

    train(tmp_path / "alone")
    on_ranks(tmp_path, 2, partial(train, tmp_path / "runs"))
    masses = [line["soft_label_mass"] for line in log_of(tmp_path / "alone")]
    assert masses == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    assert [line["soft_label_mass"] for line in log_of(tmp_path / "runs")] == masses


# --------------------------------------------------------------------------- what goes wrong


def test_unusable_pictures_of_any_process_are_counted_by_all(tmp_path):
    def train(ranks):
        data = uneven_data()
        data.files["003.png"] = data.files["017.png"] = b"<html>"
        t = trainer(tmp_path / "runs", CLIP, ranks, data, max_bad_fraction=0.09)
        t.train(lambda: False)
        return sorted(t.problems)

    assert on_ranks(tmp_path, 2, train) == [["003.png", "017.png"]] * 2


def test_past_the_allowed_fraction_all_processes_fail_alike(tmp_path):
    def train(ranks):
        data = uneven_data()
        data.files["003.png"] = data.files["017.png"] = b"<html>"
        with pytest.raises(DataError) as caught:
            trainer(tmp_path / "runs", CLIP, ranks, data, max_bad_fraction=0.05).train(
                lambda: False
            )
        return str(caught.value)

    first, second = on_ranks(tmp_path, 2, train)
    assert first == second
    assert first.startswith("2 unusable samples")


def test_nan_on_one_process_is_divergence_on_all(tmp_path):
    def train(ranks):
        t = trainer(tmp_path / "runs", override(CLIP, CASES["within_pair"]), ranks)
        inner = t.forward

        def poisoned(pixels, tokens, masked):
            outputs = inner(pixels, tokens, masked)
            tokens = outputs.of_terms["token"]
            words = tokens.words * (math.nan if ranks.rank else 1.0)
            return outputs._replace(of_terms={"token": tokens._replace(words=words)})

        t.forward = poisoned
        with pytest.raises(DivergedError) as caught:
            t.train(lambda: False)
        return str(caught.value)

    first, second = on_ranks(tmp_path, 2, train)
    assert first == second
    assert first.startswith("token is nan at step 1 ")


def test_the_error_of_one_process_is_named_by_the_others(tmp_path):
    def train(ranks):
        t = trainer(tmp_path / "runs", CLIP, ranks)
        if ranks.rank == 1:
            t.optimiser.step = broken
            with pytest.raises(MemoryError) as caught:
                t.train(lambda: False)
            ranks.report_failure(caught.value)
            dist.destroy_process_group()
            os._exit(0)
        with pytest.raises(RankLost) as caught:
            t.train(lambda: False)
        raise caught.value

    def broken():
        raise MemoryError("no room")

    children = start_ranks(tmp_path, 2, train)
    codes = [os.waitpid(child, 0)[1] >> 8 for child in children]
    assert codes == [1, 0]
    assert "RankLost: rank 1: MemoryError: no room" in (tmp_path / "error-0.txt").read_text()


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    ranks = ProcessGroup()
    ranks.size = 3
    with pytest.raises(ConfigError, match=r"processes = 3 does not .* = 8; nearest that do: 2, 4$"):
        trainer(tmp_path, CLIP, ranks)


def test_the_threads_of_a_group_end_with_it(tmp_path):
    def exchange(ranks):
        ranks.begin_sum(torch.ones(3))()
        return ranks.all_gather(torch.ones(1)).tolist()

    assert on_ranks(tmp_path, 2, exchange) == [[1.0, 1.0]] * 2
    for rank in range(2):
        # one that lives when Python ends can abort the process
        assert "pt_gloo_runloop" not in (tmp_path / f"threads-{rank}.txt").read_text()
