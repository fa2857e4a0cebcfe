"""How runs stand, on a terminal, on a page of this machine, and for reports built as runs end.

Looks at the store and asks a scheduler; starts, stops and writes nothing.
"""
