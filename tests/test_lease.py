import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from harness.store import lease as lease_module
from harness.store.lease import EXPIRY, Lease, LeaseHeld, lease_is_live


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "lease.json"


def write_holder(file, **holder):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"token": "t", **holder}))


def test_one_holds_it_and_the_other_is_told_who(file):
    with Lease(file), pytest.raises(LeaseHeld, match=f"process {os.getpid()} on "):
        Lease(file).__enter__()
    assert not file.exists()


def test_a_killed_holder_on_this_host_is_dead_at_once(file):
    code = (
        f"from harness.store.lease import Lease\nfrom pathlib import Path\nimport time\n"
        f"with Lease(Path({str(file)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert lease_is_live(file)
    holder.kill()
    holder.wait()
    assert not lease_is_live(file)
    with Lease(file):
        assert lease_is_live(file)


def test_a_process_number_used_again_does_not_keep_a_lease(file):
    import socket

    write_holder(file, host=socket.gethostname(), pid=os.getpid(), started=1.0)
    assert not lease_is_live(file)


def test_a_holder_on_another_host_lives_while_it_beats(file):
    write_holder(file, host="elsewhere", pid=1, started=1.0)
    assert lease_is_live(file)
    old = time.time() - EXPIRY - 1
    os.utime(file, (old, old))
    assert not lease_is_live(file)


def test_the_clock_is_the_file_systems_own(file, monkeypatch):
    write_holder(file, host="elsewhere", pid=1, started=1.0)
    monkeypatch.setattr(lease_module.time, "time", lambda: 4e9)  # this host's clock is far ahead
    assert lease_is_live(file)


def _claim(file, barrier, won, all_told):
    barrier.wait()
    try:
        with Lease(file):
            won.put(os.getpid())
            all_told.wait(60)
    except LeaseHeld:
        won.put(None)


@pytest.mark.parametrize("dead_first", [False, True])
def test_of_many_who_claim_at_once_one_wins(file, dead_first):
    if dead_first:
        write_holder(file, host="elsewhere", pid=1, started=1.0)
        old = time.time() - EXPIRY - 1
        os.utime(file, (old, old))
    else:
        file.parent.mkdir()
    context = multiprocessing.get_context("fork")
    barrier, won, all_told = context.Barrier(8), context.Queue(), context.Event()
    given = (file, barrier, won, all_told)
    claimers = [context.Process(target=_claim, args=given) for _ in range(8)]
    for claimer in claimers:
        claimer.start()
    winners = [won.get(timeout=280) for _ in claimers]
    all_told.set()
    for claimer in claimers:
        claimer.join()
    assert sum(winner is not None for winner in winners) == 1


def test_what_took_the_place_of_a_dead_lease_is_not_replaced(file, monkeypatch):
    write_holder(file, host="elsewhere", pid=1, started=1.0)
    old = time.time() - EXPIRY - 1
    os.utime(file, (old, old))
    seen = lease_module.lease_is_live

    def overtaken(path):
        """Dead as it was looked at; somebody else was quicker."""
        monkeypatch.setattr(lease_module, "lease_is_live", seen)
        found = seen(path)
        with Lease(path):
            os.link(path, file.with_name("kept"))
        os.rename(file.with_name("kept"), path)
        return found

    monkeypatch.setattr(lease_module, "lease_is_live", overtaken)
    with pytest.raises(LeaseHeld), Lease(file):
        pass


def test_a_lease_taken_over_after_a_stall_is_not_removed_by_its_old_holder(file):
    with Lease(file):
        write_holder(file, host="elsewhere", pid=1, started=1.0)
    assert file.exists()
