"""A search whose trials are jobs: its controller and a worker are killed, and no trial is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from harness.launch.slurm.submissions import submissions
from harness.store.lease import lease_holder
from harness.store.state import State
from harness.store.trials import Ledger, Outcome, Trial
from tests.slurm.cluster import Cluster
from tests.slurm.site import Site, kill, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

MakeSite = Callable[[Cluster], Site]
TRIALS = 6

SEARCHED = '''"""Which learning rate, if every trial is a job?"""

from paced import FIRST, SWEEP as PACED

from harness.config import override
from harness.searchspace import Asha, Search, Uniform
from harness.space import Show, Sweep

SWEEP = Sweep(
    base=override(PACED.base, {"data.resolution": FIRST}),
    search=Search(
        space={"train.lr": Uniform(1e-5, 1e-1, log=True)},
        objectives="validation/mean_recall",
        trials=6,
        pruner=Asha(first=80, reduction=2),
        confirm=(),
    ),
    show=Show(x="train.lr", metrics=["test/mean_recall"]),
)
'''


def with_validation(site: Site) -> None:
    """Half of the pictures to test on are to be selected by."""
    file = site.data / "captions.csv"
    rows = file.read_text().splitlines()
    file.write_text(
        "".join(
            (row.replace(",test,", ",validation,") if number % 2 else row) + "\n"
            for number, row in enumerate(rows)
        )
    )


def trials_of(site: Site) -> list[Trial]:
    return list(Ledger.of(site.store, "searched"))


def at_work(site: Site) -> list[str]:
    """Keys of the runs of trials that are being trained."""
    found = [(t.key, site.store.run_dir(t.key).status()) for t in trials_of(site) if not t.over]
    return [key for key, s in found if s.state is State.RUNNING and s.samples_seen]


def test_a_search_survives_its_controller_and_a_worker(
    cluster: Cluster, make_site: MakeSite
) -> None:
    site = make_site(cluster)
    site.sweep_file = site.root / "searched.py"
    site.sweep_file.write_text(SEARCHED)
    with_validation(site)
    site.pace(0, 0.03)

    first = site.start("--slots", "3")
    wait_until(lambda: at_work(site), 900, "a trial to be at work")
    first.kill()
    first.communicate()
    assert len(site.jobs()) == 3
    site.wait_until_over()  # they do not need it

    site.hold(0, 32)  # before the first rung, so that none is pruned yet
    second = site.start("--slots", "3")
    wait_until(lambda: at_work(site), 900, "a trial of the second controller to be at work")
    victim = at_work(site)[0]
    kill(int((lease_holder(site.store.run_dir(victim).lease_file) or {})["pid"]))
    site.let_go(0)
    said, _ = second.communicate(timeout=1200)

    assert second.returncode == 0, said + site.evidence()
    trials = trials_of(site)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.outcome for trial in trials} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert len({trial.key for trial in trials}) == TRIALS
    submitted = Counter(key for one in submissions(site.store) for key in one.read().keys)
    assert submitted == Counter(trial.key for trial in trials)
    assert site.store.run_dir(victim).attempts() == 2
    site.wait_until_over()
    page = (site.root / "reports" / "searched" / "report.md").read_text()
    assert f"was the best of {TRIALS} on the validation split" in page
