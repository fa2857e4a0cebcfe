"""Door of `python -m harness.evaluate`: the command is in harness.commands.evaluate."""

import sys

from harness.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
