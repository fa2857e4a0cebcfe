"""Paths that records hold, and links: nothing is read or written outside of what was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.files import FileTree
from harness.data.sources.folder import open_folder
from harness.errors import RecordError
from harness.files import append, inside, make_ready, one_name, read_json, replacing, write_json
from harness.report.check import check, keep_records
from harness.report.folder import MANIFEST, write_files
from harness.store.record import RunDir, Store
from harness.train.checkpoint import load_weights

OUT = ["../x", "a/../../x", "/etc/passwd", "", ".", "..", "a/..", "x\0y", None, 7, ["x"], "link/x"]


@pytest.fixture
def folder(here: Path) -> Path:
    made = here / "run"
    (made / "a").mkdir(parents=True)
    (made / "link").symlink_to(here)
    (made / "circle").symlink_to("circle")
    (here / "x").write_text("elsewhere")
    return made


@pytest.mark.parametrize("name", [*OUT, "circle/x"])
def test_a_recorded_path_stays_inside(folder: Path, name: object) -> None:
    for replaced in (False, True):
        with pytest.raises(RecordError, match="a record names what lies in it alone"):
            inside(folder, name, replaced=replaced)
    with pytest.raises(RecordError, match="a record names what lies in it alone"):
        load_weights(folder, {"file": name, "sha256": "0" * 64})
    assert inside(folder, "a/b") == folder / "a" / "b"
    assert inside(folder, "link", replaced=True) == folder / "link"


def test_a_root_and_a_run_may_be_reached_by_links(folder: Path, here: Path) -> None:
    (here / "other").symlink_to(folder)
    assert inside(here / "other", "a/b") == here / "other" / "a" / "b"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "x\0", None, 3])
def test_a_recorded_key_or_sweep_is_one_name(tmp_path: Path, name: object) -> None:
    store = Store(tmp_path)
    for asked in (one_name, store.run_dir, store.manifest_file):
        with pytest.raises(RecordError, match="is no name of a record"):
            asked(name)  # type: ignore[operator]


def test_a_run_does_not_write_through_a_link(folder: Path) -> None:
    directory = RunDir(folder)
    with pytest.raises(RecordError, match="'link' is no file in"):
        make_ready(folder)
    (folder / "link").unlink()
    (folder / "circle").unlink()
    (folder / "within").symlink_to("a")
    make_ready(folder)
    directory.metrics_file.symlink_to(folder.parent / "x")
    with pytest.raises(OSError, match="Too many levels"):
        directory.append_metrics({"a": 1})
    with pytest.raises(OSError, match="Too many levels"):
        append(directory.metrics_file, b"x")
    assert (folder.parent / "x").read_text() == "elsewhere"


def test_a_report_writes_and_deletes_in_its_own_folder(here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "old.png").write_text("mine")
    out = here / "report"
    out.mkdir()
    (out / "figures").symlink_to(here / "elsewhere")
    write_json(out / MANIFEST, {"files": {"figures/old.png": "0"}})
    with pytest.raises(RecordError, match="a record names what lies in it alone"):
        write_files(out, {"report.md": b"x", "figures/new.png": b"x"}, {})
    assert not (out / "report.md").exists()
    write_files(out, {"report.md": b"x"}, {})
    assert [file.name for file in (here / "elsewhere").iterdir()] == ["old.png"]
    (out / "figures").unlink()
    (out / "report.md").unlink()
    (out / "report.md").symlink_to(here / "elsewhere" / "old.png")
    write_json(out / MANIFEST, {"files": {}})
    write_files(out, {"report.md": b"page"}, {})
    assert (here / "elsewhere" / "old.png").read_text() == "mine"
    assert (out / "report.md").read_bytes() == b"page"


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "outcomes/../../../../x"])
def test_a_manifest_of_a_report_names_records_alone(here: Path, file: str) -> None:
    (here / "x").write_text("elsewhere")
    told = {"files": {}, "runs": [], "external": {}, "made": {}}
    for tree in (
        {**told, "external": {file: ""}},
        {**told, "inputs": {f"results/{file}": ""}},
        {**told, "runs": [{"place": "results/runs/k", "inputs": {file: ""}}]},
        {**told, "runs": [{"place": f"results/runs/{file}", "inputs": {"a": ""}}]},
    ):
        write_json(here / "report" / MANIFEST, tree)
        with pytest.raises(RecordError, match="a record names what lies in it alone"):
            check(here / "report", here)
    with pytest.raises(RecordError, match="a record names what lies in it alone"):
        keep_records(Store(here), [], here / "report")
    assert read_json(here / "report" / MANIFEST) is not None


def test_a_folder_that_takes_anothers_place_removes_a_link_and_not_what_it_leads_to(
    here: Path,
) -> None:
    (here / "victim").mkdir()
    (here / "victim" / "mine").write_text("x")
    (here / "records").symlink_to(here / "victim")
    with replacing(here / "records") as new:
        (new / "a").write_text("a")
    assert not (here / "records").is_symlink()
    assert (here / "records" / "a").exists()
    assert (here / "victim" / "mine").exists()
    assert {file.name for file in here.iterdir()} == {"victim", "records"}


def test_links_out_of_a_data_folder_are_read_and_told(here: Path) -> None:
    (here / "data").mkdir()
    (here / "captions.csv").write_text("image,caption\na.png,a\n")
    (here / "data" / "captions.csv").symlink_to(here / "captions.csv")
    (here / "data" / "a.png").write_bytes(b"x")
    (here / "data" / "b.png").symlink_to("a.png")
    line = "links that lead out of the folder are read: 1, such as captions.csv"
    assert FileTree(here / "data").notes == [line]
    assert line in open_folder(here / "data").account.notes
