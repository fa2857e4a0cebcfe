"""The training loop, its optimiser and its checkpoints.

Knows a model, a stream of batches and a run directory; knows nothing of sweeps or evaluation.
"""
