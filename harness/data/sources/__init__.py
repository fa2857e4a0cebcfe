"""Where data sets come from, a file each; all are read by `harness.data.catalog`."""
