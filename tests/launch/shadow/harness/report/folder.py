"""A report that only says whether every run is done."""

from types import SimpleNamespace


def build(sweep, runs, store, out):
    done = [run.key for run in runs if store.run_dir(run.key).result() is not None]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text("".join(f"{key}\n" for key in done))
    holes = len(runs) - len(done)
    return SimpleNamespace(complete=not holes, holes=holes, failed=0, files=())
