"""Show all sweeps and searches under a root, their runs, curves and logs, as they change, on a
page for the browsers of this machine.

`python -m harness.board [options]`.  Serves this machine alone and reads only.  Exit codes: 2 the
command is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from collections.abc import Sequence

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    of_a_sweep_file,
    store_of,
    under_a_root,
)
from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, one_line, require

HOST = "127.0.0.1"
PORT = 8321
_PACKAGES = ("starlette", "uvicorn", "plotly")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_args(argv)), stopped=lambda: "")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "board",
        __doc__,
        under_a_root(),
        of_a_sweep_file(),
        epilog="From another machine: ssh -L 8321:127.0.0.1:8321 HOST.",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"{PORT}, or 0 for any that is free"
    )
    parser.add_argument("--yes", action="store_true", help="serve even as root")
    return parser


def run_command(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    require("the board", _PACKAGES, extra="board")
    store = store_of(args)
    if not store.root.is_dir():
        raise ConfigError(f"--root {args.root}: there is no such directory")
    if args.sweep is not None:
        load_sweep(str(args.sweep))
    listening = _listen(args.port)
    if os.geteuid() == 0 and not args.yes:
        raise ConfigError(
            "run by root, the board could read every file of this machine for whoever has its "
            "address; run it as yourself, or add --yes"
        )
    from harness.monitor.web.server import serve

    token = secrets.token_urlsafe(16)
    address = f"http://{HOST}:{listening.getsockname()[1]}/?token={token}"
    print(f"{store.root}: {address} (Ctrl-C ends it)", flush=True)
    serve(store, listening, token)
    return 130


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address; ConfigError if the port cannot be had."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: 0 to 65535 are ports")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--port {port}: {one_line(error)}; --port 0 takes one that is free"
        ) from None
    return listening
