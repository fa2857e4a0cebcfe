"""What is done to a whole data set before any run: every picture looked at, or made small."""
