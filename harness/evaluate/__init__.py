"""A trained model and a data set to numbers: embeddings once, then retrieval and zero-shot.

`invariants` is torch-free, so that the report can check again what it reads.  Nothing here knows of
sweeps, launchers or tables.
"""
