"""Door of `python -m harness.status`: the command is in harness.commands.status."""

import sys

from harness.commands.status import main

if __name__ == "__main__":
    sys.exit(main())
