"""Numbers that are the same everywhere: exact sums, random numbers, digests, elementary functions."""
