"""Door of `python -m harness.bench`: the command is in harness.commands.bench."""

import sys

from harness.commands.bench import main

if __name__ == "__main__":
    sys.exit(main())
