"""Search: one controller asks an optimiser for trials, and every trial is an ordinary run.

`study` asks the optimiser, `source` hands the runs to an executor and tells how they ended,
`command` is the half of `python -m harness.sweep` that searches.
Importing this package is cheap: the optimiser is imported when a study is opened.
"""
