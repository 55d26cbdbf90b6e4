"""Verify: run a program in many cases that must give the same state, and report the first difference."""
