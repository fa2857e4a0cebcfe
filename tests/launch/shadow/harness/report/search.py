"""A report that only says how every trial ended."""

from types import SimpleNamespace

from harness.store.trials import Ledger


def build_search(name, store, out):
    out.mkdir(parents=True, exist_ok=True)
    trials = list(Ledger.of(store, name))
    lines = [f"{trial.number} {trial.outcome.value}\n" for trial in trials]
    (out / "report.md").write_text("".join(lines))
    holes = sum(not trial.over for trial in trials)
    return SimpleNamespace(complete=not holes, holes=holes, failed=0, files=())
