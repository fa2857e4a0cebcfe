"""A results folder that somebody else made, copied or shared: nothing that it names is run."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from attacks import MARKER, PYTHON, TOUCH, nasty

from harness.commands import explain, export, report, status
from harness.config import RunConfig, Runtime, override
from harness.config.pipes import allow_pipes
from harness.config.sweep import Run, Show, Sweep, SweepFile, points
from harness.config.sweep_files import load_sweep, own_file
from harness.data.shard_list import find_shards
from harness.errors import ConfigError, DataError, HarnessError, RecordError
from harness.files import is_sealed, read_json, seal, write_json
from harness.launch.attempt import Attempt
from harness.launch.profiles import Profile
from harness.launch.slurm import recall, scheduler
from harness.launch.slurm.freeze import freeze
from harness.launch.slurm.frozen_check import fault_of
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.script import BatchJob, script
from harness.launch.slurm.submissions import Array, Intent, Submission, folder_of
from harness.planning.plan import Rerun, make_plan
from harness.store.manifest import read_manifest, write_manifest
from harness.store.provenance import shared_note
from harness.store.record import Store
from harness.store.state import State

PARTS = """
from harness.models.names import BACKBONES
from harness.space import Show, Sweep, points
from harness.config import RunConfig
BACKBONES.register("strangers_net")(lambda size: None)
SWEEP = Sweep(base=RunConfig(), points=points({"train.samples": 64}), seeds=[0],
              show=Show(x="train.samples", metrics=[]))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "copied")


@pytest.fixture
def planted(store: Store) -> Path:
    """The sweep file of a stranger's run, in the folder that came with it, and the run's key."""
    file = store.root / "sweeps" / "theirs.py"
    file.parent.mkdir(parents=True)
    file.write_text(PYTHON + PARTS)
    return file


def recorded(file: Path) -> SweepFile:
    return SweepFile(str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def run_of(store: Store, file: Path, **changes: object) -> Run:
    """A finished run by its records, and the manifest of the sweep `theirs` that has it."""
    config = override(RunConfig(), {"objective.token.weight": 1.0, **changes})
    run = Run("theirs", {"train.samples": 64}, 0, config, source=recorded(file))
    directory = store.run_dir(run.key)
    source = {"path": run.source.path, "sha256": run.source.sha256} if run.source else None
    directory.write_intent(config, {"label": "theirs", "sweep": source})
    sweep = Sweep(
        base=config,
        points=points({"train.samples": config.train.samples}),
        seeds=[0],
        show=Show(x="train.samples", metrics=[]),
        name="theirs",
        source=run.source,
    )
    write_manifest(store, sweep, [run], Runtime(), ["x"])
    return run


def finish(store: Store, run: Run) -> None:
    evaluations = {run.evaluation_key: {"metrics": {}}}
    store.run_dir(run.key).write_result(
        {
            "training": {"samples_seen": 64, "seconds": 1.0},
            "evaluations": evaluations,
            "cost": {},
            "checkpoint": {"file": "checkpoints/final.safetensors", "sha256": "0" * 64},
        }
    )


# --------------------------------------------------------------------------- sweep files


def test_a_recorded_sweep_file_is_not_imported_for_a_record(
    store: Store, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(store, planted, **{"model.image.backbone": "strangers_net"})
    finish(store, run)
    root = ["--root", str(store.root)]
    for main, words in (
        (export.main, [run.key, "--out", "out"]),
        (explain.main, [run.key, "--index", "0"]),
    ):
        assert main([*words, *root]) == 2
        said = capsys.readouterr().err
        assert f"the record names {planted}" in said
        assert "look into it first; --sweep PATH names it" in said
    status.main(["theirs", *root])
    report.main(["theirs", *root])
    status.main(["theirs", "--retry", run.key, *root])
    assert not Path(MARKER).exists()


def test_one_option_takes_it(store: Store, planted: Path) -> None:
    planted.write_text(PARTS)
    run = run_of(store, planted, **{"model.image.backbone": "strangers_net"})
    from harness.plugins import read_run

    with pytest.raises(ConfigError, match="--sweep PATH names it"):
        read_run(store.run_dir(run.key), None)
    assert read_run(store.run_dir(run.key), planted).model.image.backbone == "strangers_net"


def test_ones_own_file_of_that_content_is_found_wherever_the_record_says_it_was(
    store: Store, planted: Path, here: Path
) -> None:
    told = SweepFile("/somewhere/else.py", recorded(planted).sha256)
    assert own_file(told) is None
    own = here / "sweeps" / "below" / "mine.py"
    own.parent.mkdir(parents=True)
    shutil.copy(planted, own)
    assert own_file(told) is not None
    assert own_file(replace(told, sha256="0" * 64)) is None


def test_a_seal_is_of_one_file_of_one_content_and_of_one_user(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = recorded(planted)
    sealed = replace(plain, seal=seal(plain.told))
    assert own_file(sealed) == planted
    assert own_file(replace(sealed, path=str(tmp_path / "other.py"))) is None
    planted.write_text("other")
    assert own_file(sealed) is None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    assert not is_sealed(plain.told, sealed.seal)
    for other in ("", None, 7, [], "x" * 64, "\u202e"):
        assert not is_sealed(plain.told, other)


def test_a_key_that_others_can_read_seals_nothing(tmp_path: Path) -> None:
    given = seal("x")
    assert is_sealed("x", given)
    (tmp_path / "config" / "harness" / "key").chmod(0o644)
    assert not is_sealed("x", given)
    assert seal("x") == ""


@pytest.mark.parametrize("sweep", [None, 7, [], "x", {}, {"path": 3}, {"path": "a", "more": 1}])
def test_any_sweep_entry_of_a_record_is_read(store: Store, planted: Path, sweep: object) -> None:
    run = run_of(store, planted)
    write_json(store.run_dir(run.key).path / "job.json", {"sweep": sweep})
    found = store.run_dir(run.key).sweep_file()
    assert found is None or found.path == "a"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u2028b"])
def test_names_with_control_characters_are_refused(here: Path, name: str) -> None:
    (here / f"{name}.py").write_text(PARTS)
    with pytest.raises(ConfigError, match="control character"):
        load_sweep(f"./{name}.py")
    with pytest.raises(ConfigError, match="control character"):
        Profile(partition=name)
    root = here / name
    root.mkdir()
    assert status.main(["--root", str(root)]) == 2


# --------------------------------------------------------------------------- pipes


def test_a_command_in_a_recorded_path_is_not_run(store: Store, planted: Path) -> None:
    changes = {"data.source": "stream", "data.path": f"pipe:{TOUCH}; cat x.tar"}
    run = run_of(store, planted, **changes)
    args = Namespace(image=None, index=0, split=None, text=None, data=None)
    with pytest.raises(DataError, match="which a record names and you did not: it is not run"):
        explain._example(args, run.config)
    (step,) = make_plan([run], store, Rerun.ALL)
    with pytest.raises(DataError, match="it is not run"):
        Attempt.at(step, store).task({})


@pytest.mark.parametrize("path", [f"pipe:{TOUCH}", f"x.tar:: PIPE:{TOUCH}", f" pipe:{TOUCH} "])
def test_pipes_are_the_callers_own_or_refused(path: str) -> None:
    with pytest.raises(DataError, match="it is not run"):
        find_shards(path)
    allow_pipes([f"{path}; true"])
    with pytest.raises(DataError, match="it is not run"):
        find_shards(path)


@pytest.mark.parametrize("path", [".", "*.tar", "./pipe*"])
def test_a_file_that_is_called_like_a_command_is_a_file(here: Path, path: str) -> None:
    (here / f"pipe:{TOUCH} #.tar").write_bytes(b"")
    (shard,) = find_shards(path).shards
    assert not shard.is_remote
    assert Path(shard.place).is_file()


# --------------------------------------------------------------------------- submissions


def intent_of(store: Store, run: Run, **more: object) -> Intent:
    made = Intent(
        id="20260101-000000-000000-abcd",
        sweep="theirs",
        arrays=(Array("a-0", ((run.key,),)),),
        profile=Profile(setup=(TOUCH,), account="theirs"),
        runtime=Runtime(),
        root=str(store.root),
        code=str(store.root / "results" / "code" / "0"),
        sweep_file=None,
        cwd="/",
        command="x",
        created=0.0,
        report="a-report",
        report_command=("-c", PYTHON),
    )
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [True, False])
def test_another_users_runs_are_submitted_with_ones_own_profile_and_code(
    store: Store, planted: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(store, planted)
    store.run_dir(run.key).write_status(State.FAILED, failure="bug", error="x")
    intent = intent_of(store, run)
    submission = Submission(folder_of(store, "theirs") / intent.id)
    submission.write(intent)
    file = submission.folder / "submission.json"
    if not own:
        write_json(file, {**(read_json(file) or {}), "command": "changed"})
    orders: list[JobOrder] = []
    monkeypatch.setattr(recall, "submit", lambda steps, order, say: orders.append(order))
    said: list[str] = []
    recall.retry(read_manifest(store, "theirs"), [run.key], store, said.append)
    (order,) = orders
    assert order.frozen is None
    assert order.report is not None
    assert PYTHON not in order.report
    assert (order.profile.account, order.profile.setup) == (
        ("theirs", (TOUCH,)) if own else (None, ())
    )
    assert ("was not submitted by you" in " ".join(said)) is not own


def test_a_job_runs_what_was_submitted_or_nothing(store: Store, planted: Path) -> None:
    run = run_of(store, planted)
    intent = intent_of(store, run)
    submission = Submission(folder_of(store, "theirs") / intent.id)
    submission.write(intent)
    assert submission.read_as(intent.sha256) == intent
    submission.write(replace(intent, report_command=("-c", "other")))
    with pytest.raises(RecordError, match="was changed since it was submitted"):
        submission.read_as(intent.sha256)


@pytest.mark.parametrize("job", ["--help", "1 2", "1;x", "-1", "12_x", "", "1\n2", "0x1", "\u0661"])
def test_job_numbers_of_records_are_numbers(store: Store, planted: Path, job: str) -> None:
    run = run_of(store, planted)
    submission = Submission(folder_of(store, "theirs") / "1")
    submission.write(intent_of(store, run))
    write_json(submission.folder / "job-0.json", {"job": job})
    with pytest.raises(RecordError, match="names no job of SLURM"):
        submission.job(0)
    with pytest.raises(ConfigError, match="is no job of SLURM"):
        scheduler.cancel([job], "name")
    with pytest.raises(ConfigError, match="is no job of SLURM"):
        scheduler.requeue(job)


def test_nodes_of_records_are_names() -> None:
    assert scheduler.avoidable(["n1", "n-2.site", "a b", "--x", "n1", "x,y", "\n"]) == (
        "n1",
        "n-2.site",
    )


# --------------------------------------------------------------------------- frozen code


def test_frozen_code_is_hashed_again_and_is_nobody_elses_to_write(
    store: Store, tmp_path: Path
) -> None:
    frozen = freeze(store, None)
    assert fault_of(str(frozen.path), frozen.sha256) == ""
    job = BatchJob("j", ("-V",), Profile(), frozen, str(tmp_path), tmp_path / "logs")
    (line,) = [each for each in script(job).splitlines() if "frozen code is not run" in each]
    check = ["bash", "-c", f"{line}; echo went on"]
    assert subprocess.run(check, capture_output=True, text=True).stdout == "went on\n"
    changed = frozen.path / "harness" / "errors.py"
    changed.write_text(changed.read_text() + PYTHON)
    assert "is not as it was frozen" in fault_of(str(frozen.path), frozen.sha256)
    done = subprocess.run(check, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "frozen code is not run: " in done.stderr
    again = freeze(store, None)
    assert again.path != frozen.path
    assert again.sha256 == frozen.sha256
    for spoil, words in (
        (lambda path: (path / "beside").symlink_to(tmp_path), "is no file"),
        (lambda path: (path / "harness").chmod(0o775), "others may write"),
        (lambda path: (path / "more.py").write_text(PYTHON), "is not as it was frozen"),
    ):
        path = tmp_path / "copy"
        shutil.copytree(again.path, path)
        assert fault_of(str(path), frozen.sha256) == ""
        spoil(path)
        assert words in fault_of(str(path), frozen.sha256)
        shutil.rmtree(path)
    (again.path / "more.py").write_text(PYTHON)
    with pytest.raises(HarnessError, match="no code can be frozen"):
        freeze(store, None)


# --------------------------------------------------------------------------- scripts


def test_nothing_that_a_script_is_given_ends_a_word_of_it(store: Store, tmp_path: Path) -> None:
    """Through every field of a profile, the working directory, the folder and the command."""
    fields = ("partition", "qos", "account", "constraint", "reservation", "report_partition")
    frozen = freeze(store, None)
    logs = tmp_path / "logs"

    def made(text: str) -> list[str]:
        more = {"exclude": (text,), "extra": {"comment": text}}
        profile = Profile(**dict.fromkeys(fields, text), **more)  # type: ignore[arg-type]
        job = BatchJob("j", ("-c", text), profile, frozen, str(tmp_path), logs)
        return script(job).splitlines()

    lines, taken = len(made("x")), 0
    for text in filter(str.strip, nasty()):
        try:
            found = made(text)
        except ConfigError as error:
            assert "control character" in str(error)  # noqa: PT017
            continue
        taken += 1
        assert len(found) == lines, text
        for line in found:
            shlex.split(line.removeprefix("#SBATCH "), comments=False)
    assert taken > 100


def test_a_shared_root_is_said(store: Store) -> None:
    store.root.mkdir(exist_ok=True)
    assert shared_note(store.root) == []
    store.root.chmod(0o2775)
    if not os.stat(store.root).st_mode & 0o2000:
        pytest.skip("this file system keeps no set-group-ID")
    (note,) = shared_note(store.root)
    assert "is shared with group" in note
    assert json.dumps(note)
