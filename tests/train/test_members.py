"""Who may train a run together, and how processes part when one of them is gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from harness.errors import ConfigError, RankLost
from harness.train import distributed, members
from harness.train.distributed import ProcessGroup
from harness.train.members import check_members
from tests.train.rank_cases import on_ranks, start_ranks

MEMBER: dict[str, str | None] = {
    "host": "n1",
    "device": "cuda",
    "torch": "2.14.1",
    "nccl": "there",
    "GPU": "A100",
    "uuid": "GPU-1",
}


def test_processes_on_gpus_of_their_own_fit_together_and_so_do_those_of_a_cpu() -> None:
    check_members([MEMBER, {**MEMBER, "uuid": "GPU-2"}])
    check_members([{**MEMBER, "device": "cpu", "GPU": None, "uuid": None}] * 3)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            {"torch": "2.9.0", "uuid": "GPU-2"},
            "rank 1 on n2 has torch 2.9.0, and rank 0 on n1 2.14.1: the processes of a run need "
            "the same",
        ),
        (
            {"GPU": "V100", "uuid": "GPU-2"},
            "rank 1 on n2 has GPU V100, and rank 0 on n1 A100: the processes of a run need the "
            "same",
        ),
        (
            {"device": "cpu", "GPU": None, "uuid": None},
            "rank 1 on n2 has device cpu, and rank 0 on n1 cuda: the processes of a run need the "
            "same",
        ),
        (
            {"nccl": "missing", "uuid": "GPU-2"},
            "rank 1 on n2: this torch was built without NCCL, which several GPUs need to talk; "
            "install a CUDA build of torch, or give runtime.processes=1",
        ),
        ({}, "rank 1 on n2 and rank 0 share one GPU: runtime.processes = 2 wants a GPU each"),
    ],
)
def test_what_does_not_fit_together_is_one_line(other: dict[str, str | None], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_members([MEMBER, {**MEMBER, "host": "n2", **other}])
    assert str(caught.value) == line


def test_a_rank_with_another_torch_is_told_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = distributed.member
    monkeypatch.setattr(
        distributed, "member", lambda device: {**known(device), "torch": str(os.getpid())}
    )
    with pytest.raises(AssertionError, match=r"rank 1 on .* has torch \d+, and rank 0"):
        on_ranks(tmp_path, 2, lambda ranks: None)


# --------------------------------------------------------------------------- how they part


def test_lack_of_memory_in_an_exchange_is_filed_as_such_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(ranks: ProcessGroup) -> list[str]:
        real = dist.all_reduce

        def full(tensor: torch.Tensor) -> None:
            if ranks.rank == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            real(tensor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "all_reduce", full)
            try:
                ranks.all_reduce_sum(torch.ones(3))
            except torch.OutOfMemoryError as error:
                ranks.report_failure(error)  # type: ignore[attr-defined]
                os._exit(0)
            except RankLost as error:
                (tmp_path / "told").write_text(f"{error.failure}: {error}")
                os._exit(0)
        return []

    for child in start_ranks(tmp_path, 2, train):
        os.waitpid(child, 0)
    assert (tmp_path / "told").read_text() == (
        "out_of_memory: rank 1: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    )


def test_who_leaves_a_dead_exchange_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "_GIVE_UP_SECONDS", 0.2)
    monkeypatch.setattr(dist, "destroy_process_group", threading.Event().wait)
    began = time.monotonic()
    distributed._give_up(torch.device("cpu"))
    assert time.monotonic() - began < 200


def test_they_can_meet_again_after_a_failure(tmp_path: Path) -> None:
    def twice(ranks: ProcessGroup) -> int:
        distributed._give_up(torch.device("cpu"))
        return int(dist.is_initialized())

    children = start_ranks(tmp_path, 2, partial(twice))
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert len(set(codes)) == 1
    assert sorted(file.name for file in tmp_path.glob("answer-*")) == ["answer-0.pt", "answer-1.pt"]
    assert [torch.load(tmp_path / f"answer-{rank}.pt") for rank in range(2)] == [0, 0]


def test_they_talk_over_the_network_of_rank_0_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    members.name_interface("127.0.1.1")
    assert os.environ.get("GLOO_SOCKET_IFNAME", "lo") == "lo"
    assert "NCCL_SOCKET_IFNAME" not in os.environ
    monkeypatch.setattr(members, "_interface_with", lambda address: "ib0")
    monkeypatch.setattr(socket.socket, "getsockname", lambda self: ("10.0.0.7", 1))
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    members.name_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "eth1"


def test_validation_of_the_first_may_take_longer_than_an_exchange(tmp_path: Path) -> None:
    def train(ranks: ProcessGroup) -> float:
        began = time.monotonic()
        if ranks.rank == 0:
            time.sleep(0.5)
        ranks.wait_for_first("validation")
        return time.monotonic() - began

    assert all(seconds >= 0.45 for seconds in on_ranks(tmp_path, 2, train))


def test_who_waits_for_a_first_process_that_failed_is_told(tmp_path: Path) -> None:
    def train(ranks: ProcessGroup) -> None:
        if ranks.rank == 0:
            raise ConfigError("no such split")
        ranks.wait_for_first("validation")

    with pytest.raises(
        AssertionError, match=r"RankLost: (rank 0: no such split|another process .* is gone)"
    ):
        on_ranks(tmp_path, 2, train)
