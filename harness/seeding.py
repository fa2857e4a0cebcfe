"""Seeds derived from what they are for, never from the order in which they are drawn.

Two runs that differ in depth or backbone see the same pictures in the same order with the same
crops, and a tower's initial weights do not depend on the other tower.  Torch-free, and free of
NumPy until numbers are drawn.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for the use named by `parts`, such as `(run_seed, "text tower")`."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator for the use named by `parts`."""
    from numpy.random import default_rng

    return default_rng(derive_seed(*parts))
