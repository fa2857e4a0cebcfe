"""Records on disk to one table of runs, in which a missing number says why."""
