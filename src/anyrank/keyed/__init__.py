"""Keyed data: rows that are read, combined by key, sorted and written by all ranks together."""
