"""Draw the words of a text on the patches that a run matches them to.

`python -m harness.explain RUN (--image PATH --text TEXT | --index N)`: by the run's token
objective.  Starts, trains and scores nothing.  Exit codes: 0 drawn, 2 the command, the run or the
picture cannot be used.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    of_a_sweep_file,
    store_of,
    under_a_root,
)
from harness.config import RunConfig, Runtime
from harness.config.pipes import allow_pipes
from harness.data.catalog import check_evaluated, open_data
from harness.errors import ConfigError, DataError
from harness.files import write_atomic
from harness.plugins import read_run

if TYPE_CHECKING:
    from harness.evaluate.alignment import Alignment, WordMatch

_ENDINGS = (".png", ".svg")


@dataclass(frozen=True)
class Example:
    """A picture's encoded bytes and a text; `name` is for the figure's file."""

    name: str
    picture: bytes
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: explain(parse(argv)))


# --------------------------------------------------------------------------- the command line


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = command_parser("explain", __doc__, under_a_root(), of_a_sweep_file())
    add = parser.add_argument
    add("run", metavar="RUN", help="a finished run: its key, how that begins, or its directory")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=Path, metavar="PATH", help="a picture; needs --text")
    source.add_argument("--index", type=int, metavar="N", help="picture N of the run's own data")
    add("--text", help="with --index in place of the picture's first caption")
    add("--data", metavar="PATH", help="of --index, in place of the data.path on record")
    add("--split", metavar="NAME", help="the split of --index (default: test)")
    add("--out", type=Path, metavar="FILE", help="default: in reports/explain; .png and .svg")
    args = parser.parse_args(argv)
    if args.image is not None and args.text is None:
        raise ConfigError("--image needs --text, the words to look for")
    if args.image is not None and args.split is not None:
        raise ConfigError("--split is for --index; --image names a picture of its own")
    if args.image is not None and args.data is not None:
        raise ConfigError("--data is for --index; --image names a picture of its own")
    return args


# --------------------------------------------------------------------------- the command


def explain(args: argparse.Namespace) -> int:
    """Draw the figure that `args` ask for, and print the words with their places.

    Raises:
        RecordError: no such run, or an unfinished one.
        ConfigError: a run without the token term, or a text without words.
        DataError: the picture cannot be had or decoded.
    """
    store = store_of(args)
    directory = store.find(args.run)
    config = read_run(directory, args.sweep, data=args.image is None)
    check_token_term(config, directory.key)
    out = _base_of(args.out)
    directory.finished()

    from harness.data.images import decode
    from harness.evaluate.alignment import align
    from harness.finished import load_finished

    model = load_finished(directory)
    example = _example(args, config)
    picture = decode(example.picture, max_pixels=Runtime().max_pixels)
    alignment = align(model, config.objective.token, picture, example.text)
    if out is None:
        out = store.root / "reports" / "explain" / f"{directory.key}-{_file_name(example)}"
    _print_words(alignment)
    write_figure(alignment, example.text, _about(config), out)
    print(f"figure: {out}.png, {out}.svg")
    return 0


def check_token_term(config: RunConfig, key: str) -> None:
    """ConfigError unless the run learnt to match words with patches."""
    if config.objective.token.weight == 0:
        raise ConfigError(
            f"run {key} was trained with objective.token.weight = 0 and has no word or patch "
            "tokens to show; runs with objective.token.weight > 0 have"
        )


def _base_of(out: Path | None) -> Path | None:
    """`--out` without its ending; ConfigError for an ending that is not written."""
    if out is not None and out.suffix not in {"", *_ENDINGS}:
        raise ConfigError(
            f"--out {out} ends in {out.suffix}; written are {' and '.join(_ENDINGS)}, or no ending"
        )
    return None if out is None else out.with_suffix("")


def _example(args: argparse.Namespace, config: RunConfig) -> Example:
    if args.image is not None:
        return Example(args.image.stem, args.image.read_bytes(), args.text)
    runtime = Runtime()
    allow_pipes([args.data])
    place = {} if args.data is None else {"path": args.data}
    data = open_data(config.data.model_copy(update=place), runtime)
    check_evaluated(data, config.evaluate)
    name = args.split or "test"
    split = data.split(name)
    if not 0 <= args.index < len(split):
        raise DataError(
            f"--index {args.index}: split {name} of {data.name} has pictures 0 to {len(split) - 1}"
        )
    data.prepare()
    image = split.images[args.index]
    try:
        picture = data.read(image)
    except KeyError as error:
        raise DataError(f"picture {image} of {data.name} cannot be read: {error}") from None
    text = args.text if args.text is not None else split.captions[args.index][0]
    return Example(f"{name}-{args.index}", picture, text)


def _file_name(example: Example) -> str:
    """A name that two different pictures or texts do not share."""
    digest = hashlib.sha256(example.picture + b"\0" + example.text.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', example.name)}-{digest}"


def _about(config: RunConfig) -> str:
    token, model = config.objective.token, config.model
    return (
        f"run {config.run_key}: {model.image.backbone} at {model.image.size} px, "
        f"{model.text.layers} text layers, matching {token.matching}, "
        f"negatives {token.negatives}, {config.train.samples:,} samples"
    )


def _print_words(alignment: Alignment) -> None:
    width = max(len(word.text) for word in alignment.words)
    for number, word in enumerate(alignment.words, 1):
        print(f"{number:3}  {word.text:{width}}  {_in_words(word)}")


def _in_words(word: WordMatch) -> str:
    from harness.figures.alignment import matched

    if word.cosine is None:
        found = "not matched"
    else:
        places = " ".join(f"({row},{column})" for row, column in matched(word))
        found = f"{word.cosine:6.3f}  at {places}"
    return found if word.known else f"{found}  unseen: no training caption has all its pieces"


def write_figure(alignment: Alignment, text: str, about: str, out: Path) -> None:
    """Write `out`.png and `out`.svg; the same alignment gives the same bytes."""
    from harness.figures import style
    from harness.figures.alignment import draw_alignment

    with style.house():
        figure = draw_alignment(alignment, text, about)
        write_atomic(out.with_name(f"{out.name}.png"), style.png(figure))
        write_atomic(out.with_name(f"{out.name}.svg"), style.svg(figure))
