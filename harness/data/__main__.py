"""Door of `python -m harness.data`: the command is in harness.commands.data."""

import sys

from harness.commands.data import main

if __name__ == "__main__":
    sys.exit(main())
