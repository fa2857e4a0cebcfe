"""`python -m harness.evaluate`: the command is `harness.benchmark`'s."""

import sys

from harness.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
