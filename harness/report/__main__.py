"""Door of `python -m harness.report`: the command is in harness.commands.report."""

import sys

from harness.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
