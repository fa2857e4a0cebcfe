"""The terms of the loss, each a class in a file of its own, weighted and summed in `terms`.

A term is part of the configuration, which a login node reads without torch: no module of this
folder imports torch while it is imported itself, only inside the functions that compute with it.
"""
