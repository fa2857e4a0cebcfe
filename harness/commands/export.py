"""Write a finished run's model for use without the harness.

`python -m harness.export RUN --out DIR [--root DIR] [--onnx]`: weights and configuration that plain
open_clip loads, ONNX files of both towers if asked, and a card that says how the model came about.
Owns which runs may be exported and what may be overwritten.  Exit codes: 0 written, 2 refused or
wrong, 3 the files would not compute what was trained.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    of_a_sweep_file,
    store_of,
    under_a_root,
)
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.evaluate.deploy.sessions import TO_WRITE, check_packages
from harness.files import read_json, replacing, sha256_of, write_atomic, write_json
from harness.plugins import read_run
from harness.store.checksums import UNCHECKED, changed_files, is_told
from harness.store.record import RunDir

if TYPE_CHECKING:
    from harness.models.two_tower import TwoTower

MANIFEST = "export.json"
_SCHEMA = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_args(argv)))


def run_command(args: argparse.Namespace) -> int:
    """Export the run that `args` names and say what was written; returns the exit code."""
    if args.onnx:
        check_packages("--onnx", TO_WRITE)
    directory = store_of(args).find(args.run)
    directory.finished()
    read_run(directory, args.sweep)
    for line in export(directory, args.out.absolute(), onnx=args.onnx):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("export", __doc__, under_a_root(), of_a_sweep_file())
    add = parser.add_argument
    add("run", metavar="RUN", help="key, beginning of a key, or path of a run's directory")
    add("--out", type=Path, required=True, metavar="DIR", help="new, empty, or an earlier export")
    add("--onnx", action="store_true", help="both towers as ONNX too, which any backbone allows")
    return parser


# --------------------------------------------------------------------------- the folder


def check_target(out: Path, key: str) -> Mapping[str, str]:
    """The files, with their SHA-256, of an earlier export of the run `key` that is in `out`.

    ConfigError unless `out` is absent, empty, or such an export, unchanged.
    """
    if not os.path.lexists(out):
        return {}
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"--out {out} is no folder; name a new or an empty one")
    names = sorted(file.name for file in out.iterdir())
    if not names:
        return {}
    manifest = read_json(out / MANIFEST)
    if manifest is None:
        raise ConfigError(
            f"--out {out} is not empty and holds no export; name a new or an empty one"
        )
    if manifest.get("run") != key:
        raise ConfigError(
            f"--out {out} holds the export of run {manifest.get('run')}, not of {key}; "
            "name another folder"
        )
    written: Mapping[str, str] = manifest["files"]
    foreign = [name for name in names if name != MANIFEST and not _is_ours(out / name, written)]
    if foreign:
        raise ConfigError(
            f"--out {out} holds what the export did not write or what was changed since: "
            f"{', '.join(foreign)}; move it away"
        )
    return written


def _is_ours(file: Path, written: Mapping[str, str]) -> bool:
    return file.is_file() and written.get(file.name) == sha256_of(file)


# --------------------------------------------------------------------------- the export


def export(run: RunDir, out: Path, *, onnx: bool) -> list[str]:
    """Write the model of `run` into the folder `out`, whole or not at all.

    Returns:
        Lines that say what was written, and what could not be.

    Raises:
        RecordError: the run has no result, or its weights are not those of the result.
        ConfigError: `out` holds something else; or open_clip cannot load the model and `onnx` is
            false.
        InvariantError: a file does not compute what was trained.
    """
    config = run.read_config()
    result = run.finished()
    before = check_target(out, run.key)
    model = _load(run, config, result)
    with replacing(out) as folder:
        why = _write_models(model, folder, onnx=onnx)
        _write_papers(run, config, result, model, folder, onnx=onnx, why=why)
        files = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
        write_json(
            folder / MANIFEST,
            {
                "schema": _SCHEMA,
                "run": run.key,
                "checkpoint": result["checkpoint"]["sha256"],
                "files": files,
            },
        )
    notes = [f"note: {why}; only ONNX was written"] if why else []
    notes += [f"note: {line}" for line in changed_files(run.path, result)]
    notes += [] if is_told(result) else [f"note: {UNCHECKED}"]
    return [f"run {run.key} in {out}: {', '.join(files)}{_replaced(before, files)}", *notes]


def _replaced(before: Mapping[str, str], files: Mapping[str, str]) -> str:
    """What became of an earlier export, if there was one."""
    if before in ({}, files):
        return "; the same bytes as before" if before else ""
    gone = [name for name in before if name not in files]
    return "; an earlier export is replaced" + (f", without {', '.join(gone)}" if gone else "")


def _load(run: RunDir, config: RunConfig, result: Mapping[str, Any]) -> TwoTower:
    from harness.models.export import load_model
    from harness.train.checkpoint import load_weights

    return load_model(config.model, load_weights(run.path, result["checkpoint"]))


def _write_models(model: TwoTower, folder: Path, *, onnx: bool) -> str:
    """The tensors' files; returns why open_clip's are missing, empty if they are there."""
    from harness.models.export import NotForOpenClip, write_onnx, write_open_clip

    why = ""
    try:
        write_open_clip(model, folder)
    except NotForOpenClip as error:
        if not onnx:
            raise NotForOpenClip(f"{error}; --onnx exports it") from None
        why = str(error)
    if onnx:
        write_onnx(model, folder)
    return why


def _write_papers(
    run: RunDir,
    config: RunConfig,
    result: Mapping[str, Any],
    model: TwoTower,
    folder: Path,
    *,
    onnx: bool,
    why: str,
) -> None:
    from harness.report.card import card, example

    text = card(
        config,
        result,
        run.provenance(),
        in_open_clip=not why,
        in_onnx=onnx,
        why=why,
    )
    write_atomic(folder / "README.md", text.encode())
    if onnx:
        scale = model.logit_scale.exp().item()
        write_atomic(folder / "example.py", example(config, scale).encode())
