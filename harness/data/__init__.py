"""Pictures and captions: sources, decoding, transforms, and a stateless stream of batches.

`catalog`, `openmoji`, `folder` and `shards` are torch-free, so that a plan can be made on a login
node.
"""
