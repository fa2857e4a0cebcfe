"""What the runs of a sweep allow to be said: pure functions of numbers.

Knows no file, no configuration and no format.  `analysis.analyse` is what a report calls, and what
`tests/benchmarks/stats.py` simulates.
"""
