"""Door of `python -m harness.fields`: the command is in harness.commands.fields."""

import sys

from harness.commands.fields import main

if __name__ == "__main__":
    sys.exit(main())
