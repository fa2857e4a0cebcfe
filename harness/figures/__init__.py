"""The figures of reports, each registered by the file that draws it.

A new figure of sweeps is one file here with one function under `@SWEEP.register(NAME, place=N)`; of
searches, under `SEARCH`.  It returns a `Drawing`, or None where there is nothing to draw.
"""
