"""What every command shares: one line for an error, an exit code, and no traceback for a user.

Knows no command.  Exit codes: 0 done, 2 the command or its configuration is wrong, 130 interrupted;
an error may carry its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from harness.errors import ConfigError, HarnessError, one_line


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are ConfigErrors, shown as every other error is."""

    def error(self, message: str) -> NoReturn:
        """ConfigError with argparse's own words."""
        raise ConfigError(f"{message}; --help shows what there is")


def run(command: Callable[[], int], *, stopped: Callable[[], str] = lambda: "stopped") -> int:
    """The exit code of `command`; a known error is told in one line on standard error.

    Args:
        stopped: what to say when the user interrupts.
    """
    try:
        return command()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(stopped(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
