"""Door of `python -m harness`: lists the commands, and runs the one that is named."""

import sys

from harness.commands import main

if __name__ == "__main__":
    sys.exit(main())
