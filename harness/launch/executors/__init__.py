"""An executor a file; see `harness.launch.executor`."""
