"""What records say is shown as letters: on a terminal by every command, live too, and in CSV."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from attacks import nasty
from rich.console import Console
from small_data import picture

from harness.commands import clean, commands, data, explain, report, status
from harness.commands import sweep as sweep_command
from harness.commands.shared import exit_code_of
from harness.config import RunConfig, Runtime, override
from harness.config.sweep import Run, Show, Sweep, points
from harness.document.escaping import csv_field, csv_given, csv_text, frame_csv
from harness.document.terminal import PlainConsole
from harness.document.text import visible, visible_line
from harness.errors import refuse_controls
from harness.files import read_json, write_json
from harness.monitor.snapshot import SnapshotReader
from harness.monitor.terminal import change_line, live_table, points_page, progress_line
from harness.report.external import PublishedResult, read_figures, to_csv
from harness.store.manifest import read_manifest, write_manifest
from harness.store.record import Store
from harness.store.state import State

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
TEXTS = [*(text for text in nasty(110) if text.strip() and len(text) < 200), ":smile: :bomb:"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A failed run for each text, which is its label, its error, its host and its log."""
    made = Store(tmp_path_factory.mktemp("shown"))
    base = override(RunConfig(), {"objective.token.weight": 1.0})
    sweep = Sweep(
        base=base,
        points=points({"train.samples": 64}),
        seeds=list(range(len(TEXTS))),
        show=Show(x="train.samples", metrics=["test/mean_recall"]),
        name="theirs",
    )
    runs = []
    for seed, text in enumerate(TEXTS):
        run = Run("x", {"train.samples": 64}, seed, override(base, {"seed": seed}))
        runs.append(run)
        directory = made.run_dir(run.key)
        directory.write_intent(run.config, {"label": text})
        directory.add_provenance({"host": text, "time": text, "slurm": {"node": text}})
        directory.write_status(State.FAILED, failure=text, error=text, log=text, attempt=1)
        log = directory.log_file(1)
        log.parent.mkdir()
        log.write_text(text, encoding="utf-8", errors="replace")
    write_manifest(made, sweep, runs, Runtime(), ["x"])
    file = made.manifest_file("theirs")
    tree = read_json(file) or {}
    for entry, text in zip(tree["runs"], TEXTS, strict=True):
        entry["label"] = text
    write_json(file, tree)
    return made


def check(shown: str) -> None:
    found = OBEYED.findall(shown)
    assert not found, f"{found[:3]} in {shown[max(0, shown.index(found[0]) - 80) :][:160]!r}"


def test_status_shows_letters(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["theirs"]):
        assert status.main([*words, "--root", str(store.root)]) == 0
        out = capsys.readouterr().out
        check(out)
    assert r"\x1b[31mred\x1b[0m" in out
    assert "[bold red]x[/]" in out
    assert ":smile: :bomb:" in out
    assert r"a\x0atouch" in out
    keys = [run.key for run in read_manifest(store, "theirs").runs]
    for key in keys[::4]:
        status.main(["--logs", key, "--root", str(store.root)])
        said = capsys.readouterr()
        check(said.out)
        check(said.err)


def test_what_is_watched_shows_letters(store: Store) -> None:
    manifest = read_manifest(store, "theirs")
    snapshots = SnapshotReader(store).read(manifest.runs)
    check("\n".join([*map(change_line, snapshots), progress_line(snapshots)]).replace("\n", ""))
    for parts in (points_page(store, manifest, snapshots, wide()), [live_table(snapshots, 200)]):
        shown = "".join(rendered(part) for part in parts)
        check(shown)
        assert "[bold red]x[/]" in shown
        assert ":smile: :bomb:" in shown


def wide() -> Console:
    console = PlainConsole(pipe_width=160)
    console.height = 400
    return console


def rendered(part: object) -> str:
    console = wide()
    console.file = io.StringIO()
    console.print(part)
    return console.file.getvalue()


def test_files_of_a_report_are_inert_in_a_spreadsheet(store: Store, here: Path) -> None:
    assert report.main(["theirs", "--root", str(store.root), "--out", str(here / "out")]) == 3
    files = [*(here / "out").rglob("*.csv")]
    assert len(files) > 1
    for file in files:
        for cell in cells(file.read_text(encoding="utf-8")):
            assert not is_run(cell), (file, cell)
            check(cell.replace("\r", "").replace("\t", ""))


def cells(text: str) -> Iterator[str]:
    for row in csv.reader(io.StringIO(text, newline=""), strict=True):
        yield from row


def is_run(cell: str) -> bool:
    """Whether a spreadsheet takes a cell for a formula, and it is no number."""
    start = cell.lstrip(" \xa0")
    if not start.startswith((*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def test_every_text_is_inert_and_found_again() -> None:
    texts = nasty()
    for text, cell in zip(texts, cells(csv_text(["x"], [[t] for t in texts])[2:]), strict=True):
        assert not is_run(cell)
        if text.isascii() and text == visible(text) and text[:1] != "'":
            assert csv_given(cell) == text


def test_tables_of_a_search_and_of_published_figures_follow_the_rule() -> None:
    import pandas as pd

    frame = pd.DataFrame({"why": ["=cmd()", "\x1b[2J"], "value": [0.5, None]})
    assert frame_csv(frame) == "why,value\n'=cmd(),0.5\n\\x1b[2J,\n"
    figure = PublishedResult(
        method="@x", dataset="d", metric="acc1", value=0.5, source="+ printed, see =1+1"
    )
    text = to_csv([figure])
    assert not any(map(is_run, cells(text)))
    ((_, again),) = read_figures(text.encode(), "x.csv")
    assert (again.source, again.method) == (figure.source, "@x")


@pytest.mark.parametrize("text", nasty(90))
def test_a_line_is_a_line(text: str) -> None:
    line = visible_line(text)
    check(line.replace("\n", "\x00"))
    refuse_controls("a line", line)
    assert csv_field(text) is not None


# --------------------------------------------------------------------------- every other door


@pytest.mark.parametrize("door", sorted(commands()))
def test_what_is_typed_is_told_in_letters_by_every_door(
    door: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"harness.commands.{door}")
    for text in TEXTS[::3]:
        for words in ([text], ["--root", text], ["--nothing", text]):
            with contextlib.suppress(SystemExit):
                module.main(words)
            said = capsys.readouterr()
            check(said.out)
            check(said.err)
            assert "Traceback" not in said.err


def test_a_plan_shows_letters(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "theirs.py").write_text(PLANNED)
    words = ["theirs.py", "--dry-run", "--root", str(here)]
    assert sweep_command.main(words) == 0
    keys = re.findall(r"\b[0-9a-f]{12}\b", capsys.readouterr().out)
    assert len(keys) == len(TEXTS)
    for key, text in zip(keys, TEXTS, strict=True):
        directory = Store(here).run_dir(key)
        directory.add_provenance({"host": text, "slurm": {"node": text}})
        directory.write_status(State.FAILED, failure=text, error=text, log=text, attempt=1)
    for rerun in ("missing", "failed"):
        assert sweep_command.main([*words, "--rerun", rerun]) == 0
        said = capsys.readouterr()
        assert r"\x1b[31mred\x1b[0m" in said.out, said
        check(said.out)
        check(said.err)


PLANNED = f"""
from harness.config import RunConfig, override
from harness.config.sweep import Show, Sweep, points
SWEEP = Sweep(
    base=override(RunConfig(), {{"objective.token.weight": 1.0}}),
    points=points({{"train.samples": 64}}),
    seeds=list(range({len(TEXTS)})),
    show=Show(x="train.samples", metrics=["test/mean_recall"]),
    name="theirs",
)
"""


def test_status_watched_from_a_pipe_shows_letters(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    for words in (["--watch"], ["theirs", "--watch"]):
        status.main([*words, "--root", str(store.root)])
        said = capsys.readouterr()
        assert said.out
        check(said.out)
        check(said.err)


def file_name(text: str) -> str:
    """As much of it as a file can be called."""
    whole = text.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")
    return whole.replace("/", "_").replace("\0", "")


def test_data_of_any_names_and_captions_is_told_in_letters(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "set" / "train"
    folder.mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        name = folder / f"{number}{file_name(text)}"
        name.with_name(f"{name.name}.png").write_bytes(picture(number % 12))
        name.with_name(f"{name.name}.txt").write_text(text, "utf-8", "replace")
    (folder / "\x1b[2Jbroken.png").write_bytes(b"\x1b[31m<html>")
    (folder / "\x1b[2Jbroken.txt").write_text("x")
    words = [str(here / "set"), "--cache", str(here / "cache"), "--workers", "1"]
    words += ["--max-bad-fraction", "0.5"]
    packed = ["pack", *words, "--out", str(here / "packed"), "--size", "4"]
    for asked in (["check", *words], ["check", *words, "--json"], packed):
        assert data.main(asked) in {0, 3}, capsys.readouterr().err
        said = capsys.readouterr()
        assert len(said.out) > 100
        check(said.out)
        check(said.err)


def test_what_is_freed_is_named_in_letters(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "cache").mkdir()
    for text in TEXTS:
        (here / "cache" / f"x{file_name(text)}").write_bytes(b"x")
    words = ["--root", str(here), "--cache", str(here / "cache"), "--days", "0"]
    assert clean.main(words) == 0
    out = capsys.readouterr().out
    assert r"\x1b[31mred" in out
    check(out)


def test_words_of_captions_and_towers_are_told_in_letters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [SimpleNamespace(text=text, cosine=None, known=False) for text in TEXTS]
    asked = partial(explain._print_words, SimpleNamespace(words=words))
    assert exit_code_of(lambda: asked() or 0) == 0
    check(capsys.readouterr().out.replace("\t", " "))
