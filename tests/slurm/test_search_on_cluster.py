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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400, func_only=True)]

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


def searched(site: Site, text: str = SEARCHED) -> Site:
    """The site with another sweep file."""
    site.sweep_file = site.root / "searched.py"
    site.sweep_file.write_text(text)
    with_validation(site)
    site.pace(0, 0.03)
    return site


def kill_worker(site: Site, key: str) -> None:
    kill(int((lease_holder(site.store.run_dir(key).lease_file) or {})["pid"]))


def check_trials(site: Site, count: int) -> None:
    """None is lost, none came twice, none was submitted twice."""
    trials = trials_of(site)
    assert [trial.number for trial in trials] == list(range(count))
    assert {trial.outcome for trial in trials} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert len({trial.key for trial in trials}) == count
    submitted = Counter(key for one in submissions(site.store) for key in one.read().keys)
    assert submitted == Counter(trial.key for trial in trials)


def test_a_search_survives_its_controller_and_a_worker(
    cluster: Cluster, make_site: MakeSite
) -> None:
    site = searched(make_site(cluster))
    site.hold(0, 32)
    first = site.start("--slots", "3")
    wait_until(lambda: at_work(site), 900, "a trial to be at work")
    first.kill()
    first.communicate()
    assert len(site.jobs()) == 3
    site.let_go(0)
    site.wait_until_over()  # they do not need it

    site.hold(0, 32)  # before the first rung, so that none is pruned yet
    second = site.start("--slots", "3")
    wait_until(lambda: at_work(site), 900, "a trial of the second controller to be at work")
    victim = at_work(site)[0]
    kill_worker(site, victim)
    site.let_go(0)
    said, _ = second.communicate(timeout=2400)

    assert second.returncode == 0, said + site.evidence()
    check_trials(site, TRIALS)
    assert site.store.run_dir(victim).attempts() == 2
    site.wait_until_over()
    page = (site.root / "reports" / "searched" / "report.md").read_text()
    assert f"was the best of {TRIALS} on the validation split" in page


@pytest.mark.thorough
def test_and_that_three_times_over(cluster: Cluster, make_site: MakeSite) -> None:
    site = searched(make_site(cluster), SEARCHED.replace("trials=6", "trials=12"))
    victims = []
    for _ in range(3):
        site.hold(0, 32)
        controller = site.start("--slots", "3")
        wait_until(lambda: at_work(site), 900, "a trial to be at work")
        victims.append(at_work(site)[0])
        kill_worker(site, victims[-1])
        controller.kill()
        controller.communicate()
        site.let_go(0)
        site.wait_until_over()
    last = site.start("--slots", "3")
    said, _ = last.communicate(timeout=2400)
    assert last.returncode == 0, said + site.evidence()
    check_trials(site, 12)
    assert [site.store.run_dir(key).attempts() for key in victims] == [2] * 3


WAVED = '''"""Which learning rate is each width's own best?"""

from paced import FIRST, SWEEP as PACED

from harness.config import override
from harness.config.sweep import Show, Sweep, product

SWEEP = Sweep(
    base=override(PACED.base, {"data.resolution": FIRST}),
    points=product({"model.embed_dim": [8, 16]}),
    seeds=[0],
    nuisance={"train.lr": [1e-3, 1e-2]},
    tune_on="validation/mean_recall",
    tune_seeds=(100,),
    show=Show(
        x="model.embed_dim", metrics=["test/mean_recall"], baseline={"model.embed_dim": 8}
    ),
)
'''


@pytest.mark.thorough
def test_a_sweep_in_two_waves_submits_the_second_by_itself(
    cluster: Cluster, make_site: MakeSite
) -> None:
    site = searched(make_site(cluster), WAVED)
    site.hold(0, 32)
    assert "submitted 4 runs" in site.submit()
    wait_until(lambda: site.readers(0), 900, "a run of the grid to be at work")
    assert "there already: " in site.submit()
    kill(site.readers(0)[0].pid)
    site.let_go(0)
    site.wait_until_over()

    grid, chosen = (one.read() for one in submissions(site.store))
    assert (len(grid.keys), len(chosen.keys), grid.keys & chosen.keys) == (4, 2, set())
    states = {site.store.run_dir(key).status().state for key in grid.keys | chosen.keys}
    assert states == {State.DONE}
    assert {site.store.run_dir(key).read_config().seed for key in chosen.keys} == {0}
    page = (site.root / "reports" / "searched" / "report.md").read_text()
    assert "| point | lr | validation mean recall |" in page
    assert "nothing to do" in site.submit()
