"""A page that shows how all sweeps under a root stand, from their files, as they change.

Reads and never writes.  Owns what the page says and its assets; knows no data, model or executor.
"""
