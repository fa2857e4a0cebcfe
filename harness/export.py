"""Door of `python -m harness.export`: the command is in harness.commands.export."""

import sys

from harness.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
