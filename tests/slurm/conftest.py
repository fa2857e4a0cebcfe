"""Two clusters, what undisturbed runs come to, and a user's folder to give commands in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import drawings
from tests.slurm import cluster as slurm
from tests.slurm.site import SWEEP_FILE, Bits, Site, bits_of, table_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked `slurm`, and skipped with the line that installs it."""
    lacking = slurm.missing()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("slurm")
            if lacking is not None:
                item.add_marker(pytest.mark.skip(reason=lacking))


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """Three nodes of four cores and two GPUs, with accounting."""
    with slurm.running(slurm.Layout()) as up:
        yield up


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[slurm.Cluster]:
    """Two such nodes without accounting, and with small arrays."""
    layout = slurm.Layout(nodes=2, accounting=False, max_array_size=5)
    with slurm.running(layout) as up:
        yield up


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 pictures to train on and 24 to test on."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    folder.mkdir()
    rows = ["image,split,caption"]
    for i, (name, (png, colour, shape)) in enumerate(drawings(72).items()):
        (folder / name).write_bytes(png)
        rows.append(f"{name},{'train' if i < 48 else 'test'},a {colour} {shape} number {i}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def undisturbed(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[int, Bits], list[str]]:
    """What every run of the paced sweep comes to when nothing happens to it, and their table."""
    root = tmp_path_factory.mktemp("undisturbed")
    run_here(root, pictures)
    return bits_of(root), table_of(root)


@pytest.fixture(scope="session")
def undisturbed_pair(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """What run 0 comes to on two processes."""
    root = tmp_path_factory.mktemp("pair")
    run_here(root, pictures, "--slots", "1", "--only", "resolution=8,*", "runtime.processes=2")
    return bits_of(root)[0]


def run_here(root: Path, pictures: Path, *more: str) -> None:
    """The sweep on this machine, without a cluster; a report with holes is all right."""
    words = ["-m", "harness.sweep", str(SWEEP_FILE), "--root", str(root), f"data.path={pictures}"]
    done = subprocess.run(
        [sys.executable, *words, *more],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode in {0, 3}, done.stdout + done.stderr


@pytest.fixture
def make_site(pictures: Path, tmp_path: Path) -> Iterator[Callable[[slurm.Cluster], Site]]:
    """`make_site(cluster)`: a folder of a user's own on a login node of the cluster."""
    sites: list[Site] = []

    def make(on: slurm.Cluster) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", on, pictures))
        return sites[-1]

    yield make
    for site in sites:
        site.leave()
