"""Door of `python -m harness.board`: the command is in harness.commands.board."""

import sys

from harness.commands.board import main

if __name__ == "__main__":
    sys.exit(main())
