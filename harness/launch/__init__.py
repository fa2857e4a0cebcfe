"""Where and how runs are started: executors behind one protocol, and the view of their files."""
