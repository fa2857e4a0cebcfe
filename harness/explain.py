"""Door of `python -m harness.explain`: the command is in harness.commands.explain."""

import sys

from harness.commands.explain import main

if __name__ == "__main__":
    sys.exit(main())
