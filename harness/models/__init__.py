"""The two towers: any timm backbone, open_clip's text transformer at any depth.

Knows nothing of losses, data sets or run directories.
"""
