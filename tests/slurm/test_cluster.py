"""The cluster of the tests: it comes, it is broken and mended, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from tests.slurm.cluster import Cluster, Layout, running

SMALL = Layout(nodes=1, gpus=1, accounting=False)


def processes_of(base: Path) -> list[str]:
    """Names of all processes that know the cluster below `base`."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "environ"]):
        known = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if process.pid != os.getpid() and any(word.startswith(str(base)) for word in known):
            found.append(process.info["name"])
    return sorted(found)


def test_gpus_are_handed_out_one_by_one_and_a_job_ends_with_its_cluster(tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES at $SLURMD_NODENAME > gpu; sleep 600"
    with running(SMALL) as cluster:
        for _ in range(2):
            words = ["--gres=gpu:1", "--output=/dev/null", f"--chdir={tmp_path}", "--wrap", script]
            cluster.command("sbatch", *words)
        cluster.wait("a job to begin", (tmp_path / "gpu").exists)
        asked = ("squeue", "--noheader", "--format=%T %r")
        states = ["PENDING Resources", "RUNNING None"]
        cluster.wait("one alone", lambda: sorted(cluster.command(*asked).splitlines()) == states)
        assert "sleep" in processes_of(cluster.base)
    assert (tmp_path / "gpu").read_text() == "0 at 0x7f000001\n"
    assert processes_of(cluster.base) == []
    assert not cluster.base.exists()


def test_it_goes_with_the_process_that_wanted_it_even_if_that_is_killed() -> None:
    code = """
        import os, signal
        from tests.slurm.cluster import Layout, running
        with running(Layout(nodes=1, gpus=0, accounting=False)) as cluster:
            assert cluster.node_states() == {"0x7f000001": "idle"}
            print(cluster.base, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    base = Path(ended.stdout.strip())
    assert ended.returncode == -signal.SIGKILL
    Cluster(base).wait("the keeper to clear up", lambda: not base.exists())
    assert processes_of(base) == []
