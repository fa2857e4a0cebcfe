"""What is done after each kind of end."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config import RunConfig, Runtime, Train
from harness.launch.profiles import Profile
from harness.launch.slurm.policy import bad_nodes, micro_batch_of, why_stop

PROFILE = Profile(max_retries=2, time="1:00:00")


def end(failure: str, **more: Any) -> dict[str, Any]:
    return {
        "class": failure,
        "error": f"it is {failure}",
        "samples_seen": 0,
        "micro_batch": None,
        "node": "n1",
        **more,
    }


@pytest.mark.parametrize("failure", ["preempted", "interrupted", "out_of_memory"])
def test_what_is_not_its_own_doing_goes_on_however_often(failure: str) -> None:
    assert why_stop([end(failure)] * 20, PROFILE) is None


@pytest.mark.parametrize(
    "failure", ["diverged", "bug", "config", "data", "invariant", "record", "disk_full"]
)
def test_what_would_happen_again_stops(failure: str) -> None:
    assert why_stop([end("preempted"), end(failure)], PROFILE) == f"it is {failure}"


@pytest.mark.parametrize("failure", ["killed", "node_failure"])
def test_crashes_are_counted_and_being_taken_away_is_not(failure: str) -> None:
    patient = [end("preempted"), end(failure)] * 2
    assert why_stop(patient, PROFILE) is None
    assert why_stop([*patient, end(failure)], PROFILE) == (
        f"it is {failure}; 3 times, and max_retries = 2"
    )


def test_a_time_limit_goes_on_while_there_is_progress() -> None:
    going = [end("time_limit", samples_seen=n) for n in (0, 100, 200)]
    assert why_stop(going, PROFILE) is None
    stuck = why_stop([*going, end("preempted"), end("time_limit", samples_seen=200)], PROFILE)
    assert stuck is not None
    assert stuck.startswith("no progress past 200 samples within the time limit of 1:00:00; ")


def test_an_end_that_was_judged_final_stops() -> None:
    assert why_stop([end("out_of_memory", final=True)], PROFILE) == "it is out_of_memory"


@pytest.mark.parametrize(
    ("ends", "size"),
    [
        ([], None),
        ([end("preempted")], None),
        ([end("out_of_memory")], 30),
        ([end("out_of_memory"), end("preempted"), end("out_of_memory", micro_batch=30)], 15),
        ([end("out_of_memory", micro_batch=15)], 6),
        ([end("out_of_memory", micro_batch=1)], 1),
    ],
)
def test_parts_of_a_batch_are_halved_to_a_divisor_of_it(
    ends: list[dict[str, Any]], size: int | None
) -> None:
    config = RunConfig(train=Train(batch_size=120))
    assert micro_batch_of(ends, config, Runtime(processes=2)) == size


def test_a_node_is_avoided_when_it_failed_twice() -> None:
    ends = [end("node_failure"), end("killed"), end("node_failure", node="n2")]
    assert bad_nodes(ends) == []
    assert bad_nodes([*ends, end("node_failure", node="n2")]) == ["n2"]
