"""What is on disk of runs, sweeps, searches and evaluations; torch-free."""
