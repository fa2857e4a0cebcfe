"""From embeddings to numbers: rankings, retrieval, zero-shot classification, choices.

`job` holds what one evaluation needs and gathers; every other module owns one kind of number, as
pure functions of embeddings wherever it can.
"""
