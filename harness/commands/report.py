"""Tables, figures and pages of sweeps, from the records of their runs alone.

`python -m harness.report NAME... | --all | --compare A B | --check DIR`, of searches too: no sweep
file, no data, no torch.  Two more words: `import FILE --source ADDRESS` takes published
figures in, `published` shows them.  Exit codes: 0 complete (or the same, with --check), 2 the
command is wrong, 3 a report with holes (or another, with --check), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.commands.shared import (
    HOLES,
    command_parser,
    exit_code_of,
    number_from,
    of_a_sweep_file,
    store_of,
    under_a_root,
)
from harness.config.sweep_files import load_sweep
from harness.document.layout import LAYOUTS, NARROWEST
from harness.errors import ConfigError, HarnessError, RecordError, one_line, unknown, whole
from harness.files import real_path
from harness.report.result import ReportResult
from harness.store.checksums import UNCHECKED
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import Store
from harness.store.trials import is_search, search_names

_WATCH_SECONDS = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"import": _import, "published": _published}
    if words and words[0] in commands:
        return exit_code_of(lambda: commands[words[0]](words[1:]))
    return exit_code_of(lambda: _report(words), stopped=lambda: "stopped; the last report is whole")


# --------------------------------------------------------------------------- reports


def _report(words: Sequence[str]) -> int:
    args = _parser().parse_args(words)
    store = store_of(args)
    if args.sweep is not None:
        load_sweep(str(args.sweep))
    if args.check is not None:
        return _check(args)
    if args.compare is not None:
        return _compare(args, store)
    names = _names(args, store)
    if args.together is not None:
        return _together(args, store, names)
    folders = store.root / "reports" if args.out is None else args.out

    def write(name: str) -> bool:
        alone = args.out is not None and len(names) == 1
        out = folders if alone else folders / name
        return _said(args, store, [name], build_named(store, name, out, args.layout), out)

    if args.watch is not None:
        from harness.monitor.rebuild import rebuild_as_runs_end

        return _code(rebuild_as_runs_end(store, names, write, args.watch))
    return _code([_written(write, name, args.all) for name in names])


def _written(write: Callable[[str], bool], name: str, one_of_all: bool) -> bool:
    """With --all, a report that cannot be written keeps no other from it."""
    try:
        return write(name)
    except HarnessError as error:
        if not one_of_all:
            raise
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return False


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "report",
        __doc__,
        under_a_root(),
        of_a_sweep_file(),
        epilog="further: `import FILE --source ADDRESS` takes published figures in, "
        "`published` shows them; each has a --help.",
    )
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help="a sweep or search that was launched")
    add("--all", action="store_true", help="every sweep and search that was launched")
    add("--compare", nargs=2, metavar=("A", "B"), help="two sweeps, or how two code hashes or "
        "commits begin (of the runs of NAME..., or of all)")  # fmt: skip
    add("--together", metavar="NEW", help="one report NEW of the sweeps NAME..., a group of rows "
        "each; a run that several share stands once")  # fmt: skip
    add("--check", type=Path, metavar="DIR", help="rebuild the report in DIR and fail if any byte "
        "differs")  # fmt: skip
    add("--layout", choices=LAYOUTS, default=NARROWEST, help="the paper whose text the tables and "
        "figures fit (default: the narrowest, %(default)s)")  # fmt: skip
    add("--watch", type=number_from(0.1, "seconds"), nargs="?", const=_WATCH_SECONDS,
        metavar="SECONDS", help="build again as runs finish, until all have (default: look every "
        f"{_WATCH_SECONDS:g} s)")  # fmt: skip
    add("--keep-records", action="store_true", help="put what was read into the report's folder, "
        "so that --check works anywhere")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="the report's folder (default: reports/NAME); of "
        "several reports, where each has a folder NAME")  # fmt: skip
    return parser


def _names(args: argparse.Namespace, store: Store) -> list[str]:
    known = _known(store)
    if args.all and args.names:
        raise ConfigError("give names or --all, not both")
    names = list(dict.fromkeys(args.names)) if args.names else known
    if not args.names and not args.all:
        raise ConfigError(f"which sweep? {_on_file(known, store)}; or --all")
    if not names:
        raise RecordError(_on_file(known, store))
    check_on_file(store, names)
    return names


def _known(store: Store) -> list[str]:
    return sorted({*manifest_names(store), *search_names(store)})


def check_on_file(store: Store, names: Sequence[str]) -> None:
    """RecordError, naming the nearest, for a name that no sweep or search was launched by."""
    known = _known(store)
    for name in names:
        if name not in known:
            absent = "" if known else f": {_on_file(known, store)}"
            raise RecordError(f"{unknown('sweep', name, known)}{absent}")


def _on_file(known: Sequence[str], store: Store) -> str:
    if known:
        return f"on file: {', '.join(known)}"
    return (
        f"no sweep is on file in {store.manifests}: `python -m harness.sweep NAME` puts one there; "
        "--root names another place"
    )


def build_named(store: Store, name: str, out: Path, layout: str = NARROWEST) -> ReportResult:
    """Write the report of a sweep or search that is on file."""
    if is_search(store, name):
        from harness.report.search import build_search

        with whole(f"search {name}"):
            return build_search(name, store, out, layout)
    from harness.report.folder import build
    from harness.results.lasting import no_garbage

    with no_garbage(), whole(f"sweep {name}"):
        manifest = read_manifest(store, name)
        return build(manifest.sweep, manifest.runs, store, out, layout)


def _said(
    args: argparse.Namespace, store: Store, names: Sequence[str], result: ReportResult, out: Path
) -> bool:
    """Tell where the report of `names` is and what it lacks; whether it is complete."""
    if args.keep_records and names:
        from harness.report.check import keep_records

        keep_records(store, names, out)
    of = "" if result.runs is None else f" of {result.runs}"
    print(f"report: {out / 'report.html'}")
    if result.unchecked:
        print(f"{result.unchecked}{of} runs: {UNCHECKED}", file=sys.stderr)
    if result.holes:
        print(f"{result.holes}{of} runs are missing from it", file=sys.stderr)
    return result.complete


def _code(complete: Sequence[bool]) -> int:
    return 0 if all(complete) else HOLES


def _check(args: argparse.Namespace) -> int:
    from harness.report.check import check, unchecked

    problems = check(args.check, real_path(args.root))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return HOLES
    print(f"{args.check}: the same records give the same bytes")
    if old := unchecked(args.check, real_path(args.root)):
        print(f"{old} runs: {UNCHECKED}")
    return 0


def _compare(args: argparse.Namespace, store: Store) -> int:
    from harness.report.compare import compare

    first, second = args.compare
    out = args.out or store.root / "reports" / f"{first}-against-{second}"
    result = compare(store, first, second, args.names, out, args.layout)
    return _code([_said(args, store, [], result, out)])


def _together(args: argparse.Namespace, store: Store, names: Sequence[str]) -> int:
    from harness.report.together import together

    if args.watch is not None:
        raise ConfigError("--watch builds the reports of single sweeps, not --together")
    out = args.out or store.root / "reports" / args.together
    result = together(store, names, args.together, out, args.layout)
    return _code([_said(args, store, names, result, out)])


# --------------------------------------------------------------------------- published figures


def _import(words: Sequence[str]) -> int:
    """Published figures into results/external/: result files of open_clip, clip-benchmark and
    DataComp, tables in CSV, JSON lines, Markdown or LaTeX, or rows of our own columns."""
    from harness.report.external_import import Asked, import_file

    parser = command_parser("report import", _import.__doc__, under_a_root())
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("--source", metavar="ADDRESS", help="where the figures are printed; needed where the file "
        "has no column `source`")  # fmt: skip
    add("--percent", action="store_true", help="values are percentages, be they without a sign")
    add("--method", metavar="NAME", help="the model, where the file names none")
    add("--metric", metavar="NAME", help="of columns that name a data set alone, such as acc1")
    add("--name", help="of the file in results/external/, replacing it (default: that of FILE)")
    args = parser.parse_args(words)
    folder = real_path(args.root) / "results" / "external"
    asked = Asked(args.source, args.percent, args.method, args.metric)
    done = import_file(args.file, folder, asked, name=args.name)
    figures = done.figures
    for column in done.left_out:
        print(f"left out: column {column!r}, which names no data set", file=sys.stderr)
    models, datasets = {f.model for f in figures}, {f.dataset for f in figures}
    print(
        f"{done.file}: {len(figures):,} figures of {len(models):,} models on "
        f"{len(datasets):,} data sets"
    )
    return 0


def _published(words: Sequence[str]) -> int:
    """All of results/external/ as one sortable page."""
    from harness.report.published_page import write_published

    parser = command_parser("report published", _published.__doc__, under_a_root())
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: reports/published")
    args = parser.parse_args(words)
    root = real_path(args.root)
    page = write_published(root / "results" / "external", args.out or root / "reports/published")
    print(f"published figures: {page}")
    return 0
