"""The terms of the loss: pure functions of tensors, weighted in one place."""
