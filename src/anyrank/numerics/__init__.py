"""Numerics with the same bits everywhere: exact sums, random numbers, digests, elementary functions."""
