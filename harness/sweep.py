"""Door of `python -m harness.sweep`: the command is in harness.commands.sweep."""

import sys

from harness.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main())
