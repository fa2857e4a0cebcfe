"""A trained model as it runs on a device: ONNX Runtime, in fp32 and in 8 bits.

`sessions` opens files, `encoders` offers them to evaluation, `quantise` makes 8-bit towers,
`recipes` chooses one of them by what it does on validation data, `forms` keeps what was chosen, and
`probe` measures a tower in a process of its own.
"""
