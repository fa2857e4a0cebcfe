"""What is to be done with each run, and what it will cost; torch-free."""
