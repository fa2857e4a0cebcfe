"""Door of `python -m harness.clean`: the command is in harness.commands.clean."""

import sys

from harness.commands.clean import main

if __name__ == "__main__":
    sys.exit(main())
