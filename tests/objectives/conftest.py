from tests.train.conftest import in_64_bits

__all__ = ["in_64_bits"]
